"""A cache over a real manager, in one thread, with clocks to set: what the tests of its parts have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from builders import SECRET, SetClock, engine

from monkey_coder.caching import cache_before
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.cache_key import Keyring
from monkey_coder.quantum.cache_lifetimes import Lifetimes
from monkey_coder.quantum.cache_parts import DecisionNotes, SimilarityIndex
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.redis_tier import RedisTier
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot

NOW = 1_700_000_000.0
KEYRING = Keyring("test", SECRET)
STEADY = Lifetimes(shortest_s=100.0, longest_s=100.0, jitter=0.0)


@dataclass
class House:
    """A cache, and what it stands before.

    Attributes:
        asked: The batches that reached the manager.
        wall: Seconds since 1970.
    """

    cache: RoutingCache
    manager: QuantumRoutingManager
    live: LiveSnapshot
    notes: DecisionNotes
    wall: SetClock
    asked: list[list[RouteRequest]] = field(default_factory=list)
    troubles: tuple[str, ...] = ()

    @property
    def decided(self) -> int:
        """Requests that were really decided."""
        return sum(len(batch) for batch in self.asked)

    def route(self, *requests: RouteRequest) -> list[Any]:
        """As the event loop and the deciding thread would answer a batch."""
        asked = [self.cache.ask(request) for request in requests]
        found = [self.cache.find(each) for each in asked]
        rest = iter(self.cache.decide([each for each, hit in zip(asked, found, strict=True) if hit is None]))
        return [told(next(rest) if hit is None else hit) for hit in found]

    def one(self, request: RouteRequest) -> Any:
        (answer,) = self.route(request)
        return answer

    def change(self, **changes: Any) -> None:
        """Change the snapshot."""
        self.live.update(lambda now: replace(now, **changes))


def told(reply: Any) -> Any:
    """An answer as fields, or the error."""
    return orjson.loads(reply) if isinstance(reply, bytes) else reply


@contextmanager
def house(
    *strategies: Any,
    redis: RedisTier | None = None,
    similar: SimilarityIndex | None = None,
    lifetimes: Lifetimes = STEADY,
    check_rate: float = 0.0,
    max_bytes: int = 10_000_000,
    keyring: Keyring = KEYRING,
    wall: SetClock | None = None,
    **options: Any,
) -> Iterator[House]:
    """A cache over the engine of `builders.engine`."""
    wall = wall or SetClock(NOW)
    with engine(*strategies, **options) as manager:
        manager.snapshot = live = LiveSnapshot(manager.snapshot())
        cache = cache_before(
            manager,
            keyring,
            max_bytes,
            wall,
            time.monotonic,
            np.random.default_rng(7),
            lifetimes=lambda: lifetimes,
            shared=redis,
            similar=similar,
            check_rate=check_rate,
        )

        def decide(requests: Sequence[RouteRequest]) -> list[Any]:
            built.asked.append(list(requests))
            return manager.decide(requests)

        cache.deciding = replace(cache.deciding, decide=decide, troubles=lambda: built.troubles)
        built = House(cache, manager, live, cache.deciding.notes, wall)
        yield built


def entry(
    origin: str = "origin", *, expires_at: float = NOW + 100.0, padding: int = 0, **changes: Any
) -> CachedDecision:
    """A cached decision among the three models of `builders.table`."""
    answer = {
        "provider": "mid",
        "model": "middle",
        "collapse_reasoning": "x" * padding,
        "alternatives": [{"provider": "big", "model": "dear", "score": 0.2, "expected": {}}],
        "excluded": [],
        "thread_results": [],
    }
    made = CachedDecision(
        origin=origin,
        made_at=NOW,
        expires_at=expires_at,
        ref="mid/middle",
        alternatives=("big/dear",),
        unavailable=(),
        had="111",
        task="debugging",
        margin=0.1,
        agreement=1.0,
        policy_version=None,
        price=0.0,
        prior=np.array([0.4, 0.6, 0.9], dtype=np.float32),
        answer=orjson.dumps(answer),
    )
    return replace(made, **changes)


def snapshot_of(built: House) -> EngineSnapshot:
    return built.live()
