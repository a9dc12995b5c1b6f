"""What the decision cache holds and does, tier by tier, and what an operator should change."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from monkey_coder.quantum.routing_cache import RoutingCache

MOST_SCANNED: Final = 5_000
"""Keys of the shared tier that are looked at for its size; of more, the rest is estimated by nobody and said so."""
KEY_OVERHEAD: Final = 190
"""Bytes that Redis 7 takes for an entry beside its key and value: tables, objects, rounding. Measured at 3 kB."""
NEARLY_FULL: Final = 0.9

_log = logging.getLogger(__name__)


class SharedTier(Protocol):
    """What is asked of the shared tier."""

    @property
    def failing(self) -> bool:
        """Whether it failed at the last try."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """What its calls came to."""
        ...

    def scan(self, limit: int) -> Iterable[tuple[bytes, bytes]]:
        """Up to so many keys with their values."""
        ...

    def info(self) -> Mapping[str, int | str]:
        """Memory of the server."""
        ...


def report(cache: RoutingCache, disagreement: float | None, patterns: int) -> dict[str, Any]:
    """Everything about a process's cache; waits for Redis where there is one.

    Args:
        cache: Of this process.
        disagreement: Share of the checked hits that would be decided otherwise, or None.
        patterns: Requests that are remembered for warming.
    """
    local, redis = cache.tiers.local, cache.tiers.redis
    counts = Counter(cache.counts)
    counts["local", "evicted"], counts["local", "expired"] = local.evicted, local.expired
    served = sum(times for (_, result), times in counts.items() if result == "hit")
    asked = counts["local", "hit"] + counts["local", "miss"]  # every request looks there first
    return {
        "on": cache.on,
        "hit_rate": round(served / asked, 4) if asked else None,
        "disagreement": disagreement,
        "patterns": patterns,
        "local": {
            "entries": len(local),
            "bytes": local.bytes,
            "max_bytes": local.max_bytes,
            **_of_tier(counts, "local"),
        },
        "redis": None if redis is None else _of_tier(counts, "redis") | redis_report(redis),
        "similar": None
        if cache.tiers.similar is None
        else {"entries": _size(cache.tiers.similar), **_of_tier(counts, "similar")},
    }


def redis_report(redis: SharedTier) -> dict[str, Any]:
    """Size and state of the shared tier, and what to change about its server; waits for it."""
    told: dict[str, Any] = {"failing": redis.failing, "calls": dict(redis.counts)}
    try:
        entries = size = 0
        for key, value in redis.scan(MOST_SCANNED):
            entries += 1
            size += len(key) + len(value) + KEY_OVERHEAD
        memory = redis.info()
    except Exception as error:  # noqa: BLE001 - of a client that a process without Redis does not even load
        _log.warning("the shared cache cannot be looked at: %s", error)
        return told | {"failing": True, "entries": None, "bytes": None, "advice": ["Redis does not answer"]}
    return told | {
        "entries": entries,
        "bytes": size,
        "counted_all": entries < MOST_SCANNED,
        **memory,
        "advice": memory_advice(memory, size),
    }


def memory_advice(memory: Mapping[str, int | str], ours: int) -> list[str]:
    """What an operator should change about a Redis server's memory.

    Args:
        memory: `used_memory` and `maxmemory` in bytes (0: no bound), and `maxmemory_policy`.
        ours: Bytes that the cache takes there, nearly.
    """
    used, bound, policy = int(memory["used_memory"]), int(memory["maxmemory"]), str(memory["maxmemory_policy"])
    advice = []
    if bound == 0:
        advice.append(
            f"maxmemory is not set: the cache takes about {_mb(ours)} MB of {_mb(used)} MB; set it to what the "
            "machine can spare, or a growing store ends the server"
        )
    elif used > NEARLY_FULL * bound:
        advice.append(f"{_mb(used)} of {_mb(bound)} MB are used: raise maxmemory, or lower MONKEY_CODER_CACHE_TTL_S")
    if policy.startswith("allkeys"):
        advice.append(
            f"maxmemory-policy {policy} drops decisions, outcomes and policies as well, where the same server keeps "
            "them: set noeviction there, or give the cache a server of its own"
        )
    elif policy == "noeviction" and bound and used > NEARLY_FULL * bound:
        advice.append(
            "maxmemory-policy noeviction refuses writes when memory is full: the cache does without, the store does not"
        )
    return advice


def _of_tier(counts: Mapping[tuple[str, str], int], tier: str) -> dict[str, int]:
    return {result: times for (of, result), times in sorted(counts.items()) if of == tier and times}


def _size(index: object) -> int | None:
    return len(index) if hasattr(index, "__len__") else None


def _mb(size: int) -> int:
    return round(size / 1e6)
