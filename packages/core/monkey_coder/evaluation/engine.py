"""The whole engine as a competitor: requests go through the same manager, gates and collapse as a caller's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.errors import RouterError
from monkey_coder.evaluation.protocol import STOP, EpisodeState, Models, TrainingView
from monkey_coder.models import (
    TASK_TYPES,
    Attempt,
    Episode,
    ExecuteRequest,
    Preferences,
    QuantumOptions,
    RouteRequest,
    RoutingDecision,
)
from monkey_coder.ports import TextEmbedder
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager

PROVIDER: Final = "table"
"""Provider of all models of a table in model refs; tables name models as they like."""

BATCH: Final = 256
UNLIMITED: Final = 2**40
OPTIONS: Final = QuantumOptions(explore=False, timeout_ms=1000)


@dataclass
class Quantum:
    """The engine with its defaults, told the training means as priors and prices.

    It stops after a rejection when no further attempt is worth its price.

    Attributes:
        embedder: For prompts.
    """

    embedder: TextEmbedder
    name: str = "quantum"
    seeded: ClassVar[bool] = False
    _manager: QuantumRoutingManager | None = field(default=None, repr=False)

    def fit(self, train: TrainingView) -> None:
        """Build an engine around the training means."""
        strategies = {strategy.name: strategy for strategy in objective_strategies()}
        snapshot = EngineSnapshot(as_table(train.models), strategies, max_alternatives=0)
        self._manager = QuantumRoutingManager(
            snapshot=lambda: snapshot,
            embedder=self.embedder,
            threads=ThreadManager(len(strategies), time.monotonic),
            ids=SignedIds(urandom(32), time.time, urandom),
            heuristic=_no_heuristic,
            clock=time.monotonic,
        )

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Ask the engine about every open task."""
        if self._manager is None:
            raise RuntimeError("fit before you choose")
        per_usd = state.models.per_usd(cost_weight)
        requests = [
            as_request(state, row, per_usd, [f"{PROVIDER}/{name}" for name in state.models.names])
            for row in range(len(state.open))
        ]
        column = {name: place for place, name in enumerate(state.models.names)}
        chosen = np.empty(len(requests), dtype=np.intp)
        for start in range(0, len(requests), BATCH):
            for row, answer in enumerate(self._manager.decide(requests[start : start + BATCH]), start):
                if isinstance(answer, RouterError):
                    raise answer
                expected = answer["expected"]
                worth = expected["success"] - per_usd * expected["cost_usd"]
                give_up = state.tried.shape[1] > 0 and worth < 0.0
                chosen[row] = STOP if give_up else column[answer["model"]]
        return chosen


def as_table(models: Models) -> ModelTable:
    """The models of a comparison as a catalog: flat prices, no limits, training means as priors."""
    count = len(models)
    nothing = np.zeros(count)
    return ModelTable(
        refs=tuple(f"{PROVIDER}/{name}" for name in models.names),
        input_usd=nothing,
        output_usd=nothing,
        request_usd=models.price.astype(np.float64),
        context_window=np.full(count, UNLIMITED, dtype=np.int64),
        max_output=np.full(count, UNLIMITED, dtype=np.int64),
        capabilities=np.ones((count, len(CAPABILITIES)), dtype=np.bool_),
        regions=(frozenset(),) * count,
        success=np.tile(models.prior.astype(np.float32), (len(TASK_TYPES), 1)),
        evidence=np.tile(models.evidence.astype(np.float32), (len(TASK_TYPES), 1)),
        latency_s=nothing.astype(np.float32),
        available=np.ones(count, dtype=np.bool_),
    )


def as_request(state: EpisodeState, row: int, per_usd: float, refs: Sequence[str]) -> RouteRequest:
    """One open task as the request that a caller would send; `per_usd` is lambda."""
    task = state.open[row]
    money = Preferences(value_usd=1.0 / per_usd) if per_usd > 0.0 else Preferences(quality=1.0, cost=0.0, latency=0.0)
    attempts = tuple(
        Attempt(model=refs[model], success=False, cost_usd=float(cost))
        for model, cost in zip(state.tried[row], state.costs[row], strict=True)
    )
    return RouteRequest(
        request=ExecuteRequest(prompt=state.tasks.prompts[task], task_type=TASK_TYPES[state.tasks.types[task]]),
        preferences=money,
        episode=Episode(attempts=attempts),
        quantum_config=OPTIONS,
    )


def _no_heuristic(_: RouteRequest) -> RoutingDecision:
    raise RuntimeError("the engine failed in an evaluation, where nothing may stand in for it")
