"""What a process does while its store is away: it goes on, can tell that it does, and does not flood the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from monkey_coder.errors import RouterError, StoreFormatError, StoreUnavailableError
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

MEMORY_S: Final = 6.0
"""How long one failure counts; an unavailable store is tried again, and fails again, within five seconds."""
SILENCE_S: Final = 10.0
"""Time between two lines about failures in the log."""

FIRST_PAUSE_S: Final = 0.5
"""Time until a store that could not be opened is tried again; doubles from there."""
LONGEST_PAUSE_S: Final = 5.0
"""Bound of those pauses."""

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
    """A store that cannot be opened: everything that is asked of it is refused.

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
            raise StoreUnavailableError(f"the store could not be opened: {self._why}")

        return refuse

    def close(self) -> None:
        """There is nothing to let go of."""

    def warnings(self) -> tuple[str, ...]:
        """Say why it is absent."""
        return (str(self._why),)


class AwaitedStore:
    """A store that could not be opened yet, and is tried again in a thread of its own until it can be.

    Until then everything that is asked of it is refused; from then on it is that store. Safe to use from any thread.

    Args:
        open_: Opens it; may wait.
        why: What the first try met.
        first_pause_s: Seconds until the second try; pauses double from there.
        longest_pause_s: Bound of the pauses.
    """

    def __init__(
        self,
        open_: Callable[[], Store],
        why: RouterError,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._open = open_
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._store = cast("Store", AbsentStore(why))
        self._lock = threading.Lock()  # opened and closed at the same time, it must end up closed
        self._closed = threading.Event()
        threading.Thread(target=self._try_again, name="store-opener", daemon=True).start()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Any method of a store; one that was taken before the store was opened reaches it as well."""
        if not hasattr(Store, name):
            raise AttributeError(name)

        def ask(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - the arguments and results of any method
            return getattr(self._store, name)(*arguments, **named)

        return ask

    def close(self) -> None:
        """Close the store if it was opened, and try no more; a try under way is not waited for."""
        with self._lock:
            self._closed.set()
            self._store.close()

    def _try_again(self) -> None:
        pause_s = self._first_pause_s
        while not self._closed.wait(pause_s):
            pause_s = min(2 * pause_s, self._longest_pause_s)
            try:
                store = self._open()
            except (StoreUnavailableError, StoreFormatError) as error:
                self._store = cast("Store", AbsentStore(error))  # what is wrong may have changed
            else:
                with self._lock:
                    if self._closed.is_set():
                        store.close()
                    else:
                        self._store = store
                        _log.warning("the store could be opened now: decisions are logged from here on")
                return


def open_or_do_without(state_dir: Path, redis_url: str | None, wall_clock: Callable[[], float]) -> Store:
    """Open the store of this deployment; where that fails, one that is tried again, for routing needs none.

    Args:
        state_dir: Where its file lies, unless there is an address.
        redis_url: Address of a Redis or Valkey server, or None.
        wall_clock: Seconds since 1970.

    Returns:
        The store; or an `AwaitedStore`, which refuses everything until the store can be opened.
    """
    open_ = partial(open_store, state_dir, redis_url, wall_clock)
    try:
        return open_()
    except (StoreUnavailableError, StoreFormatError) as error:
        _log.error("decisions will not be logged until the store can be opened, which is tried again: %s", error)
        return cast("Store", AwaitedStore(open_, error))
