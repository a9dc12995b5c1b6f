"""How long a batch gathers: not at all where requests come seldom, never beyond a bound, and only for company."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from builders import SetClock
from hypothesis import given
from hypothesis import strategies as st
from stepped_batcher import bench, settle

from monkey_coder.quantum.gathering import WINDOW_S, Gathering, GatheringOptions

LONGEST_S = GatheringOptions().longest_s


def after(per_s: float, seconds: float = 1.0) -> tuple[Gathering, SetClock]:
    """After so many requests a second, evenly, for so long."""
    clock = SetClock(100.0)
    gathering = Gathering(clock)
    for _ in range(round(per_s * seconds)):
        clock.now += 1.0 / per_s
        gathering.arrived()
    return gathering, clock


@given(st.floats(1.0, 250.0))
def test_where_requests_come_seldom_nobody_waits(per_s: float) -> None:
    gathering, _ = after(per_s)
    assert gathering.pause_s(1, 0.0) == 0.0


@given(st.floats(650.0, 20_000.0))
def test_where_they_come_often_the_first_of_a_batch_waits_for_the_longest_time(per_s: float) -> None:
    gathering, _ = after(per_s)
    assert gathering.pause_s(1, 0.0) == pytest.approx(LONGEST_S)


def test_in_between_the_time_grows_with_the_rate() -> None:
    pauses = [after(per_s)[0].pause_s(1, 0.0) for per_s in (320.0, 400.0, 500.0, 580.0)]
    assert 0.0 < pauses[0] < pauses[1] < pauses[2] < pauses[3] < LONGEST_S


@given(st.floats(650.0, 5_000.0), st.integers(1, 64), st.floats(0.0, 1.0))
def test_nobody_waits_longer_than_the_bound_nor_once_there_is_company_enough(
    per_s: float, waiting: int, oldest_s: float
) -> None:
    gathering, _ = after(per_s, 0.5)
    pause_s = gathering.pause_s(waiting, oldest_s)
    assert 0.0 <= pause_s <= max(0.0, LONGEST_S - oldest_s) + 1e-12
    assert waiting < gathering.options.enough or pause_s == 0.0


@given(st.floats(650.0, 5_000.0), st.floats(2 * WINDOW_S, 1e6))
def test_once_requests_stay_away_the_next_one_does_not_wait(per_s: float, quiet_s: float) -> None:
    gathering, clock = after(per_s, 0.5)
    clock.now += quiet_s
    assert gathering.pause_s(1, 0.0) == 0.0


def busy(longest_s: float) -> tuple[Gathering, SetClock]:
    """As if requests had come often, with so long a pause."""
    clock = SetClock(0.0)
    gathering = Gathering(clock, GatheringOptions(longest_s=longest_s, enough=3))
    for _ in range(1_000):
        clock.now += 1e-3
        gathering.arrived()
    return gathering, clock


async def test_a_batch_begins_as_soon_as_there_is_company_enough() -> None:
    gathering, _ = busy(longest_s=3_600.0)
    b = bench(gathering=gathering)
    futures = [b.batcher.submit(number) for number in (1, 2)]
    await settle()
    assert not b.executor.waiting
    futures.append(b.batcher.submit(3))
    await settle()
    await b.work()
    assert b.decide.batches == [[1, 2, 3]]
    assert [future.result() for future in futures] == [10, 20, 30]
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_a_request_that_stays_alone_is_decided_when_it_has_waited_long_enough() -> None:
    gathering, _ = busy(longest_s=0.005)
    b = bench(gathering=gathering, at_once=lambda _: True)
    async with asyncio.timeout(60.0):
        assert await b.batcher.submit(1) == 10
        assert await b.batcher.submit(2) == 20
    assert b.decide.batches == [[1], [2]]
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_who_gives_up_while_a_batch_gathers_harms_nobody() -> None:
    gathering, _ = busy(longest_s=0.005)
    b = bench(gathering=gathering, at_once=lambda _: True)
    b.batcher.submit(1).cancel()
    await asyncio.sleep(0.02)
    async with asyncio.timeout(60.0):
        assert await b.batcher.submit(2) == 20
    assert b.decide.batches == [[2]]
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_only_requests_that_come_of_themselves_count() -> None:
    clock = SetClock(0.0)
    gathering = Gathering(clock, GatheringOptions(longest_s=3_600.0, enough=100))
    b = bench(gathering=gathering, at_once=lambda _: True)
    async with asyncio.timeout(60.0):
        for number in range(1_000):  # each as soon as the one before it is answered
            clock.now += 1e-3
            assert await b.batcher.submit(number) == 10 * number
        for number in range(1_000):
            clock.now += 1e-3
            b.batcher.put(number, asyncio.get_running_loop().create_future(), unprompted=True)
            if gathering.pause_s(1, 0.0):
                break
            await settle()
        else:
            pytest.fail("requests that come of themselves were not counted")
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task
