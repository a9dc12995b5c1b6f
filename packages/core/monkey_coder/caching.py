"""Builds the decision cache of a web process, and keeps it told and checked beside the batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monkey_coder.models import RouteRequest
from monkey_coder.ports import Clock, DecisionListener
from monkey_coder.quantum.cache_key import Keyring
from monkey_coder.quantum.cache_lifetimes import LearningPace, Lifetimes
from monkey_coder.quantum.cache_manager import CacheManager
from monkey_coder.quantum.cache_parts import CacheTiers, Deciding, DecisionNotes, EmbeddedAhead, SimilarityIndex
from monkey_coder.quantum.cache_patterns import PatternMemory
from monkey_coder.quantum.cache_telling import HitTeller
from monkey_coder.quantum.cache_verifier import CacheVerifier, plain
from monkey_coder.quantum.local_tier import LocalTier
from monkey_coder.quantum.prompt_similarity import PromptSimilarity
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.quantum.session_affinity import SessionMemory
from monkey_coder.quantum.similarity_index import LikenessIndex
from monkey_coder.settings import Settings
from monkey_coder.storage.port import Store

if TYPE_CHECKING:  # a process without Redis need not load its client
    from monkey_coder.quantum.redis_tier import RedisTier

MEGABYTE = 1_000_000
REST_S = 0.005
"""Between two handfuls of decisions that warm the cache: requests go first."""


@dataclass(frozen=True)
class Caching:
    """The cache of a process, with who looks after it.

    Attributes:
        cache: Gives decisions again.
        manager: Warms, reports and clears.
    """

    cache: RoutingCache
    manager: CacheManager


def cache_before(
    manager: QuantumRoutingManager,
    keys: Keyring,
    max_bytes: int,
    wall_clock: Clock,
    clock: Clock,
    rng: np.random.Generator,
    *,
    lifetimes: Callable[[], Lifetimes] = Lifetimes,
    shared: RedisTier | None = None,
    similar: SimilarityIndex | None = None,
    check_rate: float = 0.0,
) -> RoutingCache:
    """Put a cache before a manager, which from then on tells the cache what it decides.

    Args:
        manager: Decides what is not cached.
        keys: Make the keys of entries.
        max_bytes: What the entries of this process may take.
        wall_clock: Seconds since 1970.
        clock: Monotonic seconds.
        rng: For lifetimes, and for which hits are checked.
        lifetimes: How long entries are to live that are made now.
        shared: Tier that all processes have together.
        similar: Finds near-identical prompts.
        check_rate: Share of the hits that are to be checked, 0..1.
    """
    notes, embedder = DecisionNotes(), EmbeddedAhead(manager.embedder)
    manager.listeners = (*manager.listeners, notes)
    manager.embedder = embedder
    return RoutingCache(
        deciding=Deciding(
            decide=manager.decide,
            notes=notes,
            snapshot=manager.snapshot,
            sessions=manager.sessions,
            make_ids=manager.ids.make,
            embedder=embedder,
        ),
        tiers=CacheTiers(LocalTier(max_bytes, wall_clock), shared, similar),
        keyring=keys,
        wall_clock=wall_clock,
        clock=clock,
        rng=rng,
        lifetimes=lifetimes,
        check_rate=check_rate,
    )


@asynccontextmanager
async def caching(
    settings: Settings,
    manager: QuantumRoutingManager,
    secret: bytes,
    store: Store,
    troubles: Callable[[], tuple[str, ...]],
    listeners: Callable[[], Sequence[DecisionListener]],
    on_cache: Callable[[str, str, int], None],
) -> AsyncIterator[Caching]:
    """Put a cache in front of a manager until the block ends.

    Args:
        settings: From the environment.
        manager: Decides what is not cached; the cache listens to it.
        secret: Of the deployment; the cache key is made from it where the settings name none.
        store: Where decisions are logged, and orders left for all processes.
        troubles: What should work and does not at the moment, beside the shared cache, as answers say it.
        listeners: Who is to be told of hits.
        on_cache: Counts what the cache did.
    """
    async with AsyncExitStack() as stack:
        shared = None
        if settings.redis_url is not None and settings.cache:
            from monkey_coder.quantum.redis_tier import RedisTier  # here: an embedded process needs no client

            shared = RedisTier.open(settings.redis_url, time.monotonic, settings.cache_wait_ms / 1e3)
            stack.callback(shared.close)
        keys = keyring(settings, secret)
        patterns = PatternMemory()
        pace = LearningPace(time.monotonic, settings.cache_ttl_s)
        cache = cache_before(
            manager,
            keys,
            settings.cache_mb * MEGABYTE,
            time.time,
            time.monotonic,
            np.random.default_rng(),
            lifetimes=pace.lifetimes,
            shared=shared,
            similar=LikenessIndex(PromptSimilarity(keys.secret), shared=shared, ttl_s=settings.cache_ttl_s),
            check_rate=settings.cache_check_rate,
        )
        cache.on, cache.remember = settings.cache, patterns.note
        cache.deciding = replace(cache.deciding, troubles=troubles)
        notes = cache.deciding.notes

        def quietly(requests: Sequence[RouteRequest]) -> list[Any]:
            """Decide without exploring, logging, counting, or touching sessions."""
            alone = replace(manager, listeners=(notes,), sessions=SessionMemory())
            return list(alone.decide([plain(request) for request in requests]))

        teller = HitTeller(cache, listeners, on_cache)
        verifier = CacheVerifier(cache, quietly, notes)
        care = CacheManager(
            cache=cache,
            verifier=verifier,
            decide=quietly,
            notes=notes,
            store=store,
            snapshot=manager.snapshot,
            patterns=patterns,
            on_learned=pace.note,
            began_at=time.time(),
            rest=lambda: time.sleep(REST_S),
        )
        executor = ThreadPoolExecutor(1, thread_name_prefix="cache")
        stack.callback(teller.tell)  # what the last moments brought; after the thread has ended
        stack.callback(executor.shutdown)
        carer = ThreadPoolExecutor(1, thread_name_prefix="cache-care")
        stack.callback(carer.shutdown)
        jobs = await stack.enter_async_context(asyncio.TaskGroup())
        for job in (teller.run(executor), verifier.run(executor), care.run(carer)):
            task = jobs.create_task(job, name="caching")
            stack.callback(task.cancel)
        yield Caching(cache, care)


def keyring(settings: Settings, secret: bytes) -> Keyring:
    """The key of the cache: the one that the settings name, else one made from the secret of the deployment."""
    if settings.cache_key is None:
        return Keyring.derived(secret)
    name, _, digits = settings.cache_key.partition(":")
    return Keyring(name, bytes.fromhex(digits))
