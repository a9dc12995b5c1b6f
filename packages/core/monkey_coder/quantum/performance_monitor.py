"""How each strategy is doing lately (T2.2.5): latency, success, timeouts, reliability, and alerts that do not flap.

Fed by the events of decisions and outcomes. All windows are rolling and bounded by count, so that memory is, too.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import ThreadStatus
from monkey_coder.ports import DecisionEvent

WINDOW: Final = 1000
"""Observations that each figure looks back on."""

CHECK_EVERY: Final = 64
"""Asks of a strategy between two looks at its alerts: percentiles are too dear for every batch."""

PRIOR_FOLLOWED: Final = 10.0
"""Outcomes that the reliability of a new strategy, one half, is worth."""

_PLACES: Final[Mapping[str, int]] = {status: place for place, status in enumerate(get_args(ThreadStatus))}

Figure = Literal["p95_s", "failure_rate", "timeout_rate"]


class RollingWindow:
    """The last `size` numbers.

    Args:
        size: How many to keep.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self._values: NDArray[np.float64] = np.zeros(size)
        self._seen = 0

    def add(self, value: float) -> None:
        """Take in a number; the oldest goes when the window is full."""
        self._values[self._seen % len(self._values)] = value
        self._seen += 1

    def extend(self, values: Sequence[float]) -> None:
        """Take in numbers, in order."""
        latest = values[-len(self._values) :]
        self._seen += len(values) - len(latest)
        self._values[(self._seen + np.arange(len(latest))) % len(self._values)] = latest
        self._seen += len(latest)

    def values(self) -> NDArray[np.float64]:
        """What is in the window, in no particular order."""
        return self._values[: min(self._seen, len(self._values))].copy()

    def share(self, value: float) -> float:
        """Share of a number among them; 0 while there are none."""
        values = self.values()
        return float((values == value).mean()) if len(values) else 0.0


@dataclass(frozen=True, slots=True)
class StrategyPerformance:
    """One strategy's rolling figures.

    Attributes:
        p50_s: Median time for a batch in seconds; 0 before the first.
        p95_s: 95th percentile of the same.
        p99_s: 99th percentile.
        success_rate: Share of its asks that were answered in time.
        failure_rate: Share that raised.
        timeout_rate: Share that came late.
        reliability: How often following it would have succeeded, 0..1; one half before there are outcomes.
        followed: Outcomes behind `reliability`.
    """

    p50_s: float
    p95_s: float
    p99_s: float
    success_rate: float
    failure_rate: float
    timeout_rate: float
    reliability: float
    followed: int


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When a figure is too high. An alert is raised at one level and cleared at a lower one, so that it does not flap.

    Attributes:
        figure: Which figure.
        raise_above: Raised when the figure exceeds this.
        clear_below: Cleared when it falls below this; not above `raise_above`.
        least_asks: Asks in the window before the rule applies.
    """

    figure: Figure
    raise_above: float
    clear_below: float
    least_asks: int = 64

    def __post_init__(self) -> None:
        if self.clear_below > self.raise_above:
            raise ValueError(f"{self.figure}: clear_below must not exceed raise_above")


@dataclass(frozen=True, slots=True)
class Alert:
    """A change: a strategy's figure became too high, or good again.

    Attributes:
        strategy: Whose.
        figure: Which.
        value: What it is now.
        raised: True when it became too high, False when it recovered.
    """

    strategy: str
    figure: Figure
    value: float
    raised: bool


DEFAULT_RULES: Final = (
    AlertRule("p95_s", raise_above=0.025, clear_below=0.015),
    AlertRule("failure_rate", raise_above=0.05, clear_below=0.01),
    AlertRule("timeout_rate", raise_above=0.05, clear_below=0.01),
)


@dataclass(slots=True)
class _Record:
    seconds: RollingWindow = field(default_factory=RollingWindow)
    ended: RollingWindow = field(default_factory=RollingWindow)  # by _PLACES
    followed: RollingWindow = field(default_factory=RollingWindow)
    asks: int = 0


class PerformanceMonitor:
    """Keeps the figures of all strategies. Safe to call from any thread.

    Args:
        rules: What to alert on.
        on_alert: Told of every change.
    """

    def __init__(
        self, rules: Sequence[AlertRule] = DEFAULT_RULES, on_alert: Callable[[Alert], None] = lambda _: None
    ) -> None:
        self._rules = rules
        self._on_alert = on_alert
        self._lock = threading.Lock()
        self._records: defaultdict[str, _Record] = defaultdict(_Record)
        self._raised: set[tuple[str, Figure]] = set()

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take in one batch: a strategy is asked once per batch, however many requests are in it."""
        threads = {t["strategy"]: t for event in events for t in event.answer["thread_results"]}
        due = []
        with self._lock:
            for name, thread in threads.items():
                record = self._records[name]
                record.asks += 1
                if record.asks % CHECK_EVERY == 0:
                    due.append(name)
                record.ended.add(_PLACES[thread["status"]])
                if thread["status"] == "SUCCESS" and thread["execution_time_ms"] is not None:
                    record.seconds.add(thread["execution_time_ms"] / 1e3)
        if due:
            self._check(due)

    def on_outcomes(self, outcomes: Iterable[tuple[Mapping[str, str | None], str, float]]) -> None:
        """Take in what came of decisions.

        Args:
            outcomes: Of each: every strategy's first choice at the time, None where it had no opinion; ref of the model
                that answered; success, 0..1. Strategies that preferred another model are not judged: what that would
                have done is unknown.
        """
        followed: dict[str, list[float]] = {}
        for opinions, model, success in outcomes:
            for name, choice in opinions.items():
                if choice == model:
                    followed.setdefault(name, []).append(success)
        with self._lock:
            for name, scores in followed.items():
                self._records[name].followed.extend(scores)

    def performance(self) -> dict[str, StrategyPerformance]:
        """The figures of every strategy seen so far."""
        with self._lock:
            return {name: _figures(record) for name, record in self._records.items()}

    def alerts(self) -> tuple[tuple[str, Figure], ...]:
        """What is too high at the moment, as (strategy, figure)."""
        with self._lock:
            return tuple(sorted(self._raised))

    def _check(self, strategies: Sequence[str]) -> None:
        changes = []
        with self._lock:
            for name in strategies:
                record = self._records[name]
                figures = _figures(record)
                for rule in self._rules:
                    value, key = float(getattr(figures, rule.figure)), (name, rule.figure)
                    if key in self._raised and value < rule.clear_below:
                        self._raised.discard(key)
                        changes.append(Alert(name, rule.figure, value, raised=False))
                    elif key not in self._raised and record.asks >= rule.least_asks and value > rule.raise_above:
                        self._raised.add(key)
                        changes.append(Alert(name, rule.figure, value, raised=True))
        for change in changes:
            self._on_alert(change)


def _figures(record: _Record) -> StrategyPerformance:
    seconds, followed = record.seconds.values(), record.followed.values()
    seconds.sort()
    places = np.multiply((0.5, 0.95, 0.99), len(seconds) - 1)  # as np.percentile has it, in a fifth of its time
    p50, p95, p99 = np.interp(places, np.arange(len(seconds)), seconds).tolist() if len(seconds) else (0.0, 0.0, 0.0)
    reliability = (followed.sum() + 0.5 * PRIOR_FOLLOWED) / (len(followed) + PRIOR_FOLLOWED)
    return StrategyPerformance(
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        success_rate=record.ended.share(_PLACES["SUCCESS"]),
        failure_rate=record.ended.share(_PLACES["FAILED"]),
        timeout_rate=record.ended.share(_PLACES["TIMEOUT"]),
        reliability=float(reliability),
        followed=len(followed),
    )
