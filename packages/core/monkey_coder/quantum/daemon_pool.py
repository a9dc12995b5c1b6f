"""A bounded pool of threads that the process does not wait for when it ends.

The standard library's pool joins its threads when the interpreter exits, so that one job that never returns keeps the
process for ever. A strategy is somebody's plug-in and may do just that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

_log = logging.getLogger(__name__)


class DaemonPool:
    """Runs jobs on at most `workers` threads, which are started when there is work for them.

    Safe to use from any thread. What a job raises is logged: nobody waits for it here.

    Args:
        workers: Most threads.
        name: Prefix of their names.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._workers = workers
        self._name = name
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0
        self._closed = False

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job as soon as a thread is free.

        Raises:
            RuntimeError: The pool is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._jobs.put(job)
            if self._idle:
                self._idle -= 1
            elif self._started < self._workers:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}_{self._started}", daemon=True).start()

    def close(self) -> None:
        """Drop the jobs that wait, and let every thread end after the job at hand; does not wait for that."""
        with self._lock:
            self._closed = True
            while not self._jobs.empty():
                self._jobs.get()
            for _ in range(self._started):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - a thread that ended would be missing from the pool
                _log.exception("a job failed")
            del job  # what it holds need not outlive it
            with self._lock:
                self._idle += 1
