"""Reports of many callers made durable together: it costs a store nearly as much to make one safe as to make fifty."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from monkey_coder.storage.port import Appended, OutcomeRow

Result = Appended | Exception
"""What became of a report, or what kept it from being stored."""

GATHER_S: Final = 0.01
"""How long reports are gathered that come soon after others; a single one goes to the store at once."""

MOST_TOGETHER: Final = 2_000
"""Reports of different callers that go to the store together: where it has no room for more, only these are refused."""


class Reporting(Protocol):
    """Whoever waits to hear of reports. A future does; what is told here must not raise."""

    def done(self) -> bool:
        """Whether nothing is waited for any more."""
        ...

    def set_result(self, results: Sequence[Result], /) -> None:
        """Take what became of each report, in order."""
        ...


_Group = Sequence[tuple[Sequence[OutcomeRow], Reporting]]


class ReportGroups:
    """Hands reports to a writer in groups. For one event loop.

    Args:
        put: Takes a group; the future is done when each of them is durable, or was refused.
        expect: Told of every group before it is handed on.
        written: Told what became of every group.
        gather_s: Pause between two groups.
    """

    def __init__(
        self,
        put: Callable[[Sequence[OutcomeRow]], Future[Sequence[Result]]],
        expect: Callable[[Sequence[OutcomeRow]], None] = lambda _: None,
        written: Callable[[Sequence[Result]], None] = lambda _: None,
        gather_s: float = GATHER_S,
    ) -> None:
        self._put, self._expect, self._written, self._gather_s = put, expect, written, gather_s
        self._waiting: list[tuple[Sequence[OutcomeRow], Reporting]] = []
        self._gathering = False

    def store(self, rows: Sequence[OutcomeRow]) -> asyncio.Future[Sequence[Result]]:
        """Store reports; the future says what became of each, in order. Cancelling it has no effect on the store."""
        told: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self.put(rows, told)
        return told

    def put(self, rows: Sequence[OutcomeRow], waiting: Reporting) -> None:
        """Store reports for somebody who waits to hear of them by other means than a future.

        Args:
            rows: The reports of one caller.
            waiting: Is told, in the event loop, unless it is done by then.
        """
        self._waiting.append((rows, waiting))
        if not self._gathering:
            self._send(asyncio.get_running_loop())

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand on what waits, and gather what comes next for a while."""
        waiting, self._waiting = self._waiting, []
        self._gathering = bool(waiting)
        if waiting:
            loop.call_later(self._gather_s, self._send, loop)
        for group in _parted(waiting):
            rows = [row for each, _ in group for row in each]
            self._expect(rows)
            self._put(rows).add_done_callback(
                lambda done, group=group: loop.call_soon_threadsafe(self._tell, group, done)  # type: ignore[misc]
            )

    def _tell(self, group: _Group, stored: Future[Sequence[Result]]) -> None:
        """Say to each caller what became of its own reports."""
        results, start = stored.result(), 0
        self._written(results)
        for rows, waiting in group:
            if not waiting.done():  # its caller may have gone away
                waiting.set_result(results[start : start + len(rows)])
            start += len(rows)


def _parted(waiting: _Group) -> Iterator[_Group]:
    """Groups that are not too large, unless one caller's reports alone are."""
    begin = size = 0
    for place, (rows, _) in enumerate(waiting):
        if size and size + len(rows) > MOST_TOGETHER:
            yield waiting[begin:place]
            begin, size = place, 0
        size += len(rows)
    if size:
        yield waiting[begin:]
