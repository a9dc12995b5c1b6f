"""What each of many keys was used with last, shared by all processes of a deployment: a small port of its own.

It holds no more than a hint that processes do well to agree on: losing it costs nothing but money. So it is apart from
the store, whose bulk and whose writers must not keep anybody waiting here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

FILE_NAME: Final = "sessions.sqlite3"


class LastUse(NamedTuple):
    """A use.

    Attributes:
        time_s: When it was, in seconds since 1970.
        value: What was used.
    """

    time_s: float
    value: bytes


class LastUses(Protocol):
    """The last use of each key. Safe to use from any thread; every method may wait for a disk or a network.

    Every method may raise `StoreUnavailableError` and `StoreFormatError`.
    """

    def last_uses(self, keys: Sequence[bytes]) -> list[LastUse | None]:
        """Return the newest use of each key; None where there is none, or it is too long ago."""
        ...

    def note_uses(self, uses: Mapping[bytes, LastUse]) -> None:
        """Keep uses, each unless a later one of its key is known; those that are too old or too many go."""
        ...

    def close(self) -> None:
        """Let go of all files and connections."""
        ...


def open_last_uses(
    state_dir: Path, redis_url: str | None, wall_clock: Callable[[], float], max_age_s: float, most: int
) -> LastUses:
    """Open those of this deployment; the caller closes them.

    Args:
        state_dir: Where the file lies, unless there is an address.
        redis_url: Address of a Redis or Valkey server, or None.
        wall_clock: Seconds since 1970.
        max_age_s: Seconds after which a use is forgotten.
        most: Keys that are kept; those used longest ago go first.

    Raises:
        StoreFormatError: What is stored is damaged, foreign, or of another schema.
        StoreUnavailableError: The file cannot be made, or the server does not answer.
        ValueError: The address is malformed.
    """
    if redis_url is None:
        from monkey_coder.storage.sqlite_uses import SqliteLastUses

        return SqliteLastUses(state_dir / FILE_NAME, wall_clock, max_age_s, most)
    from monkey_coder.storage.redis_uses import RedisLastUses  # here: an embedded process needs no client

    return RedisLastUses.open(redis_url, wall_clock, max_age_s, most)
