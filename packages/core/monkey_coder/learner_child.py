"""The learner as a child of `serve`: started, watched, started again, and ended with it."""

from __future__ import annotations

import logging
import platform
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from monkey_coder.ports import Clock

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
WELL_S: Final = 60.0
"""A learner that ran for so long was well: when it ends, the next one starts after the first pause again."""
PATIENCE_S: Final = 8.0

_log = logging.getLogger("uvicorn.error")


class LearnerChild:
    """Keeps one learner process running, from a thread of its own.

    The child ends when its standard input does, so it does not outlive this process, whatever becomes of it. All
    children of one keeper have one name, so that the next one need not wait for the lease of one that was killed.

    Args:
        clock: Monotonic seconds.
        command: What to run; default: a learner.
        first_pause_s: Before it is started again.
        patience_s: How long it may take to end before it is killed, which loses nothing.
    """

    def __init__(
        self,
        clock: Clock,
        command: Sequence[str] | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        owner = f"{platform.node()}:{secrets.token_hex(6)}"
        self._command = list(
            command or (sys.executable, "-m", "monkey_coder.cli", "learn", "--until-eof", "--owner", owner)
        )
        self._clock = clock
        self._first_pause_s, self._patience_s = first_pause_s, patience_s
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="learner", daemon=True)

    @property
    def running(self) -> bool:
        """Whether there is a learner at this moment."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the learner, and watch it from now on."""
        self._thread.start()

    def close(self) -> None:
        """End the learner."""
        self._stop.set()
        process = self._process
        if process is not None:
            _close_input(process)
            try:
                process.wait(self._patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _keep(self) -> None:
        pause = self._first_pause_s
        while not self._stop.is_set():
            began, code = self._clock(), -1
            try:
                # a process group of its own: Ctrl-C is for the server, which ends its learner last
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - our own
            except OSError as error:
                _log.error("the learner cannot be started: %s", error)
            else:
                if self._stop.is_set():  # asked to end meanwhile
                    _close_input(self._process)
                code = self._process.wait()
                _close_input(self._process)
            if self._stop.is_set():
                return
            pause = self._first_pause_s if self._clock() - began >= WELL_S else pause
            _log.warning("the learner ended with %d and is started again in %.0f s", code, pause)
            self._stop.wait(pause)
            pause = min(2.0 * pause, LONGEST_PAUSE_S)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


@contextmanager
def learning_beside(clock: Clock) -> Iterator[LearnerChild]:
    """Keep a learner running until the block ends."""
    child = LearnerChild(clock)
    child.start()
    try:
        yield child
    finally:
        child.close()
