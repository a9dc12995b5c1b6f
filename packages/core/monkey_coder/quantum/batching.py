"""Natural batching: while one batch is being decided the next one gathers; an idle engine starts at once.

Batches are decided in a thread of their own, so that the event loop goes on reading, and refusing. A request that is
alone need not go there: to hand it over and back takes a tenth of a millisecond, which is much of what it waits for.

Nobody waits for a batch to grow, unless requests come so often of themselves that it is worthwhile (`gathering`).

The queue is bounded. Past its bound a request is turned away immediately, so that those accepted keep their
latency. Callers that went away before their turn are dropped and cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from time import monotonic
from typing import Generic, Protocol, TypeVar

from monkey_coder.errors import OverloadedError
from monkey_coder.ports import Clock
from monkey_coder.quantum.gathering import Gathering

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Told = TypeVar("Told", contravariant=True)


class Waiting(Protocol[Told]):
    """Whoever waits for an answer. A future does; what is told here must not raise."""

    def done(self) -> bool:
        """Whether nothing is waited for any more."""
        ...

    def set_result(self, result: Told, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take what went wrong."""
        ...


_Batch = Sequence[tuple[Request, Waiting[Answer]]]

_log = logging.getLogger(__name__)


class Batcher(Generic[Request, Answer]):
    """Gathers single requests into batches and hands each caller its own answer.

    Belongs to one event loop; `run` must be running there. The work itself happens in `executor`.

    Args:
        decide: Answers a batch; returns one answer per request, in order. Called in the executor.
        executor: Where `decide` runs, off the event loop.
        max_batch: Requests decided together at the most.
        max_queue: Requests that may wait; further ones raise `OverloadedError`.
        max_wait_s: Seconds after which a waiting request is given up with `OverloadedError`.
        on_batch: Told the size of every batch and of the queue behind it.
        at_once: Says of a request that is alone whether to decide it in the event loop itself, for that is a matter of
            a millisecond and cannot get stuck: to hand it to another thread and back takes a tenth of one. None: of no
            request.
        gathering: Says how long a batch gathers before it is decided. None: not at all.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[Request]], Sequence[Answer]],
        executor: Executor,
        *,
        max_batch: int = 64,
        max_queue: int = 2048,
        max_wait_s: float = 5.0,
        on_batch: Callable[[int, int], None] | None = None,
        at_once: Callable[[Request], bool] | None = None,
        gathering: Gathering | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._decide = decide
        self._executor = executor
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_wait_s = max_wait_s
        self._on_batch = on_batch
        self._at_once = at_once
        self._gathering = gathering
        self._enough = asyncio.Event()
        self._clock = clock
        self._queue: deque[tuple[Request, Waiting[Answer], float]] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether another request would be turned away."""
        return len(self._queue) >= self._max_queue

    def submit(self, request: Request) -> asyncio.Future[Answer]:
        """Queue a request; cancelling the future withdraws it.

        Raises:
            OverloadedError: The queue is full.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.put(request, future)
        return future

    def put(self, request: Request, waiting: Waiting[Answer], *, unprompted: bool = False) -> None:
        """Queue a request for somebody who waits for it by other means than a future.

        Args:
            request: To be decided.
            waiting: Is told, in the event loop, unless it is done by then.
            unprompted: Whether it came of itself, and not because its caller has just been answered.

        Raises:
            OverloadedError: The queue is full.
        """
        if self.full:
            raise OverloadedError
        self._queue.append((request, waiting, self._clock() + self._max_wait_s))
        self._arrived.set()
        if self._gathering is not None:
            if unprompted:
                self._gathering.arrived()
            if len(self._queue) >= self._gathering.options.enough:
                self._enough.set()

    async def run(self) -> None:
        """Decide batches until cancelled."""
        while True:
            await self._arrived.wait()
            await self._gather()
            if self._gathering is not None and await self._company(self._gathering):
                await self._gather()
            batch = self._next_batch()
            if len(batch) == 1 and self._at_once is not None and self._at_once(batch[0][0]):
                _hand_out(batch, self._answers(batch))
            elif batch:
                await self._answer(batch)

    async def _gather(self) -> None:
        """Take in what has arrived at the sockets already: a turn of the event loop, for as long as it brings more.

        Deciding competes with reading for the interpreter; without this, a busy loop sees its arrivals in driblets,
        and pays the fixed price of a batch for each.
        """
        known = 0
        while known < len(self._queue) < self._max_batch:
            known = len(self._queue)
            await asyncio.sleep(0)

    async def _company(self, gathering: Gathering) -> bool:
        """Let company come to those who wait, if that is worthwhile; returns whether it was."""
        waited_s = self._clock() + self._max_wait_s - self._queue[0][2]
        pause_s = gathering.pause_s(len(self._queue), waited_s)
        if pause_s <= 0.0:
            return False
        self._enough.clear()
        timer = asyncio.get_running_loop().call_later(pause_s, self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()
        return True

    def _next_batch(self) -> list[tuple[Request, Waiting[Answer]]]:
        batch: list[tuple[Request, Waiting[Answer]]] = []
        now = self._clock()
        while self._queue and len(batch) < self._max_batch:
            request, waiting, give_up_at = self._queue.popleft()
            if waiting.done():
                continue
            if give_up_at < now:
                waiting.set_exception(OverloadedError(f"the request waited longer than {self._max_wait_s:g} s"))
            else:
                batch.append((request, waiting))
        if not self._queue:
            self._arrived.clear()
        if self._on_batch is not None and batch:
            self._on_batch(len(batch), len(self._queue))
        return batch

    async def _answer(self, batch: _Batch[Request, Answer]) -> None:
        """Have a batch decided, and wait until its answers have been handed out."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        try:
            self._executor.submit(self._work, batch, loop, over)
        except RuntimeError as error:  # it is shut down, and will not come back
            _hand_out(batch, error, over)
        await over

    def _work(
        self, batch: _Batch[Request, Answer], loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]
    ) -> None:
        """Decide a batch, in the executor; straight back to the loop, for every detour costs another of its turns."""
        answers = self._answers(batch)
        with suppress(RuntimeError):  # the loop is closed, and nobody is left to answer
            loop.call_soon_threadsafe(_hand_out, batch, answers, over)

    def _answers(self, batch: _Batch[Request, Answer]) -> Sequence[Answer] | Exception:
        """One answer to each request; or what broke the batch, for its callers: the next one is spared."""
        try:
            answers = self._decide([request for request, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} requests got {len(answers)} answers")  # noqa: TRY301 - for callers
        except Exception as error:  # noqa: BLE001 - whatever it was
            return error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - not even who wants to end the process may keep callers waiting
            return RuntimeError(f"the batch was ended by {error!r}")
        return answers


def _hand_out(
    batch: _Batch[Request, Answer], answers: Sequence[Answer] | Exception, over: asyncio.Future[None] | None = None
) -> None:
    """Give every caller who still waits the answer to its request, or what broke the batch."""
    if isinstance(answers, Exception):
        for _, waiting in batch:
            if not waiting.done():
                waiting.set_exception(answers)
    else:
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if not waiting.done():
                try:
                    waiting.set_result(answer)
                except Exception:  # noqa: BLE001 - who cannot be told must not keep all others waiting for ever
                    _log.exception("a caller could not be told its answer")
    if over is not None and not over.done():
        over.set_result(None)
