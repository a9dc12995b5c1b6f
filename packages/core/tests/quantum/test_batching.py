"""Natural batching, step by step: the executor of these tests works only when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from servers import PATIENCE_S
from stepped_batcher import Bench, Deciding, bench, settle

from monkey_coder.errors import OverloadedError
from monkey_coder.quantum.batching import Batcher


@pytest.fixture
async def b() -> AsyncIterator[Bench]:
    made = bench()
    yield made
    made.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await made.loop_task


async def test_an_idle_batcher_starts_at_once(b: Bench) -> None:
    future = b.batcher.submit(1)
    await settle()
    assert len(b.executor.waiting) == 1
    await b.work()
    assert future.result() == 10


async def test_what_arrives_while_a_batch_is_at_work_forms_the_next_one(b: Bench) -> None:
    first = b.batcher.submit(1)
    await settle()
    rest = [b.batcher.submit(number) for number in (2, 3, 4)]
    await settle()
    assert (len(b.executor.waiting), len(b.batcher)) == (1, 3)  # one batch at a time
    await b.work()
    assert first.done()
    assert not any(future.done() for future in rest)
    await b.work()
    assert b.decide.batches == [[1], [2, 3, 4]]
    assert [future.result() for future in rest] == [20, 30, 40]
    assert b.told == [(1, 0), (3, 0)]


async def test_batches_are_capped_and_keep_the_order_of_arrival(b: Bench) -> None:
    futures = [b.batcher.submit(number) for number in range(6)]
    await settle()
    while b.executor.waiting:
        await b.work()
    assert b.decide.batches == [[0, 1, 2, 3], [4, 5]]
    assert b.told == [(4, 2), (2, 0)]
    assert [future.result() for future in futures] == [0, 10, 20, 30, 40, 50]


async def test_past_its_bound_the_queue_turns_away_and_takes_again_later(b: Bench) -> None:
    for number in range(6):
        b.batcher.submit(number)
    with pytest.raises(OverloadedError) as caught:
        b.batcher.submit(6)
    assert caught.value.retry_after_s is not None
    await settle()  # the first four are at work now, and wait no longer
    accepted = b.batcher.submit(7)
    await b.work()
    await b.work()
    assert accepted.result() == 70


async def test_callers_that_left_before_their_turn_cost_nothing(b: Bench) -> None:
    b.batcher.submit(1)
    await settle()
    gone, stays = b.batcher.submit(2), b.batcher.submit(3)
    gone.cancel()
    await b.work()
    await b.work()
    assert b.decide.batches == [[1], [3]]
    assert stays.result() == 30


async def test_when_all_left_no_batch_is_made_and_the_next_caller_is_served(b: Bench) -> None:
    b.batcher.submit(1)
    await settle()
    for future in [b.batcher.submit(number) for number in (2, 3)]:
        future.cancel()
    await b.work()
    assert not b.executor.waiting
    late = b.batcher.submit(4)
    await settle()
    await b.work()
    assert late.result() == 40
    assert b.decide.batches == [[1], [4]]


async def test_a_caller_that_leaves_during_the_work_harms_neither_batch_nor_loop(b: Bench) -> None:
    leaving, staying = b.batcher.submit(1), b.batcher.submit(2)
    await settle()
    leaving.cancel()
    await b.work()
    assert staying.result() == 20
    after = b.batcher.submit(3)
    await settle()
    await b.work()
    assert after.result() == 30


async def test_a_caller_that_times_out_withdraws_its_request(b: Bench) -> None:
    b.batcher.submit(1)
    await settle()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(b.batcher.submit(2), timeout=0.001)
    await b.work()
    assert b.decide.batches == [[1]]
    assert not b.executor.waiting


async def test_a_request_that_waited_too_long_is_given_up_and_those_behind_it_are_served() -> None:
    b = bench(max_batch=2, max_wait_s=0.5)
    first = b.batcher.submit(1)
    await settle()
    waiting = [b.batcher.submit(number) for number in (2, 3, 4)]
    b.clock.now += 0.51
    late = b.batcher.submit(5)
    await b.work()
    assert first.result() == 10  # at work in time: how long that takes is another matter
    for future in waiting:
        with pytest.raises(OverloadedError, match=r"waited longer than 0\.5 s") as caught:
            future.result()
        assert caught.value.retry_after_s is not None
    await b.work()
    assert late.result() == 50
    assert b.decide.batches == [[1], [5]]  # the others cost nothing
    assert b.told == [(1, 0), (1, 0)]
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_when_all_waited_too_long_no_batch_is_made_and_the_next_caller_is_served() -> None:
    b = bench(max_wait_s=0.2)
    b.batcher.submit(1)
    await settle()
    tired = b.batcher.submit(2)
    b.clock.now += 0.21
    await b.work()
    assert isinstance(tired.exception(), OverloadedError)
    assert not b.executor.waiting
    after = b.batcher.submit(3)
    await settle()
    await b.work()
    assert after.result() == 30
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_a_batch_that_wants_to_end_the_process_ends_nothing_but_itself(b: Bench) -> None:
    def leave(_: Sequence[int]) -> Sequence[int]:
        raise SystemExit(3)

    good, b.decide.answer = b.decide.answer, leave
    lost = b.batcher.submit(1)
    await settle()
    await b.work()
    with pytest.raises(RuntimeError, match="SystemExit"):
        lost.result()
    b.decide.answer = good
    after = b.batcher.submit(2)
    await settle()
    await b.work()
    assert after.result() == 20


@pytest.mark.parametrize("swift", [False, True])
async def test_who_cannot_be_told_keeps_nobody_else_waiting(swift: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Deaf:
        def done(self) -> bool:
            return False

        def set_result(self, result: int, /) -> None:
            raise ConnectionError(f"cannot hear {result}")

        def set_exception(self, exception: Exception, /) -> None:
            raise exception

    b = bench(at_once=lambda _: swift)
    b.batcher.put(1, Deaf())
    others = [] if swift else [b.batcher.submit(2)]
    await settle()
    if not swift:
        await b.work()
    assert "cannot hear 10" in caplog.text
    assert [other.result() for other in others] == [20] * len(others)
    after = b.batcher.submit(3)
    await settle()
    if not swift:
        await b.work()
    assert after.result() == 30
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_a_failed_batch_tells_its_own_callers_and_spares_the_next(b: Bench) -> None:
    def fail(_: Sequence[int]) -> Sequence[int]:
        raise ZeroDivisionError("this batch alone")

    good, b.decide.answer = b.decide.answer, fail
    lost = [b.batcher.submit(number) for number in (1, 2)]
    left = b.batcher.submit(3)
    await settle()
    left.cancel()
    await b.work()
    for future in lost:
        with pytest.raises(ZeroDivisionError, match="this batch alone"):
            future.result()
    b.decide.answer = good
    after = b.batcher.submit(4)
    await settle()
    await b.work()
    assert after.result() == 40


async def test_a_swift_request_is_decided_without_a_thread_when_it_is_alone_and_only_then() -> None:
    b = bench(at_once=lambda number: number < 10)
    alone = b.batcher.submit(1)
    await settle()
    assert alone.result() == 10
    slow = b.batcher.submit(11)
    await settle()
    together = [b.batcher.submit(number) for number in (2, 3)]
    await settle()
    assert not slow.done()
    await b.work()
    assert not any(future.done() for future in together)
    await b.work()
    assert [future.result() for future in (slow, *together)] == [110, 20, 30]
    assert b.decide.batches == [[1], [11], [2, 3]]
    assert b.told == [(1, 0), (1, 0), (2, 0)]
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


async def test_a_swift_request_that_fails_tells_its_caller_and_spares_the_next() -> None:
    b = bench(at_once=lambda _: True)

    def fail(_: Sequence[int]) -> Sequence[int]:
        raise ZeroDivisionError("this one alone")

    good, b.decide.answer = b.decide.answer, fail
    lost = b.batcher.submit(1)
    await settle()
    with pytest.raises(ZeroDivisionError, match="this one alone"):
        lost.result()
    b.decide.answer = good
    after = b.batcher.submit(2)
    await settle()
    assert after.result() == 20
    b.loop_task.cancel()
    with suppress(asyncio.CancelledError):
        await b.loop_task


@pytest.mark.parametrize("answers", [[], [10], [10, 20, 30]])
async def test_a_wrong_number_of_answers_is_an_error_and_never_somebody_elses_answer(
    b: Bench, answers: list[int]
) -> None:
    b.decide.answer = lambda _: answers
    futures = [b.batcher.submit(number) for number in (1, 2)]
    await settle()
    await b.work()
    for future in futures:
        with pytest.raises(RuntimeError, match="2 requests"):
            future.result()
    assert not b.loop_task.done()


async def test_the_loop_ends_when_it_is_cancelled(b: Bench) -> None:
    b.batcher.submit(1)
    await settle()
    b.loop_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await b.loop_task


async def test_real_threads_and_many_callers_get_each_their_own_answer() -> None:
    with ThreadPoolExecutor(1) as executor:
        decide = Deciding()
        batcher: Batcher[int, int] = Batcher(decide, executor, max_batch=16, max_queue=1000, max_wait_s=PATIENCE_S)
        loop_task = asyncio.create_task(batcher.run())
        futures = [batcher.submit(number) for number in range(1000)]
        assert await asyncio.gather(*futures) == [10 * number for number in range(1000)]
        assert max(len(batch) for batch in decide.batches) <= 16
        loop_task.cancel()
        with suppress(asyncio.CancelledError):
            await loop_task


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Arrivals, departures, finished and failed batches in any order: what each caller gets is foretold."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = self.run(self._start())
        self.futures: dict[int, asyncio.Future[int]] = {}
        self.failed: set[int] = set()
        self.number = 0

    async def _start(self) -> Bench:
        made = bench(max_batch=3, max_queue=5, at_once=lambda number: number % 3 == 0)
        await settle()
        return made

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def _submit(self) -> None:
        full = len(self.bench.batcher) >= 5
        self.number += 1
        try:
            self.futures[self.number] = self.bench.batcher.submit(self.number)
        except OverloadedError:
            assert full
        else:
            assert not full

    @rule(count=st.integers(1, 7), at_once=st.booleans())
    def arrive(self, count: int, at_once: bool) -> None:
        async def arriving() -> None:
            for _ in range(count):
                await self._submit()
                if not at_once:
                    await settle()
            await settle()

        self.run(arriving())

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.futures[data.draw(st.sampled_from(sorted(self.futures)))].cancel()

    @precondition(lambda self: self.bench.executor.waiting)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        def answer(batch: Sequence[int]) -> Sequence[int]:
            if fails:
                self.failed.update(batch)
                raise ValueError("told to fail")
            return [10 * number for number in batch]

        self.bench.decide.answer = answer
        self.run(self.bench.work())

    @invariant()
    def callers_have_what_is_theirs(self) -> None:
        for number, future in self.futures.items():
            if future.done() and not future.cancelled():
                if number in self.failed:
                    assert isinstance(future.exception(), ValueError)
                else:
                    assert future.result() == 10 * number

    @invariant()
    def batches_are_capped_in_order_and_never_repeat_a_request(self) -> None:
        decided = [number for batch in self.bench.decide.batches for number in batch]
        assert decided == sorted(set(decided))
        assert all(1 <= len(batch) <= 3 for batch in self.bench.decide.batches)
        assert len(self.bench.executor.waiting) <= 1

    def teardown(self) -> None:
        async def drain() -> None:
            self.bench.decide.answer = lambda batch: [10 * number for number in batch]
            while self.bench.executor.waiting:
                await self.bench.work()
            assert all(future.done() for future in self.futures.values())  # nobody waits for ever
            self.bench.loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self.bench.loop_task

        self.run(drain())
        self.callers_have_what_is_theirs()
        self.loop.close()


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
