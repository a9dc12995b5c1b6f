"""Those who learn from outcomes, and what each of them is told of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from monkey_coder.catalog.table import ModelTable
from monkey_coder.quantum.capability_profiler import Observation, Profiles
from monkey_coder.quantum.live_learning import JoinedOutcome, LiveLearner
from monkey_coder.quantum.outcome_joining import Joined
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.provider_manager import CallReport, ProviderManager


@dataclass
class Learners:
    """All of them; for one thread at a time.

    Attributes:
        profiles: What each model can do.
        providers: What can be had.
        monitor: How each strategy is doing.
        live: What decisions rest on, request by request; None: they rest on the profiles alone.
    """

    profiles: Profiles
    providers: ProviderManager
    monitor: PerformanceMonitor
    live: LiveLearner | None = None

    def learn(self, joined: Sequence[Joined], base: ModelTable, issued_at: Callable[[str], float | None]) -> None:
        """Learn from outcomes, in order.

        Args:
            joined: With their decisions.
            base: The models with the priors of the catalog.
            issued_at: When a decision was made, by its id.
        """
        for one in joined:
            self.profiles.learn(one.outcome.identity, _observation(one.outcome))
        if self.live is not None:
            self.live.learn([one.outcome for one in joined], base)
        # breakers and windows look at the first word on each call
        calls: list[CallReport] = []
        followed: list[tuple[Mapping[str, str | None], str, float]] = []
        for one in joined:
            if not one.outcome.further:
                model, record = one.outcome.model, one.outcome.record
                decided_at = partial(_decided_at, one, issued_at)
                calls.append(CallReport(model, record.error_type, decided_at, record.received_at))
                if record.score is not None:
                    followed.append((one.facts.opinions, model, record.score))
        self.providers.on_outcomes(calls)
        self.monitor.on_outcomes(followed)


def _decided_at(joined: Joined, issued_at: Callable[[str], float | None]) -> float:
    return issued_at(joined.row.decision_id) or joined.outcome.record.received_at


def _observation(outcome: JoinedOutcome) -> Observation:
    record = outcome.record
    answered = record.error_type is None
    return Observation(
        outcome.model,
        outcome.task,
        success=record.score,
        latency_s=record.latency_ms / 1e3 if answered and record.latency_ms is not None else None,
        output_tokens=record.output_tokens if answered else None,
        reporter=record.reporter,
    )
