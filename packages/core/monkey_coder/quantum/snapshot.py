"""Everything a decision rests on that may change while the engine runs, as one value that is swapped whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES, CollapseName, TaskType
from monkey_coder.ports import SETBACK_LOGITS, FloatArray, Strategy
from monkey_coder.quantum.budget_pacing import Pace
from monkey_coder.quantum.exploration import decayed
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.voices import Estimate

DEFAULT_EPSILON = 0.02


@dataclass(frozen=True)
class EngineSnapshot:
    """What one batch sees from its first stage to its last.

    Attributes:
        table: The models with their prices, limits and present profiles.
        strategies: By name, in the order in which they are reported.
        reliability: How far each strategy has deserved its confidence so far, at least 0; absent means 1.
        collapse: The default collapse.
        epsilon: Probability of exploring, by task type; absent means none.
        preferred_bonus: Successes that a preferred provider's models are worth more.
        max_attempts: Attempts of an episode that are planned for; a request outside an episode is one attempt.
        max_alternatives: Runners-up in an answer.
        policy_version: Number of the policy that the DQN strategy serves; None while there is none.
        config_version: Number of the configuration.
        catalog_version: Of the models: grows with each change of the catalog at run time, 1 before the first.
        estimate: What outcomes taught of each model's success and cost, request by request; None before the first.
        pace: The price of money that keeps spend at its target; None without a target.
        experience: Outcomes by task type that have not faded; absent means none.
    """

    table: ModelTable
    strategies: Mapping[str, Strategy]
    reliability: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    collapse: CollapseName = "weighted"
    epsilon: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(TASK_TYPES, DEFAULT_EPSILON))
    )
    preferred_bonus: float = 0.05
    max_attempts: int = 4
    max_alternatives: int = 10
    policy_version: int | None = None
    config_version: int = 1
    catalog_version: int = 1
    estimate: Estimate | None = None
    pace: Pace | None = None
    experience: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def epsilon_of(self, task: TaskType) -> float:
        """Probability of exploring in a task type, its experience considered."""
        return self._epsilons[task]

    @cached_property
    def _epsilons(self) -> Mapping[TaskType, float]:
        return {task: decayed(self.epsilon.get(task, 0.0), self.experience.get(task, 0.0)) for task in TASK_TYPES}

    @property
    def setback_logits(self) -> float:
        """How much a failure lowers the chances of all models."""
        return SETBACK_LOGITS if self.estimate is None else self.estimate.setback_logits

    @cached_property
    def model_features(self) -> FloatArray:
        """(M, F) the models as the encoder sees them."""
        return encode_models(self.table)


class LiveSnapshot:
    """The snapshot of the moment: whoever asks gets it whole, whoever learns swaps it whole.

    Args:
        first: What to begin with.
    """

    def __init__(self, first: EngineSnapshot) -> None:
        self._now = first
        self._lock = threading.Lock()

    def __call__(self) -> EngineSnapshot:
        """Return the present snapshot; never waits."""
        return self._now

    def update(self, change: Callable[[EngineSnapshot], EngineSnapshot]) -> None:
        """Replace the snapshot by what `change` makes of it; one change at a time, so that none is lost."""
        with self._lock:
            fresh = change(self._now)
            _ = fresh.model_features, fresh.table.index  # made here, not in the next batch
            self._now = fresh
