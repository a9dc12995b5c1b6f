"""A thread's statuses: whatever happens to it, and in whatever order, it goes legal ways alone."""

from __future__ import annotations

import threading

from builders import Failing, Fixed, SetClock, route_batch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from monkey_coder.ports import RouteBatch, Scores
from monkey_coder.quantum.thread_manager import LEGAL, QuantumThread

BATCH = route_batch([[0.5, 0.6]])
WELL = Fixed("some", [0.5, 0.6])
FINAL = {"SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"}


class Statuses(RuleBasedStateMachine):
    """Whatever is asked of a thread, and in whatever order: it goes legal ways alone."""

    @initialize(fails=st.booleans())
    def start(self, fails: bool) -> None:
        self.clock = SetClock(100.0)
        self.work = Failing("some") if fails else WELL
        self.thread = QuantumThread(self.work, self.clock)
        self.seen = ["PENDING"]
        self.moves_meanwhile: list[str] = []
        self.ran_to_its_end = False

    def note(self) -> None:
        if self.thread.status != self.seen[-1]:
            self.seen.append(self.thread.status)

    @rule(to=st.sampled_from(sorted(LEGAL)))
    def move(self, to: str) -> None:
        before = self.thread.status
        assert self.thread.move(to) == (to in LEGAL[before])
        assert self.thread.status == (to if to in LEGAL[before] else before)
        self.note()

    @rule()
    def run(self) -> None:
        was_pending = self.thread.status == "PENDING"
        self.thread.run(BATCH)
        if was_pending:
            assert self.thread.status == ("FAILED" if isinstance(self.work, Failing) else "SUCCESS")
            assert self.thread.returned
            self.seen.append("RUNNING")
            self.ran_to_its_end = True
        self.note()

    @rule(to=st.sampled_from(["TIMEOUT", "CANCELLED", "RUNNING"]))
    def interrupt_while_it_works(self, to: str) -> None:
        def meanwhile(batch: RouteBatch) -> Scores:
            self.note()
            self.thread.move(to)
            self.note()
            return WELL.score(batch)

        class Interrupted:
            name = "some"

            def score(self, batch: RouteBatch) -> Scores:
                return meanwhile(batch)

        if self.thread.status == "PENDING":
            self.thread.strategy = Interrupted()
            self.thread.run(BATCH)
            self.note()
            assert self.thread.status == (to if to != "RUNNING" else "SUCCESS")
            assert (self.thread.outcome(0).scores is not None) == (to == "RUNNING")
            self.ran_to_its_end = to == "RUNNING"
            self.thread.strategy = self.work

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def only_legal_steps_were_taken(self) -> None:
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            assert after in LEGAL[before]
        assert set(self.seen[:-1]).isdisjoint(FINAL)

    @invariant()
    def the_report_fits_the_status(self) -> None:
        report = self.thread.outcome(arrival=3)
        assert report.status == self.thread.status
        assert report.scores is None or report.status == "SUCCESS"
        assert report.arrival == (3 if report.status == "SUCCESS" else None)
        assert report.error is None or report.status == "FAILED"
        assert self.thread.started == ("RUNNING" in self.seen)
        if report.seconds is not None:
            assert self.thread.started
            assert 0.0 <= report.seconds <= self.clock.now - 100.0
        if self.ran_to_its_end:
            assert report.scores is not None or report.error is not None


TestStatuses = Statuses.TestCase
TestStatuses.settings = settings(max_examples=60, stateful_step_count=12)


def test_racing_moves_have_one_winner() -> None:
    for _ in range(60):
        thread = QuantumThread(WELL, SetClock())
        thread.move("RUNNING")
        gate = threading.Barrier(4)
        won: list[str] = []

        def compete(to: str, thread: QuantumThread = thread, gate: threading.Barrier = gate, won: list = won) -> None:
            gate.wait()
            if thread.move(to):
                won.append(to)

        racers = [threading.Thread(target=compete, args=(to,)) for to in sorted(FINAL)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert won == [thread.status]
