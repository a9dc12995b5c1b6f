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
"""How long it may take to end before it is killed, which loses nothing."""

_log = logging.getLogger("uvicorn.error")


class LearnerChild:
    """Keeps one learner process running, from a thread of its own.

    The child ends when its standard input does, so it does not outlive this process, whatever becomes of it. All
    children of one keeper have one name, so that the next one need not wait for the lease of one that was killed.

    Args:
        clock: Monotonic seconds.
        command: What to run.
    """

    def __init__(self, clock: Clock, command: Sequence[str] | None = None) -> None:
        owner = f"{platform.node()}:{secrets.token_hex(6)}"
        self._command = list(
            command or (sys.executable, "-m", "monkey_coder.cli", "learn", "--until-eof", "--owner", owner)
        )
        self._clock = clock
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="learner", daemon=True)

    def start(self) -> None:
        """Start the learner, and watch it from now on."""
        self._thread.start()

    def close(self) -> None:
        """End the learner."""
        self._stop.set()
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stop.is_set():
            began, code = self._clock(), -1
            try:
                # a process group of its own: Ctrl-C is for the server, which ends its learner last
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - our own
            except OSError as error:
                _log.error("the learner cannot be started: %s", error)
            else:
                if self._stop.is_set() and self._process.stdin is not None:  # asked to end meanwhile
                    self._process.stdin.close()
                code = self._process.wait()
            if self._stop.is_set():
                return
            pause = FIRST_PAUSE_S if self._clock() - began >= WELL_S else pause
            _log.warning("the learner ended with %d and is started again in %.0f s", code, pause)
            self._stop.wait(pause)
            pause = min(2.0 * pause, LONGEST_PAUSE_S)


@contextmanager
def learning_beside(clock: Clock) -> Iterator[LearnerChild]:
    """Keep a learner running until the block ends."""
    child = LearnerChild(clock)
    child.start()
    try:
        yield child
    finally:
        child.close()
