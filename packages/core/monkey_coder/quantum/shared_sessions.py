"""Sessions that keep their model whichever process of a deployment their requests reach.

A process answers from its own memory where it has used, or looked up, a session within the last second. Other sessions
are looked up together, once a batch, in a thread that is waited for a fixed time at the most. What was used is written
behind, from another thread. Trouble costs the agreement between processes, and nothing else: each goes on by its own
memory, and one thread tries again after pauses that double.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from typing import Final, NamedTuple

from typing_extensions import override

from monkey_coder.errors import RouterError
from monkey_coder.ports import Clock
from monkey_coder.quantum.daemon_pool import DaemonPool
from monkey_coder.quantum.session_affinity import MOST_SESSIONS, SessionMemory
from monkey_coder.storage.last_uses import LastUse, LastUses

DEFAULT_WAIT_S: Final = 0.005
FRESH_S: Final = 1.0
"""How long a process takes for granted what it knows of a session."""
GATHER_S: Final = 0.05
"""How long uses wait to be written with others."""
MOST_UNWRITTEN: Final = 20_000
"""Sessions whose last use waits to be written; beyond, the oldest is dropped, and known to this process alone."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
SILENCE_S: Final = 10.0
"""Time between two lines about trouble in the log."""
LAST_WRITES_S: Final = 1.0
"""How long closing waits for what is not written yet."""

_log = logging.getLogger(__name__)


class _Known(NamedTuple):
    """What is known of a session: the model, or None; when it was used (wall clock); and since when that is known."""

    ref: str | None
    used_at: float
    known_at: float


class SharedSessionMemory(SessionMemory):
    """Which model each session used last, in any process. Safe to use from any thread.

    `use` and `settled` never wait; `refresh` and `columns` wait `wait_s` at the most, and are not for an event loop.

    Args:
        open_: Opens what is shared; may wait, and is tried again when it fails.
        digest: Makes the key of a session, which must not tell its id.
        clock: Monotonic seconds.
        wall_clock: Seconds since 1970; the newest use of all processes by it wins.
        max_age_s: Seconds after which a session is forgotten.
        wait_s: Longest wait of a look-up.
        most: How many sessions to remember in this process.
    """

    def __init__(
        self,
        open_: Callable[[], LastUses],
        digest: Callable[[bytes], bytes],
        clock: Clock,
        wall_clock: Clock,
        *,
        max_age_s: float,
        wait_s: float = DEFAULT_WAIT_S,
        most: int = MOST_SESSIONS,
    ) -> None:
        super().__init__(most)
        self._open, self._digest, self._clock, self._now = open_, digest, clock, wall_clock
        self._max_age_s, self._wait_s = max_age_s, wait_s
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unwritten: OrderedDict[str, LastUse] = OrderedDict()
        self._shared: LastUses | None = None
        self._failing = True  # until it is open
        self._said_at = float("-inf")
        self._wake, self._closed, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._readers = DaemonPool(1, "sessions")
        threading.Thread(target=self._run, name="sessions-writer", daemon=True).start()

    @property
    def failing(self) -> bool:
        """Whether processes do not know of each other's sessions at the moment."""
        return self._failing

    @override
    def last(self, session_id: str) -> str | None:
        with self._lock:
            known = self._known.get(session_id)
        return None if known is None else known.ref

    @override
    def settled(self, session_id: str) -> bool:
        return self._failing or self._fresh(session_id, self._clock())

    @override
    def refresh(self, session_ids: Sequence[str | None]) -> None:
        now = self._clock()
        asked = [each for each in dict.fromkeys(session_ids) if each and not self._fresh(each, now)]
        if not asked or self._failing:
            return
        found = self._fetch([self._key(each) for each in asked])
        if found is None:
            return
        oldest = self._now() - self._max_age_s
        with self._lock:
            for session_id, use in zip(asked, found, strict=True):
                own = self._known.get(session_id)
                if use is not None and (own is None or use.time_s > own.used_at):
                    known = _Known(use.value.decode(errors="replace"), use.time_s, now)
                elif own is None or own.used_at < oldest:
                    known = _Known(None, float("-inf"), now)
                else:
                    known = own._replace(known_at=now)
                self._keep(session_id, known)

    @override
    def use(self, session_id: str, ref: str) -> None:
        now = self._now()
        with self._lock:
            self._keep(session_id, _Known(ref, now, self._clock()))
            self._unwritten[session_id] = LastUse(now, ref.encode())
            if len(self._unwritten) > MOST_UNWRITTEN:
                self._unwritten.popitem(last=False)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, unless that takes long, and end the threads."""
        self._closed.set()
        self._wake.set()
        self._ended.wait(LAST_WRITES_S)
        self._readers.close()

    @override
    def _refs(self, session_ids: Sequence[str | None]) -> list[str | None]:
        self.refresh(session_ids)
        with self._lock:
            known = [self._known.get(session_id) if session_id else None for session_id in session_ids]
        return [None if each is None else each.ref for each in known]

    def _keep(self, session_id: str, known: _Known) -> None:
        self._known[session_id] = known
        self._known.move_to_end(session_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _fresh(self, session_id: str, now: float) -> bool:
        known = self._known.get(session_id)
        return known is not None and now - known.known_at < FRESH_S

    def _key(self, session_id: str) -> bytes:
        return self._digest(session_id.encode("utf-8", "surrogatepass"))

    def _fetch(self, keys: Sequence[bytes]) -> list[LastUse | None] | None:
        """Look keys up, in the reader's thread; None where that fails, or takes too long."""
        shared, answer = self._shared, Future[list[LastUse | None]]()

        def look() -> None:
            try:
                answer.set_result([] if shared is None else shared.last_uses(keys))
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits
                answer.set_exception(error)

        try:
            self._readers.submit(look)
            found = answer.result(self._wait_s)
        except LateError:
            self._failed(f"no answer within {self._wait_s * 1e3:g} ms")
        except Exception as error:  # noqa: BLE001 - whatever it is, a request must not fail by it
            self._failed(f"{type(error).__name__}: {error}")
        else:
            return found if len(found) == len(keys) else None
        return None

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            if self._failing:
                pause_s = FIRST_PAUSE_S if self._mended() else min(2 * pause_s, LONGEST_PAUSE_S)
                if self._failing:
                    self._closed.wait(pause_s)
                continue
            self._wake.wait(LONGEST_PAUSE_S)
            self._closed.wait(GATHER_S)
            self._wake.clear()
            self._write()
        if self._shared is not None:
            if not self._failing:
                self._write()
            with suppress(Exception):  # there is nobody left whom it could trouble
                self._shared.close()
        self._ended.set()

    def _mended(self) -> bool:
        """Try everything once: opening, reading in time, writing."""
        try:
            if self._shared is None:
                self._shared = self._open()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
            self._failed(f"{type(error).__name__}: {error}")
            return False
        self._failing = self._fetch([self._key("")]) is None or not self._write()
        return not self._failing

    def _write(self) -> bool:
        with self._lock:
            taken, self._unwritten = self._unwritten, OrderedDict()
        if not taken or self._shared is None:
            return True
        try:
            self._shared.note_uses({self._key(session_id): use for session_id, use in taken.items()})
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
            if isinstance(error, RouterError):  # others are the fault of a row, which must not be tried for ever
                with self._lock:
                    self._unwritten = OrderedDict((taken | self._unwritten).items())
                    while len(self._unwritten) > MOST_UNWRITTEN:
                        self._unwritten.popitem(last=False)
            self._failed(f"{type(error).__name__}: {error}")
            return False
        return True

    def _failed(self, what: str) -> None:
        self._failing = True
        self._wake.set()
        now = self._clock()
        if now - self._said_at >= SILENCE_S:
            self._said_at = now
            _log.warning("sessions are left to each process for a while: %s", what)
