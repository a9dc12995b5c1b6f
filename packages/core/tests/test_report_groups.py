"""Reports of many callers go to the store in groups, and each caller hears of its own alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.report_groups import MOST_TOGETHER, ReportGroups, Result
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
    async with asyncio.timeout(60.0):
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
    async with asyncio.timeout(60.0):
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


async def test_a_large_group_goes_in_parts_so_that_a_store_without_room_refuses_only_some() -> None:
    writer, seen = Writer(), []
    groups = ReportGroups(writer.put, expect=seen.extend, gather_s=0.01)
    groups.store([row(0)])
    sizes = (MOST_TOGETHER - 1, 1, MOST_TOGETHER + 500, 700, MOST_TOGETHER - 700, 1)
    waiting = [groups.store([row(number)] * size) for number, size in enumerate(sizes, 1)]
    async with asyncio.timeout(60.0):
        while len(writer.groups) < 5:  # noqa: ASYNC110 - nobody tells when the pause is over
            await asyncio.sleep(0.005)
        assert [len(rows) for rows, _ in writer.groups] == [1, MOST_TOGETHER, MOST_TOGETHER + 500, MOST_TOGETHER, 1]
        assert len(seen) == sum(sizes) + 1
        full = StoreUnavailableError("no room")
        for number, (rows, _) in enumerate(writer.groups):
            writer.answer(number, *([full] if number == 3 else [Appended.NEW]) * len(rows))
        told = [await one for one in waiting]
    assert [len(results) for results in told] == list(sizes)
    assert [set(results) for results in told] == [{Appended.NEW}] * 3 + [{full}] * 2 + [{Appended.NEW}]


async def test_what_became_of_a_group_is_told_once_also_of_those_who_went_away() -> None:
    writer, told = Writer(), []
    groups = ReportGroups(writer.put, written=told.append, gather_s=0.01)
    groups.store([row(0), row(1)]).cancel()
    writer.answer(0, Appended.NEW, Appended.LATE)
    async with asyncio.timeout(60.0):
        while not told:  # noqa: ASYNC110 - it is told in the event loop
            await asyncio.sleep(0.005)
    assert [list(results) for results in told] == [[Appended.NEW, Appended.LATE]]
