"""Nearest neighbours on the static embedding: the baseline that does read the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.protocol import STOP, EpisodeState, PerTasks, Tasks, TrainingView
from monkey_coder.evaluation.verifier import GOOD_ENOUGH
from monkey_coder.ports import FloatArray, TextEmbedder

NEIGHBOURS: Final = 60
BACK_OFFS: Final = (1.0, 3.0, 10.0, 30.0, 100.0)
"""How many neighbours the next wider estimate may be worth once something failed (neighbourhood, all rows, prior)."""

_CHUNK: Final = 512


@dataclass
class Knn:
    """Highest estimated utility by the nearest training prompts, given which models failed.

    The first attempt uses the plain means of the nearest prompts. After rejections, each neighbour counts by the
    probability that the same models would have been rejected on it. As fewer and fewer neighbours agree, the estimate
    backs off to all training rows, weighed likewise, and these to the prior; how soon is tuned by leaving each training
    row out. It stops where no further attempt is worth its price.
    """

    embedder: TextEmbedder
    name: str = "knn"
    seeded: ClassVar[bool] = False
    _memory: _Memory | None = field(default=None, repr=False)
    _kept: PerTasks[NDArray[np.intp]] = field(default_factory=PerTasks, repr=False)

    def fit(self, train: TrainingView) -> None:
        """Remember the training rows, and tune the back-off where there are further attempts."""
        memory = _Memory.of(train, self.embedder.embed(train.tasks.prompts))
        if train.attempts > 1:
            memory = replace(memory, back_off=tuned_back_off(memory, train))
        self._memory, self._kept = memory, PerTasks()

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Take the untried model of highest estimated utility, if it is worth it."""
        memory = self._fitted()
        near = self._near(state.tasks)[state.open]
        success, cost = memory.estimate(near, state.tried)
        value = success - state.models.per_usd(cost_weight) * cost
        value[~state.untried] = -np.inf
        best: NDArray[np.intp] = value.argmax(axis=1)
        if state.tried.shape[1] == 0:
            return best
        rows = np.arange(len(best))
        keeping = success[rows, state.tried[:, -1]]
        return np.where(value[rows, best] > keeping, best, STOP)

    def preference(self, tasks: Tasks, strong: int, weak: int) -> NDArray[np.float64]:
        """Estimated success of the strong model minus that of the weak one."""
        near = self._near(tasks)
        success, _ = self._fitted().estimate(near, np.empty((len(near), 0), dtype=np.intp))
        return success[:, strong] - success[:, weak]

    def _near(self, tasks: Tasks) -> NDArray[np.intp]:
        memory = self._fitted()
        return self._kept.get(tasks, "near", lambda: nearest(memory.vectors, self.embedder.embed(tasks.prompts)))

    def _fitted(self) -> _Memory:
        if self._memory is None:
            raise RuntimeError("fit the router before it chooses")
        return self._memory


@dataclass(frozen=True)
class _Memory:
    """The training rows: (R, D) vectors; (R, M) score, cost and P(rejected); (M,) prior alone and given a rejection."""

    vectors: FloatArray
    score: NDArray[np.float64]
    cost: NDArray[np.float64]
    rejected: NDArray[np.float64]
    prior: NDArray[np.float64]
    prior_if_rejected: NDArray[np.float64]
    back_off: float = BACK_OFFS[0]

    @classmethod
    def of(cls, train: TrainingView, vectors: FloatArray) -> _Memory:
        prior, noise = train.models.prior, train.noise
        known = ~np.isnan(train.scores)
        score = np.where(known, train.scores, prior)
        good = np.where(known, score >= GOOD_ENOUGH, prior)
        prior_rejected = prior * noise + (1.0 - prior) * (1.0 - noise)
        return cls(
            vectors=vectors,
            score=score,
            cost=np.zeros_like(score) if train.costs is None else train.costs,
            rejected=good * noise + (1.0 - good) * (1.0 - noise),
            prior=prior,
            prior_if_rejected=np.divide(
                prior * noise, prior_rejected, out=np.zeros_like(prior), where=prior_rejected > 0
            ),
        )

    def estimate(
        self, near: NDArray[np.intp], tried: NDArray[np.intp], itself: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Estimate each model's score and cost on n tasks from the (n, k) rows near them.

        Args:
            near: (n, k) training rows.
            tried: (n, t) models that were rejected.
            itself: (n,) the training row that each task is, to be left out; None for other tasks.

        Returns:
            (n, M) expected score, given the rejections (of a tried model: of its rejected answer), and (n, M) USD.
        """
        cost = self.cost[near].mean(axis=1)
        if tried.shape[1] == 0:
            return self.score[near].mean(axis=1), cost
        patterns, pattern = np.unique(np.sort(tried, axis=1), axis=0, return_inverse=True)
        pattern = pattern.reshape(-1)
        weight = np.stack([self.rejected[:, p].prod(axis=1) for p in patterns])
        k = self.back_off
        total, count = (weight @ self.score)[pattern], weight.sum(axis=1)[pattern][:, None]
        if itself is not None:
            own = weight[pattern, itself][:, None]
            total, count = total - own * self.score[itself], count - own
        wide = (total + k * self._prior(patterns)[pattern]) / (count + k)
        local = weight[pattern[:, None], near]
        total = np.einsum("nk,nkm->nm", local, self.score[near]) + k * wide
        return total / (local.sum(axis=1, keepdims=True) + k), cost

    def _prior(self, patterns: NDArray[np.intp]) -> NDArray[np.float64]:
        prior = np.tile(self.prior, (len(patterns), 1))
        np.put_along_axis(prior, patterns, self.prior_if_rejected[patterns], axis=1)
        return prior


def tuned_back_off(memory: _Memory, train: TrainingView) -> float:
    """The back-off with the least squared error on the training rows where the strongest model failed.

    Each row is estimated from the rows nearest to it but itself.
    """
    strongest = int(train.models.prior.argmax())
    failed = np.flatnonzero(train.scores[:, strongest] < GOOD_ENOUGH)
    known = ~np.isnan(train.scores[failed])
    known[:, strongest] = False
    if not known.any():
        return BACK_OFFS[-1]
    near = nearest(memory.vectors, memory.vectors[failed], NEIGHBOURS + 1)
    itself_last = np.argsort(near == failed[:, None], axis=1, kind="stable")
    near = np.take_along_axis(near, itself_last, axis=1)[:, :-1]
    tried = np.full((len(failed), 1), strongest)
    truth = np.where(known, train.scores[failed], 0.0)

    def squared_error(back_off: float) -> float:
        estimate, _ = replace(memory, back_off=back_off).estimate(near, tried, failed)
        return float(((estimate - truth)[known] ** 2).sum())

    return min(BACK_OFFS, key=squared_error)


def nearest(vectors: FloatArray, asked: FloatArray, count: int = NEIGHBOURS) -> NDArray[np.intp]:
    """Find the rows of highest cosine similarity.

    Args:
        vectors: (R, D) unit vectors.
        asked: (N, D) unit vectors.
        count: How many; all rows where there are fewer.

    Returns:
        (N, min(count, R)) row indices, in no particular order.
    """
    count = min(count, len(vectors))
    if count == len(vectors):
        return np.tile(np.arange(count), (len(asked), 1))
    parts = [
        np.argpartition(-(asked[start : start + _CHUNK] @ vectors.T), count - 1, axis=1)[:, :count]
        for start in range(0, len(asked), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, count), dtype=np.intp)
