"""Prometheus series from decision events (T2.4.1); the names are a contract (design section 10)."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monkey_coder.ports import DecisionEvent

DECISION_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds; from a cached decision to a stuck one."""

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class MetricsCollector:
    """Turns decisions into series; one lives as long as its registry.

    Args:
        registry: Where the series are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "quantum_route_requests_total", "Route requests by how they ended.", ["outcome"], registry=registry
        )
        self._duration = Histogram(
            "quantum_route_duration_seconds",
            "Time from the start of a batch to its answers.",
            ["cache"],
            registry=registry,
            buckets=DECISION_BUCKETS,
        )
        self._strategy_duration = Histogram(
            "quantum_strategy_duration_seconds",
            "Time a strategy took for a batch.",
            ["strategy"],
            registry=registry,
            buckets=DECISION_BUCKETS,
        )
        self._strategy_results = Counter(
            "quantum_strategy_results_total",
            "Opinions asked of strategies, by status.",
            ["strategy", "status"],
            registry=registry,
        )
        self._decisions = Counter(
            "quantum_decisions_total", "Decisions.", ["provider", "model", "collapse"], registry=registry
        )
        self._degraded = Counter(
            "quantum_degraded_total", "Decisions made while something was broken.", ["reason"], registry=registry
        )
        self._alerts = Gauge(
            "quantum_strategy_alert",
            "Whether a figure of a strategy is too high at the moment.",
            ["strategy", "figure"],
            registry=registry,
        )
        self._feedback = Counter(
            "quantum_feedback_total", "Reports about decisions, by what became of them.", ["result"], registry=registry
        )
        self._available = Gauge(
            "quantum_provider_available", "Whether decisions may go to a provider.", ["provider"], registry=registry
        )
        self._breaker = Gauge(
            "quantum_breaker_state",
            "A provider's circuit breaker: 0 closed, 1 half-open, 2 open.",
            ["provider"],
            registry=registry,
        )
        self._queue_depth = Gauge("quantum_queue_depth", "Requests waiting for a batch.", registry=registry)
        self._batch_size = Histogram(
            "quantum_batch_size", "Requests decided together.", registry=registry, buckets=BATCH_BUCKETS
        )

    def on_batch(self, size: int, waiting: int) -> None:
        """Note a batch of `size` requests that left `waiting` behind it."""
        self._batch_size.observe(size)
        self._queue_depth.set(waiting)

    def on_finished(self, outcome: str, count: int = 1) -> None:
        """Note requests that ended: `decided`, or the code of the error (`monkey_coder.errors`)."""
        self._requests.labels(outcome).inc(count)

    def on_feedback(self, result: str, count: int = 1) -> None:
        """Note reports: `new`, `replaced`, `late`, `duplicate`, or the code of the error."""
        self._feedback.labels(result).inc(count)

    def on_provider(self, provider: str, *, available: bool, breaker: str) -> None:
        """Note how a provider is doing; `breaker` is closed, half_open or open."""
        self._available.labels(provider).set(available)
        self._breaker.labels(provider).set(("closed", "half_open", "open").index(breaker))

    def on_alert(self, strategy: str, figure: str, *, raised: bool) -> None:
        """Note that a figure of a strategy became too high, or good again."""
        self._alerts.labels(strategy, figure).set(raised)

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Note the decisions of one batch: counters move once per batch, not once per decision."""
        models: Tally[tuple[str, str, str]] = Tally()
        results: Tally[tuple[str, str]] = Tally()
        degraded: Tally[str] = Tally()
        seconds: dict[str, list[float]] = {}
        for event in events:
            answer = event.answer
            models[answer["provider"], answer["model"], answer["collapse_strategy"]] += 1
            degraded.update(answer["degraded"])
            seconds.setdefault(answer["cache"], []).append(event.duration_s)
            for thread in answer["thread_results"]:
                results[thread["strategy"], thread["status"]] += 1
        for decision, count in models.items():
            self._decisions.labels(*decision).inc(count)
        for result, count in results.items():
            self._strategy_results.labels(*result).inc(count)
        for reason, count in degraded.items():
            self._degraded.labels(reason).inc(count)
        for cache, durations in seconds.items():
            observe = self._duration.labels(cache).observe
            for duration in durations:
                observe(duration)
        threads = {thread["strategy"]: thread for event in events for thread in event.answer["thread_results"]}
        for name, thread in threads.items():
            if thread["execution_time_ms"] is not None:
                self._strategy_duration.labels(name).observe(thread["execution_time_ms"] / 1e3)
