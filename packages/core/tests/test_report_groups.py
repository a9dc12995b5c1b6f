"""Reports of many callers go to the store in groups, and each caller hears of its own alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.report_groups import ReportGroups, Result
from monkey_coder.storage.port import Appended, OutcomeRow


def row(number: int) -> OutcomeRow:
    return OutcomeRow(f"d{number}", "a/one", 1.0, b"")


class Writer:
    """Takes groups, and answers when it is told to."""

    def __init__(self) -> None:
        self.groups: list[tuple[Sequence[OutcomeRow], Future[Sequence[Result]]]] = []

    def put(self, rows: Sequence[OutcomeRow]) -> Future[Sequence[Result]]:
        future: Future[Sequence[Result]] = Future()
        self.groups.append((rows, future))
        return future

    def answer(self, group: int, *results: Result) -> None:
        self.groups[group][1].set_result(results)


async def test_a_single_report_goes_at_once_and_what_comes_soon_after_goes_together() -> None:
    writer = Writer()
    groups = ReportGroups(writer.put, gather_s=0.05)
    first = groups.store([row(0)])
    assert len(writer.groups) == 1
    more = [groups.store([row(1)]), groups.store([row(2), row(3)])]
    assert len(writer.groups) == 1
    async with asyncio.timeout(10.0):
        while len(writer.groups) < 2:  # noqa: ASYNC110 - nobody tells when the pause is over
            await asyncio.sleep(0.005)
        assert [each.decision_id for each in writer.groups[1][0]] == ["d1", "d2", "d3"]
        broken = StoreUnavailableError("not now")
        writer.answer(1, Appended.NEW, Appended.DUPLICATE, broken)
        assert [await one for one in more] == [(Appended.NEW,), (Appended.DUPLICATE, broken)]
        assert not first.done()
        writer.answer(0, Appended.LATE)
        assert await first == (Appended.LATE,)


async def test_a_caller_that_goes_away_keeps_nobody_else_waiting() -> None:
    writer = Writer()
    groups = ReportGroups(writer.put, gather_s=0.01)
    groups.store([row(0)])
    gone, stays = groups.store([row(1)]), groups.store([row(2)])
    gone.cancel()
    async with asyncio.timeout(10.0):
        while len(writer.groups) < 2:  # noqa: ASYNC110 - nobody tells when the pause is over
            await asyncio.sleep(0.005)
        writer.answer(1, Appended.NEW, Appended.REPLACED)
        assert await stays == (Appended.REPLACED,)
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_after_a_pause_a_single_report_goes_at_once_again() -> None:
    writer = Writer()
    groups = ReportGroups(writer.put, gather_s=0.01)
    groups.store([row(0)])
    await asyncio.sleep(0.05)
    groups.store([row(1)])
    assert len(writer.groups) == 2
