"""Strategies side by side: legal statuses alone, one deadline, and no strategy that can hold up another.

The clock of the manager is set by hand; strategies are held by events, so that only deadlines take real time.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from builders import Failing, Fixed, SetClock
from servers import PATIENCE_S, eventually
from side_by_side import BATCH, await_free, fixed, held, manager, run_late, statuses

from monkey_coder.ports import RouteBatch, Scores
from monkey_coder.quantum.routing_strategies import abstention
from monkey_coder.quantum.thread_manager import BenchRules, ThreadManager

FINAL = {"SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"}


def test_everybody_answers_in_the_order_asked() -> None:
    with manager() as threads:
        outcomes = threads.run([fixed("a"), fixed("b"), fixed("c")], BATCH, PATIENCE_S)
    assert [o.strategy for o in outcomes] == ["a", "b", "c"]
    assert statuses(outcomes) == ["SUCCESS"] * 3
    assert sorted(o.arrival for o in outcomes) == [0, 1, 2]
    assert all(o.scores is not None and o.seconds is not None for o in outcomes)


def test_nobody_to_ask_is_answered_at_once() -> None:
    with manager() as threads:
        assert threads.run([], BATCH, PATIENCE_S) == []


def test_a_failing_strategy_is_reported_and_takes_nobody_along() -> None:
    with manager() as threads:
        outcomes = threads.run([Failing("bad"), fixed("good")], BATCH, PATIENCE_S)
    assert statuses(outcomes) == ["FAILED", "SUCCESS"]
    assert outcomes[0].error == "ValueError: no such luck"
    assert outcomes[0].scores is None


def test_a_late_strategy_is_timed_out_and_its_answer_never_used() -> None:
    with held("slow") as (slow,), manager() as threads:
        outcomes = run_late(threads, [slow], [fixed("quick")])
        assert statuses(outcomes) == ["TIMEOUT", "SUCCESS"]
        slow.release.set()
        assert slow.left.wait(PATIENCE_S)
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
        (outcome,) = threads.run([Thinks()], BATCH, PATIENCE_S)
    assert outcome.seconds == 1.5


def test_a_stuck_strategy_holds_one_worker_and_is_not_asked_until_it_lets_go() -> None:
    with held("stuck") as (stuck,), manager(workers=4) as threads:
        assert statuses(run_late(threads, [stuck], [fixed("well")])) == ["TIMEOUT", "SUCCESS"]
        assert threads.stuck() == {"stuck": 1}
        for _ in range(20):
            started = time.monotonic()
            outcomes = threads.run([stuck, fixed("well")], BATCH, PATIENCE_S)
            assert time.monotonic() - started < PATIENCE_S / 2, "a batch waited for a strategy that was not even asked"
            assert statuses(outcomes) == ["TIMEOUT", "SUCCESS"]
            assert outcomes[0].seconds is None
        assert stuck.calls == 1
        assert threads.stuck() == {"stuck": 1}
        stuck.release.set()
        await_free(threads)
        assert statuses(threads.run([stuck, fixed("well")], BATCH, PATIENCE_S)) == ["SUCCESS", "SUCCESS"]


def test_many_stuck_strategies_never_block_the_others() -> None:
    names = [f"stuck{n}" for n in range(5)]
    with held(*names) as strategies, manager(workers=12) as threads:
        assert statuses(run_late(threads, strategies, [fixed("well")])) == ["TIMEOUT"] * 5 + ["SUCCESS"]
        assert threads.stuck() == dict.fromkeys(names, 1)
        assert statuses(threads.run([*strategies, fixed("well")], BATCH, PATIENCE_S))[-1] == "SUCCESS"


def test_a_stuck_strategy_does_not_hold_up_those_that_wait_for_a_thread() -> None:
    with held("stuck") as (stuck,), manager() as threads:
        strategies = [stuck, *(fixed(name) for name in "abcd")]
        outcomes = threads.run(strategies, BATCH, PATIENCE_S, 2, enough=lambda so_far: len(so_far) == 4)
        assert statuses(outcomes) == ["CANCELLED"] + ["SUCCESS"] * 4


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
            outcomes = threads.run([Counted(name) for name in "abcdef"], BATCH, PATIENCE_S, max_threads=most)
            assert statuses(outcomes) == ["SUCCESS"] * 6
    assert Counted.most <= min(most, 6)


def test_without_a_bound_all_run_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=PATIENCE_S)

    class Meets:
        def __init__(self, name: str) -> None:
            self.name = name

        def score(self, batch: RouteBatch) -> Scores:
            together.wait()  # breaks, and fails the strategy, unless all four are there
            return fixed(self.name).score(batch)

    with manager() as threads:
        assert statuses(threads.run([Meets(name) for name in "abcd"], BATCH, PATIENCE_S)) == ["SUCCESS"] * 4


def test_enough_cancels_the_rest() -> None:
    with held("slow") as (slow,), manager() as threads:
        started = time.monotonic()
        outcomes = threads.run([slow, fixed("quick")], BATCH, PATIENCE_S, enough=lambda so_far: len(so_far) == 1)
        assert time.monotonic() - started < PATIENCE_S / 2
        assert statuses(outcomes) == ["CANCELLED", "SUCCESS"]
        assert outcomes[1].arrival == 0


def test_enough_cancels_those_that_wait_for_a_thread_before_they_start() -> None:
    with held("never") as (never,), manager() as threads:
        outcomes = threads.run([fixed("first"), never], BATCH, PATIENCE_S, 1, enough=lambda so_far: bool(so_far))
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
        outcomes = threads.run([fixed("a"), Failing("bad"), fixed("b")], BATCH, PATIENCE_S, 1, enough=look)
    assert seen == [["a"], ["a", "b"]]
    assert statuses(outcomes) == ["SUCCESS", "FAILED", "SUCCESS"]


def test_what_was_cancelled_does_not_count_as_overrunning() -> None:
    rules = BenchRules(after_timeouts=1)
    with held("slow") as (slow,), manager(rules=rules) as threads:
        threads.run([slow, fixed("quick")], BATCH, PATIENCE_S, enough=lambda so_far: bool(so_far))
        assert threads.benched() == ()


def test_thousands_of_batches_leave_nothing_behind() -> None:
    before = set(threading.enumerate())

    def left_behind() -> int:
        return len(set(threading.enumerate()) - before)

    with manager(workers=4) as threads:
        strategies = [fixed("a"), Failing("b"), fixed("c"), fixed("d")]
        for number in range(3000):
            enough = (lambda so_far: bool(so_far)) if number % 3 == 0 else None
            outcomes = threads.run(strategies, BATCH, PATIENCE_S, max_threads=1 + number % 4, enough=enough)
            assert set(statuses(outcomes)) <= FINAL
        assert left_behind() <= 4
        await_free(threads)  # of the last ones that were cancelled at work
        assert threads.benched() == ()
    eventually(lambda: left_behind() == 0)


def test_callers_in_several_threads_get_their_own_answers() -> None:
    problems: list[str] = []
    with manager(workers=8) as threads:

        def call(caller: int) -> None:
            for turn in range(100):
                names = [f"{caller}-{turn}-{n}" for n in range(3)]
                outcomes = threads.run([fixed(name) for name in names], BATCH, PATIENCE_S)
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
        run_late(threads, [stuck])
        started = time.monotonic()
        threads.close()
        assert time.monotonic() - started < PATIENCE_S / 2


def instant(name: str) -> Fixed:
    return Fixed(name, [0.5, 0.6], instant=True)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_strategy_that_wants_to_end_the_process_fails_like_any_other(at_once: bool) -> None:
    class Leaves:
        name = "leaves"

        def score(self, batch: RouteBatch) -> Scores:
            raise SystemExit(3)

    leaves: Any = Leaves()
    leaves.instant = at_once
    with manager(workers=1) as threads:
        for _ in range(3):  # its worker is still there
            outcomes = threads.run([leaves, fixed("well")], BATCH, PATIENCE_S)
            assert statuses(outcomes) == ["FAILED", "SUCCESS"]
            assert outcomes[0].error == "SystemExit: 3"


def test_an_instant_strategy_that_fails_takes_nobody_along() -> None:
    class Hopeless:
        name = "hopeless"
        instant = True

        def score(self, batch: RouteBatch) -> Scores:
            raise ValueError("no such luck")

    with manager() as threads:
        outcomes = threads.run([Hopeless(), instant("well")], BATCH, PATIENCE_S)
    assert statuses(outcomes) == ["FAILED", "SUCCESS"]
    assert outcomes[0].error == "ValueError: no such luck"
    assert [outcome.arrival for outcome in outcomes] == [None, 0]


def test_instant_strategies_are_cancelled_once_enough_have_answered() -> None:
    with held("slow") as (slow,), manager() as threads:
        strategies = [slow, *(instant(name) for name in "abc")]
        outcomes = threads.run(strategies, BATCH, PATIENCE_S, enough=lambda so_far: len(so_far) == 2)
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
        outcomes = threads.run([Here(), fixed("busy")], BATCH, PATIENCE_S)
    assert [outcome.status for outcome in outcomes] == ["SUCCESS", "SUCCESS"]
    assert where == [threading.current_thread().name]
