"""What a process does while its store is away: it goes on, can tell that it does, and does not flood the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from monkey_coder.errors import RouterError, StoreFormatError, StoreUnavailableError
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

MEMORY_S: Final = 6.0
"""How long one failure counts; an unavailable store is tried again, and fails again, within five seconds."""
SILENCE_S: Final = 10.0
"""Time between two lines about failures in the log."""

_log = logging.getLogger(__name__)


class StoreHealth:
    """Whether the store has failed lately. Safe to use from any thread.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = self._said_at = float("-inf")
        self._unsaid = 0

    def on_error(self, error: Exception) -> None:
        """Take note of something that went wrong with the store, or on the way to it."""
        now = self._clock()
        with self._lock:
            if isinstance(error, RouterError):  # others are the fault of one row, which is lost, and not of the store
                self._failed_at = now
            if now - self._said_at < SILENCE_S:
                self._unsaid += 1
                return
            unsaid, self._unsaid, self._said_at = self._unsaid, 0, now
        more = f" (and {unsaid} errors before it)" if unsaid else ""
        _log.error("the store failed%s: %s: %s", more, type(error).__name__, error)

    @property
    def failing(self) -> bool:
        """Whether it failed within the last `MEMORY_S` seconds."""
        return self._clock() - self._failed_at < MEMORY_S


class AbsentStore:
    """A store that could not be opened: everything that is asked of it is refused.

    Args:
        why: What opening it met.
    """

    def __init__(self, why: RouterError) -> None:
        self._why = why

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Any method of a store."""
        if not hasattr(Store, name):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - the arguments of any method
            raise StoreUnavailableError(f"the store could not be opened when this process started: {self._why}")

        return refuse

    def close(self) -> None:
        """There is nothing to let go of."""

    def warnings(self) -> tuple[str, ...]:
        """Say why it is absent."""
        return (str(self._why),)


def open_or_do_without(state_dir: Path, redis_url: str | None, wall_clock: Callable[[], float]) -> Store:
    """Open the store of this deployment; where that fails, one that refuses everything, for routing needs none.

    Args:
        state_dir: Where its file lies, unless there is an address.
        redis_url: Address of a Redis or Valkey server, or None.
        wall_clock: Seconds since 1970.
    """
    try:
        return open_store(state_dir, redis_url, wall_clock)
    except (StoreUnavailableError, StoreFormatError) as error:
        _log.error("decisions will not be logged until this process is started again: %s", error)
        return cast("Store", AbsentStore(error))
