"""Which store a deployment has: Redis where an address is given, otherwise a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from monkey_coder.errors import SettingsError
from monkey_coder.storage.port import Retention, Store
from monkey_coder.storage.sqlite_store import SqliteStore

FILE_NAME: Final = "store.sqlite3"


def open_store(
    state_dir: Path,
    redis_url: str | None,
    wall_clock: Callable[[], float],
    retention: Retention | None = None,
) -> Store:
    """Open the store of this deployment; the caller closes it.

    Args:
        state_dir: Where the file lies, unless there is an address.
        redis_url: Address of a Redis or Valkey server, or None.
        wall_clock: Seconds since 1970.
        retention: How much is kept; default `Retention()`.

    Raises:
        StoreFormatError: What is stored is damaged, foreign, or of another schema.
        StoreUnavailableError: The file cannot be made, or the server does not answer.
        SettingsError: The address is malformed.
    """
    if redis_url is None:
        return SqliteStore(state_dir / FILE_NAME, wall_clock, retention)
    from monkey_coder.storage.redis_store import RedisStore  # here: an embedded process needs no client

    try:
        return RedisStore.open(redis_url, wall_clock, retention)
    except ValueError as error:
        raise SettingsError(f"the address of Redis cannot be used: {error}; mend MONKEY_CODER_REDIS_URL") from error
