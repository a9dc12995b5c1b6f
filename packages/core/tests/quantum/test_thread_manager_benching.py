"""Strategies that overrun again and again: left out for a while, probed, and brought back."""

from __future__ import annotations

import threading

from builders import Held, SetClock
from servers import PATIENCE_S
from side_by_side import BATCH, await_free, fixed, held, manager, run_late, statuses

from monkey_coder.quantum.thread_manager import BenchRules, ThreadManager


def overrun(threads: ThreadManager, name: str) -> None:
    """Let a strategy miss its deadline, and give its worker back."""
    with held(name) as (slow,):
        assert statuses(run_late(threads, [slow])) == ["TIMEOUT"]
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
            (outcome,) = threads.run([fixed("slow")], BATCH, PATIENCE_S)
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
        assert statuses(threads.run([fixed("slow")], BATCH, PATIENCE_S)) == ["SUCCESS"]
        assert threads.benched() == ()
        overrun(threads, "slow")
        assert threads.benched() == ()


def test_while_the_probe_is_out_others_leave_the_strategy_alone() -> None:
    clock = SetClock()
    with manager(clock=clock, rules=BenchRules(after_timeouts=1, first_s=1.0)) as threads:
        overrun(threads, "slow")
        clock.now += 1.0
        with held("slow") as (probe,):
            asking = threading.Thread(target=threads.run, args=([probe], BATCH, PATIENCE_S))
            asking.start()
            assert probe.entered.wait(PATIENCE_S)
            meanwhile = Held("slow")
            assert statuses(threads.run([meanwhile, fixed("well")], BATCH, PATIENCE_S)) == ["TIMEOUT", "SUCCESS"]
            assert meanwhile.calls == 0
            probe.release.set()
            asking.join(PATIENCE_S)
        assert threads.benched() == ()


def test_an_answer_in_time_breaks_the_row_of_timeouts() -> None:
    with manager(rules=BenchRules(after_timeouts=2)) as threads:
        for _ in range(3):
            overrun(threads, "now and then")
            threads.run([fixed("now and then")], BATCH, PATIENCE_S)
        assert threads.benched() == ()


def test_one_benched_strategy_says_nothing_about_another() -> None:
    with manager(rules=BenchRules(after_timeouts=1)) as threads:
        overrun(threads, "slow")
        assert threads.benched() == ("slow",)
        assert statuses(threads.run([fixed("slow"), fixed("well")], BATCH, PATIENCE_S)) == ["TIMEOUT", "SUCCESS"]
