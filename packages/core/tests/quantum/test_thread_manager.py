"""Strategies side by side: legal statuses alone, one deadline, and no strategy that can hold up another.

The clock of the manager is set by hand; strategies are held by events, so that only deadlines take real time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from builders import Failing, Fixed, Held, SetClock, route_batch

from monkey_coder.ports import RouteBatch, Scores
from monkey_coder.quantum.routing_strategies import abstention
from monkey_coder.quantum.thread_manager import (
    BenchRules,
    ThreadManager,
    ThreadOutcome,
)

BATCH = route_batch([[0.5, 0.6]])
SOON_S, PATIENT_S = 0.4, 30.0
FINAL = {"SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"}


def fixed(name: str) -> Fixed:
    return Fixed(name, [0.5, 0.6])


@contextmanager
def manager(
    workers: int = 8, clock: SetClock | None = None, rules: BenchRules | None = None
) -> Iterator[ThreadManager]:
    made = ThreadManager(workers, clock or SetClock(), rules or BenchRules())
    try:
        yield made
    finally:
        made.close()


@contextmanager
def held(*names: str) -> Iterator[list[Held]]:
    """Strategies that hang until the test is over, or lets them go."""
    strategies = [Held(name) for name in names]
    try:
        yield strategies
    finally:
        for strategy in strategies:
            strategy.release.set()


def statuses(outcomes: list[ThreadOutcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def await_free(threads: ThreadManager) -> None:
    """Wait until no worker is held past its deadline."""
    deadline = time.monotonic() + PATIENT_S
    while threads.stuck():
        assert time.monotonic() < deadline, f"still stuck: {threads.stuck()}"
        time.sleep(0.001)


def test_everybody_answers_in_the_order_asked() -> None:
    with manager() as threads:
        outcomes = threads.run([fixed("a"), fixed("b"), fixed("c")], BATCH, PATIENT_S)
    assert [o.strategy for o in outcomes] == ["a", "b", "c"]
    assert statuses(outcomes) == ["SUCCESS"] * 3
    assert sorted(o.arrival for o in outcomes) == [0, 1, 2]
    assert all(o.scores is not None and o.seconds is not None for o in outcomes)


def test_nobody_to_ask_is_answered_at_once() -> None:
    with manager() as threads:
        assert threads.run([], BATCH, PATIENT_S) == []


def test_a_failing_strategy_is_reported_and_takes_nobody_along() -> None:
    with manager() as threads:
        outcomes = threads.run([Failing("bad"), fixed("good")], BATCH, PATIENT_S)
    assert statuses(outcomes) == ["FAILED", "SUCCESS"]
    assert outcomes[0].error == "ValueError: no such luck"
    assert outcomes[0].scores is None


def test_a_late_strategy_is_timed_out_and_its_answer_never_used() -> None:
    with held("slow") as (slow,), manager() as threads:
        started = time.monotonic()
        outcomes = threads.run([slow, fixed("quick")], BATCH, SOON_S)
        assert time.monotonic() - started < PATIENT_S / 2
        assert statuses(outcomes) == ["TIMEOUT", "SUCCESS"]
        slow.release.set()
        assert slow.left.wait(PATIENT_S)
        await_free(threads)
        assert outcomes[0].status == "TIMEOUT"
        assert outcomes[0].scores is None


def test_times_are_those_of_the_clock_handed_in() -> None:
    clock = SetClock(50.0)

    class Thinks:
        name = "thinks"

        def score(self, batch: RouteBatch) -> Scores:
            clock.now += 1.5
            return fixed("thinks").score(batch)

    with manager(clock=clock) as threads:
        (outcome,) = threads.run([Thinks()], BATCH, PATIENT_S)
    assert outcome.seconds == 1.5


def test_a_stuck_strategy_holds_one_worker_and_is_not_asked_until_it_lets_go() -> None:
    with held("stuck") as (stuck,), manager(workers=4) as threads:
        threads.run([stuck, fixed("well")], BATCH, SOON_S)
        assert threads.stuck() == {"stuck": 1}
        for _ in range(20):
            started = time.monotonic()
            outcomes = threads.run([stuck, fixed("well")], BATCH, PATIENT_S)
            assert time.monotonic() - started < PATIENT_S / 2, "a batch waited for a strategy that was not even asked"
            assert statuses(outcomes) == ["TIMEOUT", "SUCCESS"]
            assert outcomes[0].seconds is None
        assert stuck.calls == 1
        assert threads.stuck() == {"stuck": 1}
        stuck.release.set()
        await_free(threads)
        assert statuses(threads.run([stuck, fixed("well")], BATCH, PATIENT_S)) == ["SUCCESS", "SUCCESS"]


def test_many_stuck_strategies_never_block_the_others() -> None:
    names = [f"stuck{n}" for n in range(5)]
    with held(*names) as strategies, manager(workers=12) as threads:
        assert statuses(threads.run([*strategies, fixed("well")], BATCH, SOON_S)) == ["TIMEOUT"] * 5 + ["SUCCESS"]
        assert threads.stuck() == dict.fromkeys(names, 1)
        assert statuses(threads.run([*strategies, fixed("well")], BATCH, PATIENT_S))[-1] == "SUCCESS"


def test_a_stuck_strategy_does_not_hold_up_those_that_wait_for_a_thread() -> None:
    with held("stuck") as (stuck,), manager() as threads:
        strategies = [stuck, *(fixed(name) for name in "abcd")]
        assert statuses(threads.run(strategies, BATCH, SOON_S, max_threads=2)) == ["TIMEOUT"] + ["SUCCESS"] * 4


class Counted:
    """Notes how many of its kind run at the same time."""

    running = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, batch: RouteBatch) -> Scores:
        with Counted.lock:
            Counted.running += 1
            Counted.most = max(Counted.most, Counted.running)
        time.sleep(0.002)
        with Counted.lock:
            Counted.running -= 1
        return fixed(self.name).score(batch)


@pytest.mark.parametrize("most", [1, 2, 3, 64])
def test_max_threads_bounds_what_runs_at_the_same_time(most: int) -> None:
    Counted.most = 0
    with manager(workers=8) as threads:
        for _ in range(5):
            outcomes = threads.run([Counted(name) for name in "abcdef"], BATCH, PATIENT_S, max_threads=most)
            assert statuses(outcomes) == ["SUCCESS"] * 6
    assert Counted.most <= min(most, 6)


def test_without_a_bound_all_run_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=PATIENT_S)

    class Meets:
        def __init__(self, name: str) -> None:
            self.name = name

        def score(self, batch: RouteBatch) -> Scores:
            together.wait()  # breaks, and fails the strategy, unless all four are there
            return fixed(self.name).score(batch)

    with manager() as threads:
        assert statuses(threads.run([Meets(name) for name in "abcd"], BATCH, PATIENT_S)) == ["SUCCESS"] * 4


def test_enough_cancels_the_rest() -> None:
    with held("slow") as (slow,), manager() as threads:
        started = time.monotonic()
        outcomes = threads.run([slow, fixed("quick")], BATCH, PATIENT_S, enough=lambda so_far: len(so_far) == 1)
        assert time.monotonic() - started < PATIENT_S / 2
        assert statuses(outcomes) == ["CANCELLED", "SUCCESS"]
        assert outcomes[1].arrival == 0


def test_enough_cancels_those_that_wait_for_a_thread_before_they_start() -> None:
    with held("never") as (never,), manager() as threads:
        outcomes = threads.run([fixed("first"), never], BATCH, PATIENT_S, 1, enough=lambda so_far: bool(so_far))
        assert statuses(outcomes) == ["SUCCESS", "CANCELLED"]
        assert outcomes[1].seconds is None
        assert never.calls == 0


def test_enough_sees_successes_in_their_order_of_arrival() -> None:
    seen: list[list[str]] = []

    def look(so_far) -> bool:
        seen.append([outcome.strategy for outcome in so_far])
        assert [outcome.arrival for outcome in so_far] == list(range(len(so_far)))
        return False

    with manager() as threads:
        outcomes = threads.run([fixed("a"), Failing("bad"), fixed("b")], BATCH, PATIENT_S, 1, enough=look)
    assert seen == [["a"], ["a", "b"]]
    assert statuses(outcomes) == ["SUCCESS", "FAILED", "SUCCESS"]


def test_what_was_cancelled_does_not_count_as_overrunning() -> None:
    rules = BenchRules(after_timeouts=1)
    with held("slow") as (slow,), manager(rules=rules) as threads:
        threads.run([slow, fixed("quick")], BATCH, PATIENT_S, enough=lambda so_far: bool(so_far))
        assert threads.benched() == ()


def overrun(threads: ThreadManager, name: str) -> None:
    """Let a strategy miss its deadline, and give its worker back."""
    with held(name) as (slow,):
        assert statuses(threads.run([slow], BATCH, SOON_S / 2)) == ["TIMEOUT"]
        assert slow.entered.is_set(), "it was not even asked"
    await_free(threads)


def test_overrunning_again_and_again_is_benched_and_probed_with_doubling_pauses() -> None:
    clock = SetClock(1000.0)
    with manager(clock=clock, rules=BenchRules(after_timeouts=3, first_s=1.0, longest_s=4.0)) as threads:
        for _ in range(2):
            overrun(threads, "slow")
            assert threads.benched() == ()
        overrun(threads, "slow")
        for pause in (1.0, 2.0, 4.0, 4.0):
            assert threads.benched() == ("slow",)
            clock.now += pause - 0.001
            (outcome,) = threads.run([fixed("slow")], BATCH, PATIENT_S)
            assert (outcome.status, outcome.seconds) == ("TIMEOUT", None)  # left out, so not even started
            clock.now += 0.001
            assert threads.benched() == ()
            overrun(threads, "slow")  # the probe


def test_a_probe_that_answers_brings_the_strategy_back_with_a_clean_record() -> None:
    clock = SetClock()
    with manager(clock=clock, rules=BenchRules(after_timeouts=2, first_s=1.0)) as threads:
        overrun(threads, "slow")
        overrun(threads, "slow")
        assert threads.benched() == ("slow",)
        clock.now += 1.0
        assert statuses(threads.run([fixed("slow")], BATCH, PATIENT_S)) == ["SUCCESS"]
        assert threads.benched() == ()
        overrun(threads, "slow")
        assert threads.benched() == ()


def test_while_the_probe_is_out_others_leave_the_strategy_alone() -> None:
    clock = SetClock()
    with manager(clock=clock, rules=BenchRules(after_timeouts=1, first_s=1.0)) as threads:
        overrun(threads, "slow")
        clock.now += 1.0
        with held("slow") as (probe,):
            asking = threading.Thread(target=threads.run, args=([probe], BATCH, PATIENT_S))
            asking.start()
            assert probe.entered.wait(PATIENT_S)
            meanwhile = Held("slow")
            assert statuses(threads.run([meanwhile, fixed("well")], BATCH, PATIENT_S)) == ["TIMEOUT", "SUCCESS"]
            assert meanwhile.calls == 0
            probe.release.set()
            asking.join(PATIENT_S)
        assert threads.benched() == ()


def test_an_answer_in_time_breaks_the_row_of_timeouts() -> None:
    with manager(rules=BenchRules(after_timeouts=2)) as threads:
        for _ in range(3):
            overrun(threads, "now and then")
            threads.run([fixed("now and then")], BATCH, PATIENT_S)
        assert threads.benched() == ()


def test_one_benched_strategy_says_nothing_about_another() -> None:
    with manager(rules=BenchRules(after_timeouts=1)) as threads:
        overrun(threads, "slow")
        assert threads.benched() == ("slow",)
        assert statuses(threads.run([fixed("slow"), fixed("well")], BATCH, PATIENT_S)) == ["TIMEOUT", "SUCCESS"]


def test_thousands_of_batches_leave_nothing_behind() -> None:
    before = set(threading.enumerate())

    def left_behind() -> int:
        return len(set(threading.enumerate()) - before)

    with manager(workers=4) as threads:
        strategies = [fixed("a"), Failing("b"), fixed("c"), fixed("d")]
        for number in range(3000):
            enough = (lambda so_far: bool(so_far)) if number % 3 == 0 else None
            outcomes = threads.run(strategies, BATCH, PATIENT_S, max_threads=1 + number % 4, enough=enough)
            assert set(statuses(outcomes)) <= FINAL
        assert left_behind() <= 4
        assert threads.stuck() == {}
        assert threads.benched() == ()
    deadline = time.monotonic() + PATIENT_S
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert left_behind() == 0


def test_callers_in_several_threads_get_their_own_answers() -> None:
    problems: list[str] = []
    with manager(workers=8) as threads:

        def call(caller: int) -> None:
            for turn in range(100):
                names = [f"{caller}-{turn}-{n}" for n in range(3)]
                outcomes = threads.run([fixed(name) for name in names], BATCH, PATIENT_S)
                if [o.strategy for o in outcomes] != names or statuses(outcomes) != ["SUCCESS"] * 3:
                    problems.append(str(outcomes))

        callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert problems == []


def test_closing_does_not_wait_for_a_stuck_strategy() -> None:
    with held("stuck") as (stuck,):
        threads = ThreadManager(2, SetClock())
        threads.run([stuck], BATCH, SOON_S)
        started = time.monotonic()
        threads.close()
        assert time.monotonic() - started < PATIENT_S / 2


@dataclass(frozen=True)
class Instant(Fixed):
    """Says that it is done at once."""

    instant = True


@pytest.mark.parametrize("instant", [False, True])
def test_a_strategy_that_wants_to_end_the_process_fails_like_any_other(instant: bool) -> None:
    class Leaves:
        name = "leaves"

        def score(self, batch: RouteBatch) -> Scores:
            raise SystemExit(3)

    leaves: Any = Leaves()
    leaves.instant = instant
    with manager(workers=1) as threads:
        for _ in range(3):  # its worker is still there
            outcomes = threads.run([leaves, fixed("well")], BATCH, PATIENT_S)
            assert statuses(outcomes) == ["FAILED", "SUCCESS"]
            assert outcomes[0].error == "SystemExit: 3"


def test_an_instant_strategy_that_fails_takes_nobody_along() -> None:
    class Hopeless:
        name = "hopeless"
        instant = True

        def score(self, batch: RouteBatch) -> Scores:
            raise ValueError("no such luck")

    with manager() as threads:
        outcomes = threads.run([Hopeless(), Instant("well", [0.5, 0.6])], BATCH, PATIENT_S)
    assert statuses(outcomes) == ["FAILED", "SUCCESS"]
    assert outcomes[0].error == "ValueError: no such luck"
    assert [outcome.arrival for outcome in outcomes] == [None, 0]


def test_instant_strategies_are_cancelled_once_enough_have_answered() -> None:
    with held("slow") as (slow,), manager() as threads:
        strategies = [slow, *(Instant(name, [0.5, 0.6]) for name in "abc")]
        outcomes = threads.run(strategies, BATCH, PATIENT_S, enough=lambda so_far: len(so_far) == 2)
        assert statuses(outcomes) == ["CANCELLED", "SUCCESS", "SUCCESS", "CANCELLED"]
        assert [outcome.arrival for outcome in outcomes] == [None, 0, 1, None]
        assert outcomes[3].seconds is None


def test_an_instant_strategy_runs_where_the_others_are_waited_for() -> None:
    where: list[str] = []

    class Here:
        name = "here"
        instant = True

        def score(self, batch: RouteBatch) -> Scores:
            where.append(threading.current_thread().name)
            return abstention(batch)

    with manager() as threads:
        outcomes = threads.run([Here(), fixed("busy")], BATCH, PATIENT_S)
    assert [outcome.status for outcome in outcomes] == ["SUCCESS", "SUCCESS"]
    assert where == [threading.current_thread().name]
