"""The strategies of the engine (T2.2.4): each states an opinion on every candidate of a batch.

`objective_strategies` are the ones that need nothing but the catalog; `DqnStrategy` serves the trained policy and
`MemoryStrategy` remembers outcomes. All of them return utilities in the same unit, successes, so that a collapse may
average them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from monkey_coder.ports import REJECTED, RouteBatch, Scores, Strategy
from monkey_coder.quantum.advanced_model_selector import (
    BALANCED,
    COST_EFFICIENT,
    PERFORMANCE,
    TASK_OPTIMIZED,
    Objective,
    objective_utility,
    planned_utility,
)
from monkey_coder.quantum.outcome_memory import OutcomeMemory
from monkey_coder.quantum.reward import utility
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.state_encoder import StateLayout


@dataclass(frozen=True, slots=True)
class ObjectiveStrategy:
    """Prefers the models that serve one objective best, judging them by their priors.

    Attributes:
        name: As in requests and metrics.
        objective: What it maximises.
        plans: Whether it counts in the attempts that may follow.
    """

    name: str
    objective: Objective
    plans: bool = False
    instant: ClassVar[bool] = True

    def score(self, batch: RouteBatch) -> Scores:
        """Score every candidate; never abstains, for every model has a prior."""
        return Scores(
            utility=(planned_utility if self.plans else objective_utility)(batch, self.objective),
            confidence=batch.prior_trust,
            abstains=np.zeros(len(batch), dtype=np.bool_),
        )


@dataclass(frozen=True, eq=False)
class DqnStrategy:
    """Follows the trained policy; abstains on requests that are far from all it was trained on.

    In an episode it speaks even then: it falls back to each model's mean, but how failures go together, and so which
    order of attempts is best, it still knows better than those who look one attempt ahead.

    Attributes:
        policy: Bound to the table of the batches; None while there is no policy.
    """

    policy: ServedPolicy | None
    name: ClassVar[str] = "dqn"

    @property
    def instant(self) -> bool:
        """Whether it needs no thread: without a policy it has no opinion on anything."""
        return self.policy is None

    def score(self, batch: RouteBatch) -> Scores:
        """Value every candidate, the attempts that may follow included."""
        if self.policy is None:
            return abstention(batch)
        valuation = self.policy.value(batch)
        evidence = valuation.estimate.evidence
        return Scores(
            utility=valuation.q,
            confidence=batch.trust(evidence),
            abstains=valuation.estimate.far & (batch.attempts_left <= 1),
            success=valuation.success,
            evidence=evidence,
        )


@dataclass(frozen=True, eq=False)
class MemoryStrategy:
    """Judges models by what became of the most similar past requests; abstains where none is near.

    It knows nothing of planning, and abstains as well where several verified attempts are left.

    Attributes:
        memory: Past outcomes; None while there are none.
        policy: Says what is expected without memory; None: the table's priors do.
    """

    memory: OutcomeMemory | None
    policy: ServedPolicy | None
    name: ClassVar[str] = "memory"

    @property
    def instant(self) -> bool:
        """Whether it needs no thread: without a memory it has no opinion on anything."""
        return self.memory is None

    def score(self, batch: RouteBatch) -> Scores:
        """Judge every candidate by its neighbours' outcomes."""
        planned = batch.attempts_left > 1
        if self.memory is None or not len(self.memory) or planned.all():
            return abstention(batch)
        rejected, noise, expected, cost_usd = batch.attempts == REJECTED, 0.0, batch.success, batch.cost_usd
        if self.policy is not None:
            cost_usd = self.policy.cost_usd(batch)
            noise = self.policy.parts.noise
            expected = self.policy.success.prior(batch.state, batch.embedding, batch.success)
        layout = StateLayout(batch.embedding.shape[1])
        marks = batch.state[:, layout.marks : layout.task]
        recall = self.memory.recall(batch.embedding, marks, batch.table.refs, expected, rejected, noise)
        return Scores(
            utility=utility(recall.success, cost_usd, batch.latency_s, batch.cost_weight, batch.latency_weight),
            confidence=batch.trust(recall.evidence),
            abstains=recall.far | planned,
            success=recall.success,
            evidence=np.maximum(recall.evidence, 1.0),
        )


def abstention(batch: RouteBatch) -> Scores:
    """No opinion on any request."""
    return _no_opinion(len(batch), len(batch.table))


@lru_cache(maxsize=256)
def _no_opinion(requests: int, models: int) -> Scores:
    scores = Scores(
        utility=np.zeros((requests, models), dtype=np.float32),
        confidence=np.zeros(requests, dtype=np.float32),
        abstains=np.ones(requests, dtype=np.bool_),
    )
    for values in (scores.utility, scores.confidence, scores.abstains):
        values.setflags(write=False)  # for they are shared
    return scores


def configured_strategies(
    policy: ServedPolicy | None, memory: OutcomeMemory | None, further: Sequence[Strategy] = ()
) -> Mapping[str, Strategy]:
    """All strategies by name, in the order in which answers report them.

    Args:
        policy: What the DQN strategy serves; None while there is no policy.
        memory: What the memory strategy recalls; None while there is none.
        further: Strategies from elsewhere; one of the same name takes the place of ours.
    """
    objectives = objective_strategies(plan=policy is None)
    ours: tuple[Strategy, ...] = (DqnStrategy(policy), MemoryStrategy(memory, policy), *objectives)
    return MappingProxyType({strategy.name: strategy for strategy in (*ours, *further)})


def objective_strategies(*, plan: bool = False) -> tuple[Strategy, ...]:
    """The four strategies that need no learning.

    Args:
        plan: Whether they count in the attempts that may follow; a trained policy knows better how failures meet.
    """
    return (
        ObjectiveStrategy("task_optimized", TASK_OPTIMIZED, plan),
        ObjectiveStrategy("cost_efficient", COST_EFFICIENT, plan),
        ObjectiveStrategy("performance", PERFORMANCE, plan),
        ObjectiveStrategy("balanced", BALANCED, plan),
    )
