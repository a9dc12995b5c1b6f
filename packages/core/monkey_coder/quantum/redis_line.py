"""A line to a server: one thread that asks it one thing after the other, and knows when it is not worth asking.

Who gives it a job waits for the result as long as they like, or not at all; the thread itself is bound by the time-outs
of the client alone. After trouble nobody should submit any more; the line tries again after pauses that double.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Any, Final

from monkey_coder.ports import Clock

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
MOST_JOBS: Final = 64
"""Jobs that may wait for the thread; further ones are dropped."""
MOST_LATE: Final = 3
"""Answers in a row that may come late, until nobody should wait for them any more."""
IDLE_S: Final = 1.0
"""How often the thread looks up when there is nothing to do."""
SILENCE_S: Final = 10.0
"""Time between two lines about trouble in the log."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    due: float = float("inf")
    result: Future[Any] = field(default_factory=Future)


class RedisLine:
    """Does jobs in a thread of its own. Safe to use from any thread.

    Args:
        name: Of the thread.
        clock: Monotonic seconds.
        probe: Tries the server after trouble; raises if there still is some.
        probe_s: What comes later than this from a probe is no recovery.
        mend: Called after a job failed, before the next.
        counts: Is told of every `error` and `dropped` job.
        tend: Called after each job, and now and then between them; may use the server, and raise.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        probe: Callable[[], object],
        probe_s: float,
        mend: Callable[[], None],
        counts: Counter[str],
        tend: Callable[[], object] | None = None,
    ) -> None:
        self._clock, self._probe, self._probe_s = clock, probe, probe_s
        self._mend, self._counts, self._tend = mend, counts, tend
        self._jobs: Queue[_Job | None] = Queue(MOST_JOBS)
        self._patience = _Patience(clock)
        self._said_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def failing(self) -> bool:
        """Whether the server failed at the last try."""
        return self._patience.failing

    @property
    def given_up(self) -> bool:
        """Whether nobody but the line itself should try the server."""
        return self._patience.given_up

    def submit(self, work: Callable[[], Any], due: float = float("inf")) -> Future[Any] | None:
        """Have something done; None when too much waits already.

        Args:
            work: What to do at the server.
            due: By the clock; what is done later does not count as success.
        """
        job = _Job(work, due)
        try:
            self._jobs.put_nowait(job)
        except Full:
            self._counts["dropped"] += 1
            return None
        return job.result

    def succeeded(self) -> None:
        """Note that the server answered in time whoever asked it directly."""
        self._patience.good()

    def failed(self, what: str, *, late: bool = False) -> None:
        """Note trouble that whoever waited for a result had with it."""
        self._patience.bad(late=late)
        now = self._clock()
        if self._patience.given_up and now - self._said_at >= SILENCE_S:
            self._said_at = now
            _log.warning("the shared cache is left alone for a while: %s", what)

    def close(self, within_s: float) -> None:
        """Do what waits, then end; what takes longer than this is left."""
        try:
            self._jobs.put(None, timeout=within_s)
        except Full:  # the server hangs, and the thread with it: it ends with the process
            return
        self._thread.join(within_s)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=FIRST_PAUSE_S / 4 if self.failing else IDLE_S)
            except Empty:
                if self._patience.due(self._clock()):
                    self._do(_Job(self._probe, self._clock() + self._probe_s))
            else:
                if job is None:
                    return
                self._do(job)
            if self._tend is not None and not self.failing:
                self._do(_Job(self._tend))

    def _do(self, job: _Job) -> None:
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001 - whatever the server made of it must not end this thread
            self._counts["error"] += 1
            self.failed(f"{type(error).__name__}: {error}")
            self._mend()
            job.result.set_exception(error)
        else:
            if self._clock() <= job.due:  # who comes late has failed, and is not good again by coming at all
                self._patience.good()
            job.result.set_result(result)


class _Patience:
    """Whether something failed, and when to try it again. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._given_up = False
        self._retry_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def failing(self) -> bool:
        """Whether it failed the last time."""
        return self._failures > 0

    @property
    def given_up(self) -> bool:
        """Whether it is not to be tried any more but by those who look whether it works again."""
        return self._given_up

    def due(self, now: float) -> bool:
        """Whether it failed, and it is time to try again."""
        return self._failures > 0 and now >= self._retry_at

    def good(self) -> None:
        """Note that it works."""
        if self._failures:
            with self._lock:
                self._failures = 0
                self._given_up = False

    def bad(self, *, late: bool) -> None:
        """Note a failure; who was only late, as happens on a busy machine, gets another chance."""
        with self._lock:
            self._failures += 1
            self._given_up |= not late or self._failures >= MOST_LATE
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 30))
            self._retry_at = self._clock() + pause_s
