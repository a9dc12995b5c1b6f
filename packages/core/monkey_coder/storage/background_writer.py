"""Takes rows on the request path in next to no time, and writes them in bulk from a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from monkey_coder.errors import RouterError, StoreUnavailableError
from monkey_coder.storage.port import Appended, DecisionRow, OutcomeRow, Store

_LOG = logging.getLogger(__name__)

_BULK: Final = 2_000
"""Decisions a step; a longer one would keep outcomes waiting."""
_BULK_BYTES: Final = 32 * 1024 * 1024
"""Bytes a step, or little more: a decision among two thousand models takes 130 kB."""
_STRETCH_S: Final = 1e-3
"""For how long rows are made between two breaths. After each the caches are cold: with a tenth of this, a row beside
lone requests took three times the work, and such a request half as much time again."""
_BREATH_S: Final = 1e-4
"""Long enough for whoever waits for the interpreter to get it: rows are made in Python, and requests must not queue
behind a thousand of them."""
_LONGEST_PAUSE_S: Final = 5.0
_TRIM_BUDGET_S: Final = 0.05

Pending = DecisionRow | Callable[[], DecisionRow]
"""A row, or what makes one; that is called in the writer's thread."""


class BackgroundWriter:
    """Writes decisions every `flush_every_s`, outcomes at once, and keeps the store within its retention.

    No method but `close` waits, and none raises. While the store is unavailable decisions wait for it, the
    oldest being dropped beyond the bound; outcomes fail, so that nobody is told that they are safe.

    Attributes:
        max_decisions: How many may wait; may be changed at any time.
    """

    def __init__(
        self,
        store: Store,
        on_error: Callable[[Exception], None],
        wall_clock: Callable[[], float],
        *,
        max_decisions: int = 50_000,
        max_outcomes: int = 20_000,
        flush_every_s: float = 0.2,
        trim_every_s: float = 5.0,
    ) -> None:
        """Start the thread.

        Args:
            store: Where rows go; the caller closes it, after this.
            on_error: Told of everything that went wrong, in the writer's thread.
            wall_clock: Seconds since 1970, for the retention.
            max_decisions: How many may wait; beyond, the oldest are dropped and counted.
            max_outcomes: How many may wait; beyond, new ones fail.
            flush_every_s: A decision is readable this long after it was put, and the time to write it.
            trim_every_s: Pause between looks at the retention.
        """
        self._store, self._on_error, self._now = store, on_error, wall_clock
        self.max_decisions, self._max_outcomes = max_decisions, max_outcomes
        self._flush_every_s, self._trim_every_s = flush_every_s, trim_every_s
        self._queue: deque[Pending] = deque()
        self._batch: list[DecisionRow] = []  # taken from the queue, not yet written
        self._making = 0  # 1 while a row is in neither
        self._heavy = False  # whether the last bulk was bounded by its bytes
        self._outcomes: list[tuple[Sequence[OutcomeRow], Future[Sequence[Appended | Exception]]]] = []
        self._reports = 0  # in them
        self._lock = threading.Lock()  # guards outcomes, reports, dropped, closed
        self._wake = threading.Event()
        self._dropped = 0
        self._closed = False
        self._deadline: float | None = None  # set by close
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Decisions that were lost so far: too many waiting, or impossible to store."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Decisions that are not written yet."""
        return len(self._queue) + self._making + len(self._batch)  # in the order in which a row moves on

    def put(self, row: Pending) -> None:
        """Take a decision; it is readable soon, unless `dropped` counts it."""
        self._queue.append(row)
        if len(self._queue) > self.max_decisions or self._closed:
            self._drop_oldest()

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> Future[Sequence[Appended | Exception]]:
        """Take reports; the future says what became of each, in order, once those that were stored are durable.

        Reports of all callers that wait together are made durable together. Cancelling has no effect, and the future
        never fails: what kept a report from being stored stands in its place.
        """
        future: Future[Sequence[Appended | Exception]] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            refused = self._closed or self._reports + len(rows) > self._max_outcomes
            if not refused:
                self._outcomes.append((rows, future))
                self._reports += len(rows)
        if refused:
            error = StoreUnavailableError("outcomes arrive faster than they can be stored; try again")
            future.set_result([error] * len(rows))
        else:
            self._wake.set()
        return future

    def close(self, timeout_s: float = 10.0) -> None:
        """Write all that waits, and end the thread.

        Args:
            timeout_s: What an unavailable store has kept waiting for this long is given up: decisions are counted
                as dropped, outcomes fail.
        """
        self._deadline = time.monotonic() + timeout_s
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        now = time.monotonic()
        flush_at, trim_at, pause_s = now + self._flush_every_s, now + self._trim_every_s, self._flush_every_s
        while self._deadline is None:
            self._wake.wait(max(0.0, flush_at - time.monotonic()))
            self._wake.clear()
            self._write_outcomes()
            if time.monotonic() >= flush_at:
                written = self._write_decisions()
                pause_s = self._flush_every_s if written else min(2 * pause_s, _LONGEST_PAUSE_S)
                behind = written and (len(self._queue) >= _BULK or (self._heavy and bool(self._queue)))
                flush_at = time.monotonic() + (0.0 if behind else pause_s)
                if written and not behind and time.monotonic() >= trim_at:
                    trim_at = time.monotonic() + (self._trim_every_s if self._trim() else self._flush_every_s)
        self._finish(self._deadline)

    def _finish(self, deadline: float) -> None:
        while True:
            self._write_outcomes()
            written = self._write_decisions()
            if not self.waiting or time.monotonic() >= deadline:
                break
            if not written:
                time.sleep(min(self._flush_every_s, max(0.0, deadline - time.monotonic())))
        with self._lock:
            self._closed = True
            self._dropped += len(self._batch)
            self._batch = []
        while self._queue:
            self._drop_oldest()
        self._write_outcomes()  # those that came in between

    def _write_outcomes(self) -> None:
        with self._lock:
            taken, self._outcomes = self._outcomes, []
            self._reports = 0
        if not taken:
            return
        rows = [row for lot, _ in taken for row in lot]
        results: Sequence[Appended | Exception]
        try:
            results = self._store.append_outcomes(rows)
        except RouterError as error:
            self._report(error)
            results = [error] * len(rows)
        except Exception:  # noqa: BLE001 - whatever one report is, it must not stand in the way of the others
            results = [self._write_outcome(row) for row in rows]
        start = 0
        for lot, future in taken:
            future.set_result(results[start : start + len(lot)])
            start += len(lot)

    def _write_outcome(self, row: OutcomeRow) -> Appended | Exception:
        try:
            return self._store.append_outcomes([row])[0]
        except Exception as error:  # noqa: BLE001 - its reporter is told, whatever it is
            self._report(error)
            return error

    def _write_decisions(self) -> bool:
        """Write one bulk; False when the store did not take it, and it waits on."""
        if not self._batch:
            self._take()
        try:
            if self._batch:
                self._store.append_decisions(self._batch)
        except RouterError as error:
            self._report(error)
            return False
        except Exception:  # noqa: BLE001 - whatever one row is, it must not stand in the way of the others
            while self._batch:
                try:
                    self._store.append_decisions(self._batch[:1])
                except RouterError as error:
                    self._report(error)
                    return False
                except Exception as error:  # noqa: BLE001 - this is the row
                    self._drop(error)
                del self._batch[0]
        self._batch = []
        return True

    def _take(self) -> None:
        """Move one bulk from the queue to the batch."""
        rested, size = time.perf_counter(), 0
        while self._queue and len(self._batch) < _BULK and size < _BULK_BYTES:
            self._making = 1
            with suppress(IndexError):  # `put` dropped it meanwhile
                size += self._make(self._queue.popleft())
            self._making = 0
            if time.perf_counter() - rested > _STRETCH_S:
                time.sleep(_BREATH_S)
                rested = time.perf_counter()
        self._heavy = size >= _BULK_BYTES

    def _make(self, pending: Pending) -> int:
        """Add a row to the batch; returns its bytes."""
        try:
            row = pending if isinstance(pending, DecisionRow) else pending()
        except Exception as error:  # noqa: BLE001 - a row that cannot be made is lost, and no other
            self._drop(error)
            return 0
        self._batch.append(row)
        return len(row.payload)

    def _trim(self) -> bool:
        """Remove what is beyond the retention, for a short while; returns whether that was all."""
        until = time.monotonic() + _TRIM_BUDGET_S
        try:
            while self._store.trim(self._now()):
                if time.monotonic() >= until:
                    return False
        except Exception as error:  # noqa: BLE001 - keeping within bounds must not end the writing
            self._report(error)
        return True

    def _drop(self, error: Exception) -> None:
        with self._lock:
            self._dropped += 1
        self._report(error)

    def _drop_oldest(self) -> None:
        with self._lock, suppress(IndexError):  # the writer took it meanwhile
            self._queue.popleft()
            self._dropped += 1

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:  # noqa: BLE001 - a listener that fails must not end the writing
            _LOG.exception("the error listener of the background writer failed")
