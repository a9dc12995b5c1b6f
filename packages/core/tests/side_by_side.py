"""Strategies asked side by side, some of which hang, under a deadline that comes when a test is ready for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from builders import Fixed, Held, SetClock, route_batch
from servers import PATIENCE_S, eventually

from monkey_coder.ports import RouteBatch, Scores, Strategy
from monkey_coder.quantum.routing_strategies import abstention
from monkey_coder.quantum.thread_manager import BenchRules, ThreadManager, ThreadOutcome

BATCH = route_batch([[0.5, 0.6]])
SOON_S = 0.05
"""A deadline; by the time that it begins to count, nothing is left to be done in it."""


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
    eventually(lambda: not threads.stuck(), lambda: f"still stuck: {threads.stuck()}")


class Brink:
    """Keeps the caller, and so the deadline, until those that hang have begun and so many others have answered."""

    name = "brink"
    instant = True

    def __init__(self, hanging: Sequence[Held], answers: int) -> None:
        self._hanging, self._answers = hanging, answers
        self._answered = threading.Event()

    def look(self, so_far: Sequence[ThreadOutcome]) -> bool:
        if sum(outcome.strategy != self.name for outcome in so_far) == self._answers:
            self._answered.set()
        return False

    def score(self, batch: RouteBatch) -> Scores:
        for strategy in self._hanging:
            assert strategy.entered.wait(PATIENCE_S), f"{strategy.name} was not even asked"
        assert not self._answers or self._answered.wait(PATIENCE_S), "somebody did not answer"
        return abstention(batch)


def run_late(threads: ThreadManager, hanging: Sequence[Held], others: Sequence[Strategy] = ()) -> list[ThreadOutcome]:
    """Ask strategies some of which miss their deadline, in this order; all others answer in time."""
    brink = Brink(hanging, len(others))
    *outcomes, last = threads.run([*hanging, *others, brink], BATCH, SOON_S, enough=brink.look)
    assert last.status == "SUCCESS", last.error
    return outcomes
