"""Looks after the decision cache (T2.4.3): warms it, and takes out what feedback, breakers and operators speak against.

Nothing is ever flushed because one thing changed. A failed decision takes its own entry along, a model that cannot be
had takes those that name it first, and a new policy, price or catalog changes the generation in every key: old entries
are not found any more, and the most frequent ones are decided again under the new one before they are asked for.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from monkey_coder.errors import RouterError, StoreFormatError, StoreUnavailableError
from monkey_coder.models import RouteRequest
from monkey_coder.ports import OutcomeEvent
from monkey_coder.quantum.cache_key import DIGEST_BYTES, CacheKey
from monkey_coder.quantum.cache_parts import DecisionNotes, SimilarAsk
from monkey_coder.quantum.cache_patterns import PatternMemory
from monkey_coder.quantum.cache_report import report
from monkey_coder.quantum.cache_verifier import CacheVerifier
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.storage.port import DecisionLog, Documents

Tier = Literal["local", "redis", "all"]

ORDERS: Final = "cache"
"""Kind of the documents by which all processes are told to clear."""
CLEAR: Final = "clear"
SUCCEEDED: Final = 0.5
"""Score from which an outcome speaks for its decision."""

_log = logging.getLogger(__name__)


class OrderedStore(Documents, DecisionLog, Protocol):
    """What the manager needs of the store."""


@dataclass(frozen=True, slots=True)
class ManagerOptions:
    """How the cache is looked after.

    Attributes:
        warm: Most entries that are warmed at a time.
        chunk: Decisions made together while warming; small, so that requests hardly wait for them.
        log_rows: Latest decisions that are counted to find the most frequent patterns.
        log_s: How far back those may lie.
        scan: Most entries of the shared tier that are looked at.
        look_every_s: Pause between two looks at what has changed.
    """

    warm: int = 512
    chunk: int = 16
    log_rows: int = 5_000
    log_s: float = 3_600.0
    scan: int = 10_000
    look_every_s: float = 1.0


@dataclass
class CacheManager:
    """Looks after the cache of one process. `look` and `warm_at_start` belong to one thread; the rest is for any.

    Attributes:
        cache: Of this process.
        verifier: Checks its hits.
        decide: Decides a batch without exploring, telling nobody but `notes`.
        notes: Listens to it.
        store: Where decisions are logged, and orders left for all processes.
        snapshot: What decisions rest on.
        patterns: Requests behind entries.
        options: How to go about it.
        on_learned: Is told how many outcomes came.
        began_at: Seconds since 1970; outcomes that came before are read all at once, and say nothing of their pace.
        rest: Called between two chunks of warming.
    """

    cache: RoutingCache
    verifier: CacheVerifier
    decide: Callable[[Sequence[RouteRequest]], list[Any]]
    notes: DecisionNotes
    store: OrderedStore
    snapshot: Callable[[], EngineSnapshot]
    patterns: PatternMemory = field(default_factory=PatternMemory)
    options: ManagerOptions = ManagerOptions()
    on_learned: Callable[[int], None] = lambda _: None
    began_at: float = -math.inf
    rest: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._seen = self.snapshot()
        self._generation = self.cache.keyring.generation(self._seen)
        self._cleared: int | None = None

    # From outcomes

    def on_outcomes(self, events: Sequence[OutcomeEvent]) -> None:
        """Let a success prolong the entry of its decision, and a failure take it out; availability says neither."""
        scores = [(event.origin, event.model, event.score) for event in events if event.score is not None]
        self.on_learned(sum(event.score is not None and event.received_at >= self.began_at for event in events))
        for origin, model, score in scores:
            if score < SUCCEEDED:
                self.cache.forget(origin, model)
            else:
                self.cache.confirm(origin, model)

    # From time to time

    def look(self) -> None:
        """Take note of what has changed: orders of operators, models that are gone, another generation.

        Raises:
            StoreUnavailableError: Orders cannot be read.
        """
        now = self.snapshot()
        if now is not self._seen:
            self._on_snapshot(now)
        orders = self._orders()
        if self._cleared is not None and orders != self._cleared:
            self.cache.clear()
            self.patterns.clear()
        self._cleared = orders

    async def run(self, executor: Executor) -> None:
        """Warm, then look again and again until cancelled."""
        loop = asyncio.get_running_loop()
        act: Callable[[], object] = self.warm_at_start
        while True:
            try:
                await loop.run_in_executor(executor, act)
            except StoreUnavailableError as error:
                _log.warning("the cache is not looked after just now: %s", error)
            except Exception:  # noqa: BLE001 - care that fails must not take the server with it
                _log.exception("looking after the cache failed")
            act = self.look
            await asyncio.sleep(self.options.look_every_s)

    def warm_at_start(self) -> int:
        """Take entries that others made into this process, those of the most frequent patterns of the log first.

        Returns:
            How many were taken; 0 without a shared tier, or while it does not answer.
        """
        if self.cache.tiers.redis is None or not self.cache.on:
            return 0
        often = self._frequencies()
        try:
            found = [
                (key, entry)
                for key, entry in self.cache.shared(self.options.scan)
                if key[:DIGEST_BYTES] == self._generation and entry.expires_at > self.cache.wall_clock()
            ]
        except Exception as error:  # noqa: BLE001 - of a client that a process without Redis does not even load
            _log.warning("the cache starts cold: %s", error)
            return 0
        found.sort(key=lambda pair: (often[pair[1].origin], pair[1].confirmed, pair[1].made_at))
        # The most frequent last, so that it is the last to go.
        taken = sum(self.cache.take_over(key, entry) for key, entry in found[-self.options.warm :])
        self.cache.count("local", "warmed", taken)
        return taken

    # For operators

    def report(self) -> dict[str, Any]:
        """Everything about this process's cache; may wait for Redis."""
        return report(self.cache, self.verifier.disagreement, len(self.patterns))

    def clear(self, tier: Tier = "all") -> dict[str, int]:
        """Drop entries: of this process at once, of all others within a second or two, of Redis now.

        Returns:
            How many went, by tier; those of other processes are not counted.

        Raises:
            StoreUnavailableError: Redis does not answer, or the others could not be told.
        """
        gone: dict[str, int] = {}
        if tier in ("redis", "all") and self.cache.tiers.redis is not None:
            gone["redis"] = clear_shared(self.cache.tiers.redis.clear)
        if tier in ("local", "all"):
            gone["local"] = self.cache.clear()
            self.patterns.clear()
            self._cleared = order_clear(self.store)
        return gone

    # What the above have in common

    def _orders(self) -> int:
        order = self.store.document(ORDERS, CLEAR)
        return 0 if order is None else order.version

    def _on_snapshot(self, now: EngineSnapshot) -> None:
        before, self._seen = self._seen, now
        generation = self.cache.keyring.generation(now)
        if generation != self._generation:
            self._generation = generation
            self._warm_again(generation)
            return
        had = {ref for ref, there in zip(before.table.refs, before.table.available, strict=True) if there}
        has = {ref for ref, there in zip(now.table.refs, now.table.available, strict=True) if there}
        if lost := had - has:
            self.cache.invalidate(lambda entry: entry.ref in lost)

    def _warm_again(self, generation: bytes) -> int:
        """Decide the most frequent requests again, under a new generation."""
        hits: Counter[bytes] = Counter()
        for key, entry in self.cache.tiers.local.items():
            hits[key[DIGEST_BYTES:]] += 1 + entry.hits
        wanted = [digest for digest, _ in hits.most_common() if self.patterns.get(digest) is not None]
        made = 0
        for start in range(0, min(len(wanted), self.options.warm), self.options.chunk):
            if self.cache.keyring.generation(self.snapshot()) != generation:
                break  # it has changed again: the next look begins anew
            made += self._decide_again(wanted[start : start + self.options.chunk], generation)
            self.rest()
        self.cache.count("local", "warmed", made)
        return made

    def _decide_again(self, digests: Sequence[bytes], generation: bytes) -> int:
        local = self.cache.tiers.local
        known = [(generation + digest, self.patterns.get(digest)) for digest in digests]
        asked = [(key, request) for key, request in known if request is not None and local.get(key) is None]
        with self.notes.taken() as events:
            answers = self.decide([request for _, request in asked])
        entries = self.cache.entries_of(list(events.values()))
        made = 0
        added: list[tuple[SimilarAsk, CacheKey]] = []
        for (key, request), answer in zip(asked, answers, strict=True):
            if isinstance(answer, RouterError) or (entry := entries.get(answer["decision_id"])) is None:
                continue
            event = events[answer["decision_id"]]
            if event.batch is None:
                continue
            self.cache.keep(key, entry)
            family = generation + self.cache.keyring.family(request, None)
            added.append((SimilarAsk(request.request.prompt, family, event.batch.embedding[event.row]), key))
            made += 1
        if self.cache.tiers.similar is not None and added:
            self.cache.tiers.similar.add([ask for ask, _ in added], [key for _, key in added])
        return made

    def _frequencies(self) -> Counter[str]:
        """How often each decision was made or given again lately, by the log."""
        often: Counter[str] = Counter()
        since = self.cache.wall_clock() - self.options.log_s
        for row in self.store.recent_decisions(since, self.options.log_rows):
            try:
                record = decode(row.payload)
            except StoreFormatError as error:
                _log.warning("a logged decision is passed over: %s", error)
                continue
            often[record.same_as or record.id] += 1
        return often


def clear_shared(clear: Callable[[], int]) -> int:
    """Clear the shared tier.

    Raises:
        StoreUnavailableError: It does not answer.
    """
    try:
        return clear()
    except Exception as error:
        raise StoreUnavailableError(f"the cache in Redis cannot be cleared: {error}") from error


def order_clear(store: Documents) -> int:
    """Tell all processes to clear their own tiers; returns the number of the order.

    Raises:
        StoreUnavailableError: The order could not be left.
    """
    for _ in range(10):
        stands = store.document(ORDERS, CLEAR)
        version = 0 if stands is None else stands.version
        if store.put_document(ORDERS, CLEAR, b"", version):
            return version + 1
    raise StoreUnavailableError("others keep clearing the cache; try again")
