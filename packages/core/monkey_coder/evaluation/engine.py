"""A comparison in the engine's words: models as a catalog, open tasks as requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.evaluation.protocol import EpisodeState, Models
from monkey_coder.models import (
    TASK_TYPES,
    Attempt,
    Episode,
    ExecuteRequest,
    Preferences,
    QuantumOptions,
    RouteRequest,
)
from monkey_coder.ports import Strategy
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot

PROVIDER: Final = "table"
"""Provider of all models of a table in model refs; tables name models as they like."""

UNLIMITED: Final = 2**40
OPTIONS: Final = QuantumOptions(explore=False, timeout_ms=1000)
UNLEARNED: Final = QuantumOptions(
    explore=False, timeout_ms=1000, strategies=tuple(strategy.name for strategy in objective_strategies())
)
"""For tasks of a kind that no training row had: what was learned abstains, and the training means decide."""


def snapshot_of(models: Models, strategies: Mapping[str, Strategy], *, attempts: int) -> EngineSnapshot:
    """What an engine knows in a comparison: training means as priors and prices, and K attempts of an episode."""
    return EngineSnapshot(as_table(models), strategies, max_attempts=attempts, max_alternatives=0)


def as_table(models: Models, refs: Sequence[str] | None = None) -> ModelTable:
    """Models of a table as a catalog: flat prices, no limits, training means as priors.

    Args:
        models: The models.
        refs: Their refs; None: their names under `PROVIDER`.
    """
    count = len(models)
    nothing = np.zeros(count)
    return ModelTable(
        refs=tuple(f"{PROVIDER}/{name}" for name in models.names) if refs is None else tuple(refs),
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


def as_requests(state: EpisodeState, cost_weight: float, known: frozenset[str] | None = None) -> list[RouteRequest]:
    """The open tasks as the requests that a caller would send.

    Args:
        state: The open tasks.
        cost_weight: Of the grid.
        known: Task names of the training rows; tasks of other names are not put to the strategies that learned from
            those. None: every task is put to every strategy.
    """
    per_usd = state.models.per_usd(cost_weight)
    money = Preferences(value_usd=1.0 / per_usd) if per_usd > 0.0 else Preferences(quality=1.0, cost=0.0, latency=0.0)
    refs = [f"{PROVIDER}/{name}" for name in state.models.names]
    verified = "verified" if state.attempts > 1 else None
    return [
        RouteRequest(
            request=ExecuteRequest(prompt=state.tasks.prompts[task], task_type=TASK_TYPES[state.tasks.types[task]]),
            preferences=money,
            episode=Episode(
                episode_id=verified,
                attempts=tuple(
                    Attempt(model=refs[model], success=False, cost_usd=float(cost))
                    for model, cost in zip(tried, costs, strict=True)
                ),
            ),
            quantum_config=OPTIONS if known is None or state.tasks.names[task] in known else UNLEARNED,
        )
        for task, tried, costs in zip(state.open, state.tried, state.costs, strict=True)
    ]
