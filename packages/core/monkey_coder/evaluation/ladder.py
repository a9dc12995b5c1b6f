"""The best fixed order of models on the training rows: the baseline that ignores the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.protocol import STOP, EpisodeState, TrainingView
from monkey_coder.evaluation.verifier import GOOD_ENOUGH

BEAM_WIDTH: Final = 64


@dataclass
class Ladder:
    """A fixed order of up to K models for each cost weight, found by beam search on the training rows."""

    name: str = "ladder"
    seeded: ClassVar[bool] = False
    width: int = BEAM_WIDTH
    _orders: dict[float, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def fit(self, train: TrainingView) -> None:
        """Search the order of highest training utility for every cost weight."""
        rungs = Rungs.of(train)
        self._orders = {
            w: best_order(rungs, train.models.per_usd(w), train.attempts, self.width)[0] for w in train.weights
        }

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Take the next rung, or stop at the end of the ladder."""
        order, step = self._orders[cost_weight], state.tried.shape[1]
        return np.full(len(state.open), order[step] if step < len(order) else STOP, dtype=np.intp)


@dataclass(frozen=True)
class Rungs:
    """What one attempt of each model does on each training row, in expectation over the verifier's errors.

    Attributes:
        accepted: (R, M) expected score of an answer that is accepted, times the probability that it is.
        rejected: (R, M) expected score of an answer that is rejected, times the probability that it is.
        passes_on: (R, M) probability that the answer is rejected.
        cost: (R, M) USD.
    """

    accepted: NDArray[np.float64]
    rejected: NDArray[np.float64]
    passes_on: NDArray[np.float64]
    cost: NDArray[np.float64]

    @classmethod
    def of(cls, train: TrainingView) -> Rungs:
        """Build it; a model without an outcome on a row succeeds there with its prior probability."""
        known = ~np.isnan(train.scores)
        scores = np.where(known, train.scores, 1.0)
        good = np.where(known, scores >= GOOD_ENOUGH, train.models.prior)
        right, wrong = 1.0 - train.noise, train.noise
        accept_good, accept_bad = good * right, (1.0 - good) * wrong
        reject_good, reject_bad = good * wrong, (1.0 - good) * right
        bad_score = np.where(known, scores, 0.0)
        return cls(
            accepted=accept_good * scores + accept_bad * bad_score,
            rejected=reject_good * scores + reject_bad * bad_score,
            passes_on=reject_good + reject_bad,
            cost=np.zeros_like(scores) if train.costs is None else train.costs,
        )


def best_order(rungs: Rungs, per_usd: float, attempts: int, width: int = BEAM_WIDTH) -> tuple[tuple[int, ...], float]:
    """Search the order of up to `attempts` different models with the highest mean utility.

    The utility of an order is the score of the answer kept (the first accepted one, else the last) minus `per_usd`
    times what all attempts cost. A beam of `width` orders of each length is kept.

    Args:
        rungs: The training rows.
        per_usd: Lambda, success per USD.
        attempts: Most rungs.
        width: Orders kept at each length; with at least as many as there are prefixes the search is exhaustive.

    Returns:
        The order as model indices, and its mean utility.
    """
    rows, models = rungs.accepted.shape
    moving_on = rungs.accepted - per_usd * rungs.cost
    orders: list[tuple[int, ...]] = [()]
    reach = np.ones((1, rows))
    so_far = np.zeros(1)
    best, best_value = (), -np.inf
    for _ in range(min(attempts, models)):
        onward = so_far[:, None] + reach @ moving_on / rows
        ending = onward + reach @ rungs.rejected / rows
        for i, order in enumerate(orders):
            ending[i, list(order)] = -np.inf
        ranked = np.argsort(-ending, axis=None, kind="stable")[:width]
        parent, model = np.unravel_index(ranked[np.isfinite(ending.flat[ranked])], ending.shape)
        if ending[parent[0], model[0]] > best_value:
            best, best_value = (*orders[parent[0]], int(model[0])), float(ending[parent[0], model[0]])
        orders = [(*orders[p], int(m)) for p, m in zip(parent, model, strict=True)]
        reach = reach[parent] * rungs.passes_on[:, model].T
        so_far = onward[parent, model]
    return best, best_value
