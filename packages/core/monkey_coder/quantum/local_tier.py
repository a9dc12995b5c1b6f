"""The in-process tier: the entries used last, within a bound of bytes. Nothing here waits for anything."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.cache_key import CacheKey


class LocalTier:
    """Entries by key; when they take too much, the one used longest ago goes first. Safe to use from any thread.

    Every method but `items`, `remove_where` and `clear` takes constant time.

    Args:
        max_bytes: What all entries together may take.
        wall_clock: Seconds since 1970.
    """

    def __init__(self, max_bytes: int, wall_clock: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self._now = wall_clock
        self._entries: OrderedDict[CacheKey, CachedDecision] = OrderedDict()
        self._by_origin: dict[str, tuple[CacheKey, ...]] = {}
        self._bytes = 0
        self._evicted = self._expired = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What all entries together take, nearly."""
        return self._bytes

    @property
    def evicted(self) -> int:
        """Entries that went because others needed their place."""
        return self._evicted

    @property
    def expired(self) -> int:
        """Entries that were found at the end of their life."""
        return self._expired

    def get(self, key: CacheKey) -> CachedDecision | None:
        """The entry under a key, if it is still to be given."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires_at <= self._now():
                self._drop(key)
                self._expired += 1
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, key: CacheKey, entry: CachedDecision) -> None:
        """Keep an entry, in place of any other under its key; one that exceeds the bound alone is not kept."""
        with self._lock:
            self._drop(key)
            if entry.size > self.max_bytes:
                return
            self._entries[key] = entry
            self._by_origin[entry.origin] = (*self._by_origin.get(entry.origin, ()), key)
            self._bytes += entry.size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))
                self._evicted += 1

    def remove(self, key: CacheKey) -> bool:
        """Drop an entry; returns whether there was one."""
        with self._lock:
            return self._drop(key)

    def keys_of(self, origin: str, ref: str | None = None) -> tuple[CacheKey, ...]:
        """Keys under which a decision is kept, by its id; of its entries for one model alone, where that is named."""
        with self._lock:
            keys = self._by_origin.get(origin, ())
            return tuple(key for key in keys if ref in (None, self._entries[key].ref))

    def items(self) -> list[tuple[CacheKey, CachedDecision]]:
        """All entries, the one used longest ago first; some may be past their life."""
        with self._lock:
            return list(self._entries.items())

    def remove_where(self, condition: Callable[[CachedDecision], bool]) -> list[CacheKey]:
        """Drop all entries of which something is true; returns their keys."""
        found = [key for key, entry in self.items() if condition(entry)]
        with self._lock:
            return [key for key in found if self._drop(key)]

    def clear(self) -> int:
        """Drop everything; returns how many entries that were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._by_origin.clear()
            self._bytes = 0
            return count

    def _drop(self, key: CacheKey) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= entry.size
        others = tuple(other for other in self._by_origin[entry.origin] if other != key)
        if others:
            self._by_origin[entry.origin] = others
        else:
            del self._by_origin[entry.origin]
        return True
