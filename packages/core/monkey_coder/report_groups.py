"""Reports of many callers made durable together: it costs a store nearly as much to make one safe as to make fifty."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from monkey_coder.storage.port import Appended, OutcomeRow

Result = Appended | Exception
"""What became of a report, or what kept it from being stored."""

GATHER_S: Final = 0.01
"""How long reports are gathered that come soon after others; a single one goes to the store at once."""


class ReportGroups:
    """Hands reports to a writer in groups. For one event loop.

    Args:
        put: Takes a group; the future is done when each of them is durable, or was refused.
        gather_s: Pause between two groups.
    """

    def __init__(
        self, put: Callable[[Sequence[OutcomeRow]], Future[Sequence[Result]]], gather_s: float = GATHER_S
    ) -> None:
        self._put, self._gather_s = put, gather_s
        self._waiting: list[tuple[Sequence[OutcomeRow], asyncio.Future[Sequence[Result]]]] = []
        self._gathering = False

    def store(self, rows: Sequence[OutcomeRow]) -> asyncio.Future[Sequence[Result]]:
        """Store reports; the future says what became of each, in order. Cancelling it has no effect on the store."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Sequence[Result]] = loop.create_future()
        self._waiting.append((rows, told))
        if not self._gathering:
            self._send(loop)
        return told

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand on what waits, and gather what comes next for a while."""
        group, self._waiting = self._waiting, []
        self._gathering = bool(group)
        if group:
            loop.call_later(self._gather_s, self._send, loop)
            written = self._put([row for rows, _ in group for row in rows])
            written.add_done_callback(lambda done: loop.call_soon_threadsafe(_tell, group, done))


def _tell(
    group: Sequence[tuple[Sequence[OutcomeRow], asyncio.Future[Sequence[Result]]]], written: Future[Sequence[Result]]
) -> None:
    """Say to each caller what became of its own reports."""
    results, start = written.result(), 0
    for rows, told in group:
        if not told.done():  # its caller may have gone away
            told.set_result(results[start : start + len(rows)])
        start += len(rows)
