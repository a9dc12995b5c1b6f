"""Prometheus series from events (T2.4.1): one event per decision, one per outcome; the names are a contract.

Decisions are noted, and counted together some time later: whoever asks for series makes that happen first. Label values
come from closed sets alone: a value that is in none becomes `other`. With several web processes every one of them
writes its own share, and `metrics_exposition` adds up.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from monkey_coder.errors import RouterError
from monkey_coder.models import COLLAPSE_NAMES, CacheResult, Degradation, ThreadStatus
from monkey_coder.ports import DecisionEvent, OutcomeEvent, Repeat
from monkey_coder.quantum.decision_tally import DECISION_BUCKETS, DecisionTally
from monkey_coder.quantum.metrics_series import (
    OTHER,
    AskedFirst,
    Bounded,
    CountedHistogram,
    Vocabulary,
    each_of,
    of_models,
)

BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)

DECIDED: Final = "decided"
ABANDONED: Final = "abandoned"
"""How a request ended whose caller went away."""

GARY8D: Final = "gary8d"
"""Collapse of decisions that the heuristic made."""

REPORT_RESULTS: Final = frozenset({"new", "replaced", "late", "duplicate", "put_aside"})
CACHE_TIERS: Final = frozenset({"local", "redis", "similar"})
CACHE_RESULTS: Final = frozenset(
    {"hit", "miss", "stored", "rejected", "expired", "evicted", "invalidated", "corrupt", "error", "disagreed"}
)
ALERT_FIGURES: Final = frozenset({"p95_s", "failure_rate", "timeout_rate"})
BREAKER_STATES: Final = ("closed", "half_open", "open")

MOST_EXPERIMENTS: Final = 500
"""Arms of experiments that get a series of their own."""

MOST_UNSETTLED: Final = 2_000
"""Batches; who builds a collector need not settle it."""

MOST_EXPECTED: Final = 50_000
"""Reports that were accepted and not learned from yet; their decisions may be long in coming."""


class MetricsCollector:
    """Turns events into series; one lives as long as its registry. Safe to call from any thread.

    Args:
        registry: Where the series are registered.
        vocabulary: The label values that are allowed at the moment.
    """

    def __init__(self, registry: CollectorRegistry, vocabulary: Vocabulary | None = None) -> None:
        words = vocabulary or Vocabulary()
        self._expected: OrderedDict[Hashable, None] = OrderedDict()
        self._arms: set[tuple[str, str]] = set()
        self._decided: deque[Sequence[DecisionEvent]] = deque()
        self._repeated = DecisionTally()
        self._finished: Tally[str] = Tally()
        self._sizes: Tally[int] = Tally()
        self._waiting = 0
        self._lock, self._settling = threading.Lock(), threading.Lock()
        self._registry = registry
        registry.register(AskedFirst(self.settle))
        self._add_decisions(words)
        self._add_outcomes(words)
        self._add_learning()

    def _counter(self, name: str, told: str, labels: Sequence[str]) -> Counter:
        return Counter(name, told, labels, registry=self._registry)

    def _histogram(self, name: str, told: str, labels: Sequence[str], buckets: Sequence[float]) -> CountedHistogram:
        return CountedHistogram(name, told, labels, registry=self._registry, buckets=buckets)

    def _add_decisions(self, words: Vocabulary) -> None:
        outcomes = frozenset({DECIDED, ABANDONED, *error_codes()})
        statuses, reasons, caches = (frozenset(get_args(t)) for t in (ThreadStatus, Degradation, CacheResult))
        collapses = frozenset({*COLLAPSE_NAMES, GARY8D})
        self._requests = Bounded(
            self._counter("quantum_route_requests_total", "Route requests by how they ended.", ["outcome"]),
            each_of(lambda: outcomes),
        )
        self._duration = Bounded(
            self._histogram(
                "quantum_route_duration_seconds",
                "Time from the start of a batch to its answers.",
                ["cache"],
                DECISION_BUCKETS,
            ),
            each_of(lambda: caches),
        )
        self._strategy_duration = Bounded(
            self._histogram(
                "quantum_strategy_duration_seconds",
                "Time a strategy took for a batch.",
                ["strategy"],
                DECISION_BUCKETS,
            ),
            each_of(words.strategies),
        )
        self._strategy_results = Bounded(
            self._counter(
                "quantum_strategy_results_total", "Opinions asked of strategies, by status.", ["strategy", "status"]
            ),
            each_of(words.strategies, lambda: statuses),
        )
        self._decisions = Bounded(
            self._counter("quantum_decisions_total", "Decisions.", ["provider", "model", "collapse"]),
            of_models(words.refs, lambda: collapses),
        )
        self._degraded = Bounded(
            self._counter("quantum_degraded_total", "Decisions made while something was broken.", ["reason"]),
            each_of(lambda: reasons),
        )
        self._assignments = Bounded(
            self._counter(
                "quantum_experiment_assignments_total", "Decisions in an arm of an experiment.", ["experiment", "arm"]
            ),
            self._known_arm,
        )
        self._alerts = Bounded(
            Gauge(
                "quantum_strategy_alert",
                "Whether a figure of a strategy is too high at the moment, in any process.",
                ["strategy", "figure"],
                registry=self._registry,
                multiprocess_mode="livemax",
            ),
            each_of(words.strategies, lambda: ALERT_FIGURES),
        )
        self._queue_depth = Gauge(
            "quantum_queue_depth",
            "Requests waiting for a batch.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._batch_size = self._histogram("quantum_batch_size", "Requests decided together.", [], BATCH_BUCKETS)

    def _add_outcomes(self, words: Vocabulary) -> None:
        reports = frozenset({*REPORT_RESULTS, *error_codes()})
        by_model = ["provider", "model"]
        self._feedback = Bounded(
            self._counter("quantum_feedback_total", "Reports about decisions, by what became of them.", ["result"]),
            each_of(lambda: reports),
        )
        self._outcomes = Bounded(
            self._counter("quantum_outcomes_total", "First reports that tell of quality, by who answered.", by_model),
            of_models(words.refs),
        )
        self._successes = Bounded(
            self._counter("quantum_successes_total", "Successes in them; a quality counts as a part of one.", by_model),
            of_models(words.refs),
        )
        self._cost = Bounded(
            self._counter("quantum_cost_usd_total", "USD that first reports tell of, by who answered.", by_model),
            of_models(words.refs),
        )
        self._available = Bounded(
            Gauge(
                "quantum_provider_available",
                "Whether decisions may go to a provider.",
                ["provider"],
                registry=self._registry,
                multiprocess_mode="livemostrecent",
            ),
            each_of(words.providers),
        )
        self._breaker = Bounded(
            Gauge(
                "quantum_breaker_state",
                "A provider's circuit breaker: 0 closed, 1 half-open, 2 open.",
                ["provider"],
                registry=self._registry,
                multiprocess_mode="livemostrecent",
            ),
            each_of(words.providers),
        )

    def _add_learning(self) -> None:
        self._cache = Bounded(
            self._counter("quantum_cache_requests_total", "What the tiers of the cache did.", ["tier", "result"]),
            each_of(lambda: CACHE_TIERS, lambda: CACHE_RESULTS),
        )
        self._policy_version = Gauge(
            "quantum_policy_version",
            "Number of the policy that serves; 0 while there is none.",
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )
        self._training_loss = Gauge(
            "quantum_training_loss",
            "Loss of the last training step.",
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self._replay_size = Gauge(
            "quantum_replay_size",
            "Transitions in the replay buffer.",
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self._pace = [
            Gauge(name, told, registry=self._registry, multiprocess_mode="livemostrecent")
            for name, told in (
                ("quantum_target_usd_per_task", "USD a task that spend is kept at; 0 without a target."),
                ("quantum_paced_cost_weight", "Successes per USD at which spend keeps its target."),
                ("quantum_budget_balance_usd", "USD that may still be spent; below 0 what was spent too much."),
            )
        ]

    def _known_arm(self, experiment: str, arm: str) -> tuple[str, str]:
        with self._lock:
            if len(self._arms) < MOST_EXPERIMENTS:
                self._arms.add((experiment, arm))
            return (experiment, arm) if (experiment, arm) in self._arms else (OTHER, OTHER)

    def on_batch(self, size: int, waiting: int) -> None:
        """Note a batch of `size` requests that left `waiting` behind it."""
        with self._lock:
            self._sizes[size] += 1
        self._waiting = waiting

    def on_finished(self, outcome: str, count: int = 1) -> None:
        """Note requests that ended: `decided`, `abandoned`, or the code of the error (`monkey_coder.errors`)."""
        with self._lock:
            self._finished[outcome] += count

    def on_feedback(self, result: str, count: int = 1) -> None:
        """Note reports: `new`, `replaced`, `late`, `duplicate`, `put_aside`, or the code of the error."""
        self._feedback(result).inc(count)

    def expect(self, reports: Iterable[Hashable]) -> None:
        """Note reports that this process is about to store: it is the one that counts their outcomes.

        Args:
            reports: Their keys (`OutcomeRow.key`). That of a report which was sent again to another process is another
                one, and the store streams the first alone.
        """
        with self._lock:
            for report in reports:
                self._expected[report] = None
            while len(self._expected) > MOST_EXPECTED:
                self._expected.popitem(last=False)

    def on_put_aside(self, reports: Iterable[Hashable]) -> None:
        """Note reports that were stored and cannot be learned from; those that other processes accepted count there."""
        with self._lock:
            ours = sum(self._expected.pop(report, self) is None for report in reports)
        if ours:
            self.on_feedback("put_aside", ours)

    def on_outcomes(self, events: Sequence[OutcomeEvent]) -> None:
        """Note first reports that were joined with their decisions; those that other processes accepted count there."""
        with self._lock:
            ours = [event for event in events if self._expected.pop(event.report, self) is None]
        seen: Tally[tuple[str, str]] = Tally()
        successes: dict[tuple[str, str], float] = {}
        spent: dict[tuple[str, str], float] = {}
        for event in ours:
            provider, _, model = event.model.partition("/")
            who = (provider, model)
            if event.score is not None:
                seen[who] += 1
                successes[who] = successes.get(who, 0.0) + event.score
            if event.cost_usd is not None:
                spent[who] = spent.get(who, 0.0) + event.cost_usd
        for who, count in seen.items():
            self._outcomes(*who).inc(count)
            self._successes(*who).inc(successes[who])
        for who, usd in spent.items():
            self._cost(*who).inc(usd)

    def on_provider(self, provider: str, *, available: bool, breaker: str) -> None:
        """Note how a provider is doing; `breaker` is closed, half_open or open."""
        self._available(provider).set(available)
        self._breaker(provider).set(BREAKER_STATES.index(breaker))

    def on_alert(self, strategy: str, figure: str, *, raised: bool) -> None:
        """Note that a figure of a strategy became too high, or good again."""
        self._alerts(strategy, figure).set(raised)

    def on_cache(self, tier: str, result: str, count: int = 1) -> None:
        """Note what a tier of the cache did.

        Args:
            tier: One of `CACHE_TIERS`.
            result: One of `CACHE_RESULTS`.
            count: How often.
        """
        self._cache(tier, result).inc(count)

    def on_training(self, *, loss: float | None = None, replay_size: int | None = None) -> None:
        """Note how far training is; None leaves a figure as it is.

        Args:
            loss: Of the last step.
            replay_size: Transitions in the buffer.
        """
        if loss is not None:
            self._training_loss.set(loss)
        if replay_size is not None:
            self._replay_size.set(replay_size)

    def on_pace(self, target_usd: float, cost_weight: float, balance_usd: float) -> None:
        """Note where the pacing of spend stands; see `budget_pacing.Pace`."""
        for gauge, value in zip(self._pace, (target_usd, cost_weight, balance_usd), strict=True):
            gauge.set(value)

    def on_policy(self, version: int | None) -> None:
        """Note which policy serves; None: none does."""
        self._policy_version.set(version or 0)

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Note the decisions of one batch."""
        self._decided.append(events)
        if len(self._decided) > MOST_UNSETTLED:  # nobody settles
            self.settle()

    def on_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Note answers from the cache; may wait for `settle`."""
        with self._settling:
            self._repeated.add_repeated(repeats)

    def settle(self) -> None:
        """Bring the series up to date with what was noted of decisions, requests and batches."""
        with self._settling:
            with self._lock:
                finished, sizes, self._finished, self._sizes = self._finished, self._sizes, Tally(), Tally()
            # After that: a request that is told of as decided has its decision told of, too.
            tally, self._repeated = self._repeated, DecisionTally()
            for _ in range(len(self._decided)):
                tally.add(self._decided.popleft())
            for outcome, count in finished.items():
                self._requests(outcome).inc(count)
            for size, count in sizes.items():
                self._batch_size.observe_times(size, count)
            self._queue_depth.set(self._waiting)
            self._take_over(tally)

    def _take_over(self, tally: DecisionTally) -> None:
        for decision, count in tally.models.items():
            self._decisions(*decision).inc(count)
        for result, count in tally.results.items():
            self._strategy_results(*result).inc(count)
        for reason, count in tally.degraded.items():
            self._degraded(reason).inc(count)
        for arm, count in tally.arms.items():
            self._assignments(*arm).inc(count)
        for cache, times in tally.seconds.items():
            self._duration(cache).observe_buckets(times.buckets, times.total_s)
        for name, times in tally.timed.items():
            self._strategy_duration(name).observe_buckets(times.buckets, times.total_s)


def error_codes() -> Iterator[str]:
    """The codes of all errors that callers may meet."""
    kinds: list[type[RouterError]] = [RouterError]
    while kinds:
        kind = kinds.pop()
        yield kind.code
        kinds.extend(kind.__subclasses__())
