"""What the cache holds in all its tiers, for those who look after it: what is kept, lives longer, or is dropped."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from monkey_coder.ports import Clock, DecisionEvent
from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.cache_key import CacheKey, Keyring
from monkey_coder.quantum.cache_lifetimes import Lifetimes
from monkey_coder.quantum.cache_making import entries_of
from monkey_coder.quantum.cache_parts import CacheTiers, Deciding, price_of
from monkey_coder.quantum.shared_entries import SharedEntries

MOST_REFUSED: Final = 10_000
"""Latest decisions that something spoke against, whose entries are refused wherever they come from."""


@dataclass
class CacheStock:
    """The entries of a cache. Safe to use from any thread.

    Attributes:
        deciding: Decides what is not cached.
        tiers: Where entries are.
        keyring: Makes keys.
        wall_clock: Seconds since 1970.
        clock: Monotonic seconds.
        rng: For lifetimes, and for which hits are checked.
        lifetimes: How long entries are to live that are made now.
        counts: What happened so far, by tier and result.
        remote: The entries that all processes share.
    """

    deciding: Deciding
    tiers: CacheTiers
    keyring: Keyring
    wall_clock: Clock
    clock: Clock
    rng: np.random.Generator
    lifetimes: Callable[[], Lifetimes] = Lifetimes
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards the generator and what is refused
        self._counting = threading.Lock()  # apart, for each hit is counted in the event loop, and must not wait long
        self._refused: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.remote = SharedEntries(self.tiers.redis, self.keyring, self.wall_clock, self.count)

    def invalidate(self, condition: Callable[[CachedDecision], bool]) -> int:
        """Drop the entries of this process of which something is true, from the shared tier as well."""
        return self.drop(self.tiers.local.remove_where(condition))

    def forget(self, origin: str, ref: str, *further: CacheKey) -> int:
        """Drop what a decision for a model left, from the shared tier as well, and say how many entries that were.

        Should one of them come from the shared tier later on (this process did not hold it, or the server was in
        trouble), it is refused, and deleted there.

        Args:
            origin: Id of the decision.
            ref: The model.
            further: Keys of its entries that may have left this process already, and are shared still.
        """
        with self._lock:
            self._refused[origin, ref] = None
            if len(self._refused) > MOST_REFUSED:
                self._refused.popitem(last=False)
        local = self.tiers.local
        keys = dict.fromkeys(key for key in local.keys_of(origin, ref) if local.remove(key))
        return self.drop([*keys, *(key for key in further if key not in keys and local.get(key) is None)])

    def drop(self, keys: Sequence[CacheKey]) -> int:
        """Drop entries from everywhere but the local tier; returns how many were named."""
        if not keys:
            return 0
        self.remote.forget(keys)
        if self.tiers.similar is not None:
            self.tiers.similar.discard(keys)
        self.count("local", "invalidated", len(keys))
        return len(keys)

    def confirm(self, origin: str, ref: str) -> bool:
        """Let the entries of a decision that turned out well live twice as long, but never beyond the longest life.

        Args:
            origin: Id of the decision.
            ref: The model that did well; entries for others are left alone.

        Returns:
            Whether there are any.
        """
        now, any_lives = self.wall_clock(), False
        for key in self.tiers.local.keys_of(origin, ref):
            entry = self.tiers.local.get(key)
            if entry is None:  # at its end
                continue
            any_lives = True
            entry.confirmed += 1
            life = entry.expires_at - entry.made_at
            until = min(entry.made_at + 2.0 * life, now + self.lifetimes().longest_s)
            if until > entry.expires_at + 0.1 * life:
                entry.expires_at = until
                self.remote.keep([(key, entry)])
        return any_lives

    def keep(self, key: CacheKey, entry: CachedDecision) -> None:
        """Put an entry into all tiers."""
        self.tiers.local.put(key, entry)
        self.remote.keep([(key, entry)])
        self.count("local", "stored")

    def entries_of(self, events: Sequence[DecisionEvent]) -> dict[str, CachedDecision]:
        """The entries of decisions that were made just now, by their ids, as far as they may be given again."""
        with self._lock:
            price = price_of(self.deciding.snapshot())
            return entries_of(events, self.wall_clock(), price, self.lifetimes(), self.rng)

    def take_over(self, key: CacheKey, entry: CachedDecision) -> bool:
        """Put an entry of the shared tier into this process, unless it is refused; returns whether it was taken."""
        self.tiers.local.put(key, entry)
        if (entry.origin, entry.ref) not in self._refused:  # asked only now: who refuses it from here on finds it
            return True
        self.tiers.local.remove(key)
        self.drop([key])
        return False

    def shared(self, limit: int) -> Iterator[tuple[CacheKey, CachedDecision]]:
        """Up to so many entries of the shared tier, in no order. Waits for Redis.

        Raises:
            RedisError: The server failed.
        """
        return self.remote.scan(limit)

    def clear(self) -> int:
        """Drop everything in this process; returns how many entries that were."""
        if self.tiers.similar is not None:
            self.tiers.similar.clear()
        return self.tiers.local.clear()

    def count(self, tier: str, result: str, times: int = 1) -> None:
        """Note that something happened so many times."""
        with self._counting:
            self.counts[tier, result] += times
