"""What a router sees, and what it must be able to do.

A router is fitted on training rows and then asked, for all open tasks of a test table at once, which model to try
next. It never gets a score of the task it decides, nor any cost but those of its own attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import TextEmbedder

Kept = TypeVar("Kept")

COST_WEIGHTS: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""The grid: a router maximises ``success - w * cost / cost_ref`` for each w."""

STOP: Final = -1
"""What a router answers where it makes no further attempt."""

ORACLE: Final = "oracle"
"""The limit, not a router: it alone is handed the scores, and not through this protocol's views."""


@dataclass(frozen=True, eq=False)
class Models:
    """The M models of a comparison, as all routers see them.

    Attributes:
        names: Model names as the tables have them.
        prior: (M,) mean score on the training rows, 0..1; where there are none the declared prior, or the mean of all.
        price: (M,) mean USD of an attempt on the training rows (the mean of all where there are none); 0 without costs.
        evidence: (M,) how many training rows are behind `prior`; 0 for a new model.
        cost_ref: `price` of the dearest model that has training rows; 0 without costs.
    """

    names: tuple[str, ...]
    prior: NDArray[np.float64]
    price: NDArray[np.float64]
    evidence: NDArray[np.int64]
    cost_ref: float

    def __len__(self) -> int:
        return len(self.names)

    def per_usd(self, cost_weight: float) -> float:
        """Lambda, success per USD: ``cost_weight / cost_ref``; 0 without costs."""
        return cost_weight / self.cost_ref if self.cost_ref > 0.0 else 0.0

    def utility(self, cost_weight: float) -> NDArray[np.float64]:
        """(M,) expected utility of one attempt by the training means alone."""
        return self.prior - self.per_usd(cost_weight) * self.price


@dataclass(frozen=True, eq=False)
class Tasks:
    """What is known of N tasks before any attempt. Compared by identity, so that work on it can be kept.

    Attributes:
        prompts: Prompt texts.
        names: Task names of the table.
        domains: Domain names of the table.
        types: (N,) index into `monkey_coder.models.TASK_TYPES`.
    """

    prompts: tuple[str, ...]
    names: tuple[str, ...]
    domains: tuple[str, ...]
    types: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True, eq=False)
class TrainingView:
    """All that a router may learn from.

    Attributes:
        tasks: The R training tasks.
        models: The M models.
        scores: (R, M) true scores 0..1; NaN where a model has no outcome (all of a new model's column).
        costs: (R, M) USD, the model's `price` filled in where it is unknown; None without costs.
        weights: Cost weights that will be asked for.
        attempts: Most attempts of an episode, K.
        noise: Probability that a verdict of the verifier is wrong.
        seeds: Seeds that will be played; they change the verifier's errors and a seeded router's draws.
    """

    tasks: Tasks
    models: Models
    scores: NDArray[np.float64]
    costs: NDArray[np.float64] | None
    weights: tuple[float, ...]
    attempts: int
    noise: float
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EpisodeState:
    """The tasks that wait for the next attempt; every attempt so far was rejected by the verifier.

    Attributes:
        tasks: All N tasks of the test table.
        models: The M models.
        open: (n,) indices into `tasks` of those to decide now.
        tried: (n, t) models tried so far, first to last; t is the same for all open tasks.
        costs: (n, t) USD that those attempts cost; 0 without costs.
        attempts: Most attempts of an episode, K.
        seed: Which repetition this is.
    """

    tasks: Tasks
    models: Models
    open: NDArray[np.intp]
    tried: NDArray[np.intp]
    costs: NDArray[np.float64]
    attempts: int
    seed: int

    @property
    def untried(self) -> NDArray[np.bool_]:
        """(n, M) models that may still be named."""
        free = np.ones((len(self.open), len(self.models)), dtype=np.bool_)
        np.put_along_axis(free, self.tried, False, axis=1)
        return free


class Router(Protocol):
    """One way to choose models. Asking changes nothing that a later answer depends on.

    Attributes:
        name: As in ``--routers``.
        seeded: Whether choices depend on the seed; if not, and without verifier noise, seed 0 speaks for all.
    """

    name: str
    seeded: ClassVar[bool]

    def fit(self, train: TrainingView) -> None:
        """Learn from the training rows, anew: nothing of an earlier fit remains."""
        ...

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Name the next model of every open task.

        Returns:
            (n,) index into `state.models`, none of them tried before; or `STOP`, though not for a first attempt.
        """
        ...


@runtime_checkable
class OrdersPrompts(Protocol):
    """A router that can tell how much a prompt needs the stronger of two models (for APGR and CPT)."""

    def preference(self, tasks: Tasks, strong: int, weak: int) -> NDArray[np.float64]:
        """(N,) higher where the strong model is worth more; only the order counts."""
        ...


class PerTasks(Generic[Kept]):
    """Keeps work that depends on the tasks alone (embeddings, neighbours) while the same tasks are played."""

    def __init__(self) -> None:
        self._tasks: Tasks | None = None
        self._kept: dict[Hashable, Kept] = {}

    def get(self, tasks: Tasks, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return what was made for these very tasks under this key, or make it."""
        if tasks is not self._tasks:
            self._tasks, self._kept = tasks, {}
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True, slots=True)
class RouterContext:
    """What routers may need besides the tables.

    Attributes:
        embedder: Makes the static text embedding; called by the routers that read prompts, once each.
    """

    embedder: Callable[[], TextEmbedder]


RouterFactory = Callable[[RouterContext], Router]
Routers = Mapping[str, RouterFactory]
