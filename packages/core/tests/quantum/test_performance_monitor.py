"""Rolling figures of strategies: true to the last numbers, bounded, and alerts that say a thing once."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from builders import Failing, Fixed, Held, ask, engine
from hypothesis import example, given
from hypothesis import strategies as st

from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.performance_monitor import (
    CHECK_EVERY,
    PRIOR_FOLLOWED,
    WINDOW,
    Alert,
    AlertRule,
    PerformanceMonitor,
    RollingWindow,
)


def event(**threads: tuple[str, float | None]) -> DecisionEvent:
    """A decision in which each strategy came to a status after so many milliseconds."""
    results = [
        {"strategy": name, "status": status, "execution_time_ms": time_ms}
        for name, (status, time_ms) in threads.items()
    ]
    return DecisionEvent({"thread_results": results}, None, 0, np.ones(1, dtype=np.float32), 0.001)


def feed(monitor: PerformanceMonitor, what: Iterable[tuple[str, float | None]], name: str = "s") -> None:
    for each in what:
        monitor.on_decided([event(**{name: each})])


def answered(*times_ms: float) -> list[tuple[str, float | None]]:
    return [("SUCCESS", time_ms) for time_ms in times_ms]


FAILED: tuple[str, float | None] = ("FAILED", 0.1)
LATE: tuple[str, float | None] = ("TIMEOUT", 50.0)


# Windows


@given(st.lists(st.floats(-1e6, 1e6)), st.integers(1, 20))
def test_a_window_holds_the_last_numbers_and_knows_their_shares(numbers: list[float], size: int) -> None:
    window = RollingWindow(size)
    for number in numbers:
        window.add(number)
    last = numbers[-size:]
    assert sorted(window.values().tolist()) == sorted(last)
    assert window.share(1.0) == pytest.approx(last.count(1.0) / len(last) if last else 0.0)


def test_what_was_read_from_a_window_stays_as_it_was() -> None:
    window = RollingWindow(2)
    window.add(1.0)
    read = window.values()
    window.add(2.0)
    window.add(3.0)
    assert read.tolist() == [1.0]


# Figures


def test_before_anything_happened_there_is_nobody() -> None:
    monitor = PerformanceMonitor()
    assert (monitor.performance(), monitor.alerts()) == ({}, ())


TIMES_MS: list[float] = np.random.default_rng(7).lognormal(1.0, 1.0, size=2 * WINDOW + 100).tolist()


@example(TIMES_MS)
@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_last_answers_in_seconds(times_ms: list[float]) -> None:
    monitor = PerformanceMonitor()
    monitor.on_decided([])
    feed(monitor, answered(*times_ms))
    figures = monitor.performance()["s"]
    expected = np.percentile(np.array(times_ms[-WINDOW:]) / 1e3, [50, 95, 99])
    assert (figures.p50_s, figures.p95_s, figures.p99_s) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"]), min_size=1, max_size=50))
def test_rates_are_shares_of_all_asks(statuses: list[str]) -> None:
    monitor = PerformanceMonitor()
    feed(monitor, [(status, 1.0) for status in statuses])
    figures = monitor.performance()["s"]
    shares = [statuses.count(status) / len(statuses) for status in ("SUCCESS", "FAILED", "TIMEOUT")]
    assert [figures.success_rate, figures.failure_rate, figures.timeout_rate] == pytest.approx(shares)


def test_what_went_wrong_leaves_the_window_in_time() -> None:
    monitor = PerformanceMonitor()
    feed(monitor, [FAILED, LATE] * 10)
    feed(monitor, answered(*[1.0] * (WINDOW - 20)))
    figures = monitor.performance()["s"]
    assert (figures.failure_rate, figures.timeout_rate) == pytest.approx((10 / WINDOW, 10 / WINDOW))
    feed(monitor, answered(*[1.0] * 20))
    figures = monitor.performance()["s"]
    assert (figures.success_rate, figures.failure_rate, figures.timeout_rate) == (1.0, 0.0, 0.0)


def test_only_answers_in_time_tell_of_latency() -> None:
    monitor = PerformanceMonitor()
    feed(monitor, [*answered(2.0), LATE, FAILED, ("CANCELLED", 30.0), ("TIMEOUT", None)])
    assert monitor.performance()["s"].p99_s == pytest.approx(0.002)


def test_a_batch_is_one_ask_however_many_requests_are_in_it() -> None:
    monitor = PerformanceMonitor()
    monitor.on_decided([event(a=FAILED, b=("SUCCESS", 1.0))] * 64 + [event(b=("SUCCESS", 1.0), c=LATE)])
    feed(monitor, answered(1.0, 1.0, 1.0), "a")
    figures = monitor.performance()
    assert figures["a"].failure_rate == 0.25
    assert (figures["b"].success_rate, figures["c"].timeout_rate) == (1.0, 1.0)


# Reliability


def test_reliability_is_how_often_following_would_have_succeeded() -> None:
    monitor = PerformanceMonitor()
    for _ in range(30):
        monitor.on_outcomes([({"right": "a/good", "wrong": "b/bad", "mute": None}, "a/good", 1.0)])
        monitor.on_outcomes([({"right": "a/good", "wrong": "b/bad", "mute": None}, "b/bad", 0.0)])
    figures = monitor.performance()
    assert figures["right"].reliability == pytest.approx((30 + PRIOR_FOLLOWED / 2) / (30 + PRIOR_FOLLOWED))
    assert figures["wrong"].reliability == pytest.approx((PRIOR_FOLLOWED / 2) / (30 + PRIOR_FOLLOWED))
    assert (figures["right"].followed, figures["wrong"].followed) == (30, 30)
    assert "mute" not in figures


def test_without_outcomes_reliability_is_one_half_and_few_move_it_little() -> None:
    monitor = PerformanceMonitor()
    feed(monitor, answered(1.0))
    assert (monitor.performance()["s"].reliability, monitor.performance()["s"].followed) == (0.5, 0)
    monitor.on_outcomes([({"s": "a/m"}, "a/m", 0.0)])
    assert 0.4 < monitor.performance()["s"].reliability < 0.5


@given(st.lists(st.floats(0, 1), max_size=60))
def test_reliability_is_a_share_whatever_comes(successes: list[float]) -> None:
    monitor = PerformanceMonitor()
    for success in successes:
        monitor.on_outcomes([({"s": "a/m"}, "a/m", success)])
    if successes:
        figures = monitor.performance()["s"]
        assert 0.0 <= figures.reliability <= 1.0
        assert min(0.5, *successes) - 1e-9 <= figures.reliability <= max(0.5, *successes) + 1e-9


# Alerts


def watched(*rules: AlertRule) -> tuple[PerformanceMonitor, list[Alert]]:
    told: list[Alert] = []
    return PerformanceMonitor(rules, told.append), told


def test_an_alert_is_told_once_when_raised_and_once_when_cleared() -> None:
    monitor, told = watched(AlertRule("failure_rate", raise_above=0.5, clear_below=0.1))
    feed(monitor, [FAILED] * (3 * CHECK_EVERY))
    assert [(a.strategy, a.figure, a.raised) for a in told] == [("s", "failure_rate", True)]
    assert told[0].value == 1.0
    assert monitor.alerts() == (("s", "failure_rate"),)
    feed(monitor, answered(*[1.0] * (WINDOW + CHECK_EVERY)))
    assert [alert.raised for alert in told] == [True, False]
    assert told[1].value < 0.1
    assert monitor.alerts() == ()


@pytest.mark.parametrize("figure", ["p95_s", "failure_rate", "timeout_rate"])
def test_between_its_levels_an_alert_does_not_flap(figure: Any) -> None:
    monitor, told = watched(AlertRule(figure, raise_above=0.4, clear_below=0.2))
    bad = {"p95_s": ("SUCCESS", 900.0), "failure_rate": FAILED, "timeout_rate": LATE}[figure]
    good: tuple[str, float | None] = ("SUCCESS", 1.0)

    def share(of_ten: int) -> None:
        """A whole window in which so many of ten asks are bad; for p95 the times themselves."""
        if figure == "p95_s":
            feed(monitor, [("SUCCESS", 100.0 * of_ten)] * (WINDOW + CHECK_EVERY))
        else:
            feed(monitor, ([bad] * of_ten + [good] * (10 - of_ten)) * (WINDOW // 10 + CHECK_EVERY))

    share(3)  # in between, coming from below: all is well
    assert told == []
    share(6)
    assert [alert.raised for alert in told] == [True]
    for _ in range(3):  # around the level at which it was raised, it stays raised
        share(3)
        share(5)
    assert [alert.raised for alert in told] == [True]
    share(1)
    assert [alert.raised for alert in told] == [True, False]
    share(3)
    assert [alert.raised for alert in told] == [True, False]


def test_a_few_bad_ones_at_the_start_are_no_alert() -> None:
    monitor, told = watched(AlertRule("failure_rate", 0.5, 0.1, least_asks=2 * CHECK_EVERY))
    feed(monitor, [FAILED] * (2 * CHECK_EVERY - 1))
    assert told == []
    feed(monitor, [FAILED])
    assert len(told) == 1


def test_each_strategy_and_figure_alerts_for_itself() -> None:
    monitor, told = watched(AlertRule("failure_rate", 0.5, 0.1), AlertRule("timeout_rate", 0.5, 0.1))
    for _ in range(CHECK_EVERY):
        monitor.on_decided([event(a=FAILED, b=LATE, c=("SUCCESS", 1.0))])
    assert {(a.strategy, a.figure) for a in told} == {("a", "failure_rate"), ("b", "timeout_rate")}


def test_levels_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="clear_below"):
        AlertRule("p95_s", raise_above=0.1, clear_below=0.2)


# Bounds and threads


def test_memory_does_not_grow_with_time() -> None:
    monitor = PerformanceMonitor()

    def live() -> None:
        for _ in range(2 * WINDOW):
            monitor.on_decided([event(s=("SUCCESS", 1.0))])
            monitor.on_outcomes([({"s": "a/m"}, "a/m", 1.0)])

    live()
    tracemalloc.start()
    try:
        taken = []
        for _ in range(4):
            live()
            taken.append(tracemalloc.get_traced_memory()[0])
        assert min(later - earlier for earlier, later in pairwise(taken)) < 5_000  # others may need some meanwhile
    finally:
        tracemalloc.stop()


def test_many_threads_may_feed_and_read_it_and_no_look_at_the_alerts_is_missed() -> None:
    monitor, told = watched(AlertRule("failure_rate", 0.9, 0.1))
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(8 * CHECK_EVERY):
            monitor.on_decided([event(s=FAILED)])
            monitor.on_outcomes([({"s": "a/m"}, "a/m", 1.0)])
            figures = monitor.performance()["s"]
            if figures.failure_rate != 1.0 or not 0.5 <= figures.reliability <= 1.0:
                wrong.append(figures)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [alert.raised for alert in told] == [True]
    assert monitor.performance()["s"].followed == WINDOW


def test_outcomes_told_together_count_like_those_told_one_by_one() -> None:
    together, apart = PerformanceMonitor(), PerformanceMonitor()
    outcomes = [({"s": "a/m", "t": "b/m" if place % 3 else "a/m"}, "a/m", (place % 7) / 6) for place in range(3_000)]
    together.on_outcomes(outcomes)
    for outcome in outcomes:
        apart.on_outcomes([outcome])
    for name, figures in apart.performance().items():
        assert together.performance()[name].followed == figures.followed == WINDOW
        assert together.performance()[name].reliability == pytest.approx(figures.reliability)


# With the engine


def test_it_sees_what_strategies_did_also_when_none_had_an_opinion() -> None:
    monitor, slow = PerformanceMonitor(), Held("slow")
    bad, mute = Failing("bad", instant=True), Fixed("mute", [0.5] * 3, abstains=True, instant=True)
    with engine(bad, slow, mute, listeners=[monitor]) as manager:
        try:
            manager.decide([ask(options={"timeout_ms": 100})] * 3)
        finally:
            slow.release.set()
    figures = monitor.performance()
    assert figures["bad"].failure_rate == 1.0
    assert figures["slow"].timeout_rate == 1.0
    assert figures["mute"].success_rate == 1.0
    assert figures["mute"].p50_s > 0.0
