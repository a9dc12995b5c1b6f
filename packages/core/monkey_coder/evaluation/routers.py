"""The routers that read no prompt, and the limit that no router can pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.protocol import ORACLE, STOP, EpisodeState, Models, PerTasks, Tasks, TrainingView


def best_untried(value: NDArray[np.float64], state: EpisodeState) -> NDArray[np.intp]:
    """The untried model of highest value for each open task, `STOP` where none is left.

    Args:
        value: (n, M) or (M,); the first of equals is taken.
        state: The open tasks.
    """
    free = state.untried
    best = np.where(free, value, -np.inf).argmax(axis=1)
    return np.where(free.any(axis=1), best, STOP)


@dataclass
class Random:
    """Uniform among the untried models, by a hash of seed, model and prompt, so that anyone can repeat it."""

    name: str = "random"
    seeded: ClassVar[bool] = True
    _kept: PerTasks[NDArray[np.float64]] = field(default_factory=PerTasks, repr=False)

    def fit(self, train: TrainingView) -> None:
        """Nothing to learn."""

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:  # noqa: ARG002 - the draws are free of it
        """Take the untried model with the highest draw."""
        draws = self._kept.get(state.tasks, state.seed, lambda: _draws(state.tasks, state.models, state.seed))
        return best_untried(draws[state.open], state)

    def preference(self, tasks: Tasks, strong: int, weak: int) -> NDArray[np.float64]:  # noqa: ARG002 - chance alone
        """A draw for each prompt."""
        return np.array([_draw(f"order:{sha256(p.encode()).hexdigest()}") for p in tasks.prompts])


@dataclass
class Cheapest:
    """Lowest mean training cost first, then the next cheapest; table order without costs."""

    name: str = "cheapest"
    seeded: ClassVar[bool] = False

    def fit(self, train: TrainingView) -> None:
        """Nothing to learn beyond the prices."""

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:  # noqa: ARG002 - quality never counts
        """Take the cheapest untried model."""
        return best_untried(-state.models.price, state)


@dataclass
class BestSingle:
    """Highest mean training utility at the cost weight, then the next of the same ranking."""

    name: str = "best_single"
    seeded: ClassVar[bool] = False

    def fit(self, train: TrainingView) -> None:
        """Nothing to learn beyond the training means."""

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Take the untried model of highest training utility."""
        return best_untried(state.models.utility(cost_weight), state)


@dataclass
class Oracle:
    """Knows the scores: the cheapest of the models that do a task as well as any model does, and never a second try.

    Attributes:
        scores: (N, M) true scores of the very tasks it is asked about.
        costs: (N, M) USD, or None.
    """

    scores: NDArray[np.float64]
    costs: NDArray[np.float64] | None
    name: str = ORACLE
    seeded: ClassVar[bool] = False
    _best: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sufficient = self.scores >= self.scores.max(axis=1, keepdims=True)
        costs = np.zeros_like(self.scores) if self.costs is None else self.costs
        self._best = np.where(sufficient, costs, np.inf).argmin(axis=1)

    def fit(self, train: TrainingView) -> None:
        """Nothing to learn."""

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:  # noqa: ARG002 - sufficient comes first
        """Take the sufficient model, and stop after it whatever the verifier says."""
        return self._best[state.open] if state.tried.shape[1] == 0 else np.full(len(state.open), STOP)


def _draws(tasks: Tasks, models: Models, seed: int) -> NDArray[np.float64]:
    keys = [sha256(prompt.encode()).hexdigest() for prompt in tasks.prompts]
    draws = [[_draw(f"random:{seed}:{model}:{key}") for model in models.names] for key in keys]
    return np.array(draws).reshape(len(tasks), len(models))


def _draw(text: str) -> float:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64
