"""A batcher whose executor works only when told to, so that a test can say what happens in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from builders import SetClock

from monkey_coder.quantum.batching import Batcher
from monkey_coder.quantum.gathering import Gathering


@dataclass
class OnDemand(Executor):
    """Keeps what it is given until `work` is called."""

    waiting: deque[tuple[Future[Any], Callable[[], Any]]] = field(default_factory=deque)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        future, call = self.waiting.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)


class Deciding:
    """Answers n with 10 * n, and notes every batch; raises or answers wrongly when told so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.answer: Callable[[Sequence[int]], Sequence[int]] = lambda batch: [10 * number for number in batch]

    def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(batch))
        return self.answer(batch)


@dataclass
class Bench:
    """A running batcher with everything around it in the test's hands."""

    batcher: Batcher[int, int]
    executor: OnDemand
    decide: Deciding
    told: list[tuple[int, int]]
    loop_task: asyncio.Task[None]
    clock: SetClock

    async def work(self) -> None:
        """Let the batch at work end, and the next one form."""
        self.executor.work()
        await settle()


async def settle() -> None:
    """Let everything happen that can happen without work being done."""
    for _ in range(10):
        await asyncio.sleep(0)


def bench(
    max_batch: int = 4,
    max_queue: int = 6,
    max_wait_s: float = 60.0,
    at_once: Callable[[int], bool] | None = None,
    gathering: Gathering | None = None,
) -> Bench:
    executor, decide, told, clock = OnDemand(), Deciding(), [], SetClock()
    batcher: Batcher[int, int] = Batcher(
        decide,
        executor,
        max_batch=max_batch,
        max_queue=max_queue,
        max_wait_s=max_wait_s,
        on_batch=lambda size, waiting: told.append((size, waiting)),
        at_once=at_once,
        gathering=gathering,
        clock=clock,
    )
    return Bench(batcher, executor, decide, told, asyncio.get_running_loop().create_task(batcher.run()), clock)
