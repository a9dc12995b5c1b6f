"""One web process in small, for tests of what it learns from a store that others may share."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from builders import SECRET, SetClock, ask

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import FeedbackRequest
from monkey_coder.quantum.capability_profiler import Profiles
from monkey_coder.quantum.circuit_breaker import BreakerOptions
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.learners import Learners
from monkey_coder.quantum.live_learning import LiveLearner
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.selection_learning import FollowerOptions, OutcomeFollower
from monkey_coder.quantum.snapshot import LiveSnapshot
from monkey_coder.storage.sqlite_store import SqliteStore


class Process:
    """A manager, a log that is written when a test says so, and a follower, on a store.

    Args:
        manager: Decides.
        store: Of decisions and outcomes.
        models: With the priors of the catalog.
        learner: Learns beside the profiles; None: nothing does.
        options: Of the follower.
    """

    def __init__(
        self,
        manager: QuantumRoutingManager,
        store: SqliteStore,
        models: ModelTable,
        learner: LiveLearner | None = None,
        options: FollowerOptions | None = None,
    ) -> None:
        self.manager, self.store, self.clock = manager, store, SetClock(0.0)
        self.live = LiveSnapshot(manager.snapshot())
        manager.snapshot = self.live
        self.unwritten: list[Any] = []
        self.providers = ProviderManager(
            models.refs,
            time.time,
            np.random.default_rng(0),
            BreakerOptions(first_wait_s=3600.0, longest_wait_s=3600.0),  # none opens again during a test
            on_exhausted=lambda: self.follower.publish_availability(),
        )
        self.monitor = PerformanceMonitor()
        self.follower = OutcomeFollower(
            store,
            models,
            Learners(Profiles(), self.providers, self.monitor, learner),
            self.live,
            SignedIds(SECRET, time.time, lambda count: bytes(count)).issued_at,
            time.time,
            self.clock,
            options,
        )
        self.log = DecisionLog(self.unwritten.append, time.time)
        manager.listeners = (self.log, self.providers, self.monitor)

    def decide(self, prompt: str = "Fix the failing test", **task: Any) -> Any:
        """Decide about a debugging task; the decision is not written yet."""
        (answer,) = self.manager.decide([ask(prompt, **({"task_type": "debugging"} | task))])
        return answer

    def write(self) -> None:
        """Write what was decided."""
        self.store.append_decisions([make() for make in self.unwritten])
        self.unwritten.clear()

    def report(self, answer: Any, **said: Any) -> None:
        """Store an outcome of a decision."""
        report = FeedbackRequest.model_validate({"decision_id": answer["decision_id"]} | said, strict=False)
        self.store.append_outcomes([outcome_row(report, Reporter("anonymous", time.time()))])
