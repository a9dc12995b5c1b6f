"""Entries in the tier that all processes share: writes them as bytes, and reads no bytes that are not truly theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from monkey_coder.ports import Clock
from monkey_coder.quantum.cache_entry import BadEntryError, CachedDecision, decode, encode
from monkey_coder.quantum.cache_key import KEY_BYTES, CacheKey, Keyring

if TYPE_CHECKING:  # a process without Redis need not load its client
    from monkey_coder.quantum.redis_tier import RedisTier


class SharedEntries:
    """Entries by key, in Redis; empty where there is none. Safe to use from any thread.

    Args:
        redis: Keeps the bytes, or None.
        keyring: Of the keys.
        wall_clock: Seconds since 1970.
        count: Takes a tier, what happened there, and how often.
    """

    def __init__(
        self, redis: RedisTier | None, keyring: Keyring, wall_clock: Clock, count: Callable[[str, str, int], None]
    ) -> None:
        self._redis, self._keyring, self._now, self._count = redis, keyring, wall_clock, count

    @property
    def failing(self) -> bool:
        """Whether Redis should be there, and is in trouble."""
        return self._redis is not None and self._redis.failing

    def one_wait(self) -> AbstractContextManager[None]:
        """See `RedisTier.one_wait`."""
        return nullcontext() if self._redis is None else self._redis.one_wait()

    def get(self, keys: Sequence[CacheKey]) -> dict[CacheKey, CachedDecision]:
        """The entries under some keys; those are missing that are not there, bad, or at their end."""
        payloads = self._redis.fetch(keys) if keys and self._redis is not None else []
        if payloads is None:
            self._count("redis", "error", len(keys))
            return {}
        found: dict[CacheKey, CachedDecision] = {}
        for key, payload in zip(keys, payloads, strict=False):
            entry = None if payload is None else self._read(key, payload)
            if entry is not None and entry.expires_at > self._now():
                found[key] = entry
        return found

    def keep(self, entries: Sequence[tuple[CacheKey, CachedDecision]]) -> None:
        """Store entries soon; never waits."""
        if self._redis is not None and entries:
            now = self._now()
            self._redis.keep(
                [(key, encode(entry, key, self._keyring), entry.expires_at - now) for key, entry in entries]
            )

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """Delete entries soon; never waits."""
        if self._redis is not None:
            self._redis.forget(keys)

    def scan(self, limit: int) -> Iterator[tuple[CacheKey, CachedDecision]]:
        """Up to so many of what is there, in no order; bad ones are deleted on the way. Waits for Redis.

        Raises:
            RedisError: The server failed.
        """
        for key, payload in () if self._redis is None else self._redis.scan(limit):
            entry = self._read(key, payload) if len(key) == KEY_BYTES else None  # others keep things here, too
            if entry is not None:
                yield key, entry

    def _read(self, key: CacheKey, payload: bytes) -> CachedDecision | None:
        try:
            return decode(payload, key, self._keyring)
        except BadEntryError as error:
            self._count("redis", "corrupt", 1)
            self._count("redis", f"is_{error.flaw}", 1)
            self.forget([key])
            return None
