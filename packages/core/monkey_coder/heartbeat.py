"""One active learner: it holds a lease, and says what it is at, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Self

from monkey_coder.errors import RouterError
from monkey_coder.ports import Clock
from monkey_coder.quantum.learner_status import LearnerStatus, StatusBoard, read_status
from monkey_coder.storage.port import Store

LEASE: Final = "learner"
LEASE_S: Final = 15.0
"""How long a learner that was stopped without a word keeps others from its place."""
BEAT_S: Final = 2.0

_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another process may be the active learner by now."""


class Heartbeat:
    """Keeps the lease while it is open. `status` and `require` are safe for all threads.

    Args:
        store: Where lease and status are.
        owner: Of the lease; no other process has the same name at the same time.
        wall_clock: Seconds since 1970.
        clock: Monotonic seconds.
        lease_s: Length of the lease.
        beat_s: Pause between two renewals.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        wall_clock: Callable[[], float],
        clock: Clock,
        lease_s: float = LEASE_S,
        beat_s: float = BEAT_S,
    ) -> None:
        self._store, self._owner = store, owner
        self._now, self._clock = wall_clock, clock
        self._lease_s, self._beat_s = lease_s, beat_s
        self._board = StatusBoard(store)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._until = float("-inf")
        now = wall_clock()
        self._status = LearnerStatus(owner=owner, started_at=now, heartbeat_at=now)

    def acquire(self) -> bool:
        """Take the lease, and remember what the learner before said of its work; False while another process has it."""
        asked = self._clock()
        if not self._store.acquire_lease(LEASE, self._owner, self._lease_s):
            return False
        self._until = asked + self._lease_s
        before = read_status(self._store)
        if before is not None:
            self.say(training=before.training, verdicts=before.verdicts)
        return True

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye, and give the lease back; where the store is away, the lease ends by itself."""
        self._stop.set()
        self._thread.join()
        try:
            if self._clock() < self._until:
                self.say(doing="ended", note="")
                self._speak()
            self._store.release_lease(LEASE, self._owner)
        except RouterError as error:
            _log.warning("the lease could not be given back: %s", error)

    @property
    def status(self) -> LearnerStatus:
        """What is said at the next beat."""
        return self._status

    def say(self, **changes: Any) -> None:  # noqa: ANN401 - fields of LearnerStatus
        """Change what is said at the next beat."""
        with self._lock:
            self._status = self._status.model_copy(update=changes)

    def say_now(self, **changes: Any) -> None:  # noqa: ANN401 - fields of LearnerStatus
        """Change what is said, and say it, while the lease holds.

        Raises:
            LeaseLostError: It does not, or may not; nothing is said.
            StoreUnavailableError: The store does not answer.
        """
        self.say(**changes)
        self.require()
        with self._lock:
            self._speak()

    def require(self) -> None:
        """Return while the lease holds.

        Raises:
            LeaseLostError: It does not, or may not.
        """
        if self._clock() >= self._until:
            raise LeaseLostError

    def _speak(self) -> None:
        self._status = self._status.model_copy(update={"heartbeat_at": self._now()})
        self._board.write(self._status)

    def _beat(self) -> bool:
        asked = self._clock()
        if not self._store.renew_lease(LEASE, self._owner, self._lease_s):
            self._until = float("-inf")
            return False
        self._until = asked + self._lease_s
        with self._lock:
            self._speak()
        return True

    def _run(self) -> None:
        troubled = False
        while not self._stop.wait(self._beat_s):
            try:
                if not self._beat():
                    return
                troubled = False
            except RouterError as error:
                if not troubled:
                    _log.warning("the learner cannot be heard just now: %s", error)
                troubled = True
