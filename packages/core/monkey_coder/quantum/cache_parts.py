"""What the decision cache is made of, and what passes through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from monkey_coder.errors import RouterError
from monkey_coder.models import CacheMode, RouteRequest
from monkey_coder.ports import DecisionEvent, FloatArray, TextEmbedder
from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.cache_key import CacheKey
from monkey_coder.quantum.local_tier import LocalTier
from monkey_coder.quantum.session_affinity import SessionMemory
from monkey_coder.quantum.snapshot import EngineSnapshot

if TYPE_CHECKING:  # a process without Redis need not load its client
    from monkey_coder.quantum.redis_tier import RedisTier

Reply = dict[str, Any] | bytes | RouterError
"""An answer in contract form, as fields or (a hit) as JSON; or the error that the caller must see."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way through the cache.

    Attributes:
        request: As parsed.
        digest: Of the request; empty when the cache must not be looked at.
        last: Ref of the model that its session used last.
    """

    request: RouteRequest
    digest: bytes = b""
    last: str | None = None

    @property
    def mode(self) -> CacheMode:
        """How the caller wants the cache to be used."""
        return self.request.quantum_config.cache

    def describes(self, event: DecisionEvent) -> bool:
        """Whether a decision was made for just this; the session's last model may have moved on since it was asked."""
        if self.request.request.session_id is None:
            return True
        if event.batch is None or event.deliberation is None:
            return False
        column = int(event.deliberation.last[event.row])
        return self.last == (None if column < 0 else event.batch.table.refs[column])


@dataclass(frozen=True, slots=True)
class SimilarAsk:
    """A miss, as an index of similar prompts sees it.

    Attributes:
        prompt: Its text; must not be kept.
        family: Digest of everything but the prompt, generation included: only entries of the same family may be found.
        embedding: (D,) of the prompt, unit length.
    """

    prompt: str
    family: bytes
    embedding: FloatArray


class SimilarityIndex(Protocol):
    """Finds entries made for nearly identical prompts. Called on the deciding thread; `discard` and `clear` on any."""

    def find(self, asked: Sequence[SimilarAsk]) -> list[CacheKey | None]:
        """For each miss the key of the entry to reuse, or None."""
        ...

    def add(self, added: Sequence[SimilarAsk], keys: Sequence[CacheKey]) -> None:
        """Remember what was just decided."""
        ...

    def let_go(self) -> None:
        """Let go of what the last `find` was asked: no prompt is to be kept."""
        ...

    def discard(self, keys: Iterable[CacheKey]) -> None:
        """Forget entries."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class EmbeddedAhead:
    """An embedder that is asked about the same texts twice within a batch, and embeds them once.

    Args:
        embedder: Does it.
    """

    def __init__(self, embedder: TextEmbedder) -> None:
        self._embedder = embedder
        self.dimensions = embedder.dimensions
        self._known: dict[str, FloatArray] = {}

    def ahead(self, texts: Sequence[str]) -> FloatArray:
        """The same as `embed`, and remembered until `embed` is asked."""
        vectors = self._embedder.embed(texts)
        self._known = dict(zip(texts, vectors, strict=True))
        return vectors

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return (len(texts), dimensions) unit vectors."""
        known, self._known = self._known, {}
        if not known:
            return self._embedder.embed(texts)
        strangers = [text for text in texts if text not in known]
        if strangers:
            known |= zip(strangers, self._embedder.embed(strangers), strict=True)
        return np.stack([known[text] for text in texts])

    def let_go(self) -> None:
        """Let go of texts that nobody asked about again."""
        self._known = {}


class Hit(NamedTuple):
    """A hit that its listeners are to be told of."""

    decision_id: str
    episode_id: str | None
    entry: CachedDecision
    tier: str
    degraded: tuple[str, ...]
    seconds: float


class DecisionNotes:
    """A listener that hands the events of a call to whoever makes that call, in the same thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def taken(self) -> Iterator[dict[str, DecisionEvent]]:
        """Take the events of decisions that this thread makes in the block, by decision id."""
        events: dict[str, DecisionEvent] = {}
        self._local.events = events
        try:
            yield events
        finally:
            self._local.events = None

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take note of the decisions of one batch."""
        taken: dict[str, DecisionEvent] | None = getattr(self._local, "events", None)
        if taken is not None:
            taken.update((event.answer["decision_id"], event) for event in events)


def price_of(snapshot: EngineSnapshot) -> float:
    """Price of money by which spend is paced, in successes per USD; 0 without pacing."""
    return 0.0 if snapshot.pace is None else snapshot.pace.cost_weight


@dataclass(frozen=True)
class Deciding:
    """What a cache is put in front of.

    Attributes:
        decide: Decides a batch.
        notes: Listens to it.
        snapshot: What the next batch rests on.
        sessions: Which model each session used last.
        make_ids: Makes so many decision ids.
        embedder: For prompts; `decide` uses the same.
        troubles: What should work and does not at the moment, beside Redis, as answers say it.
    """

    decide: Callable[[Sequence[RouteRequest]], list[Any]]
    notes: DecisionNotes
    snapshot: Callable[[], EngineSnapshot]
    sessions: SessionMemory
    make_ids: Callable[[int], list[str]]
    embedder: EmbeddedAhead
    troubles: Callable[[], tuple[str, ...]] = tuple


@dataclass(frozen=True)
class CacheTiers:
    """Where entries are.

    Attributes:
        local: In this process.
        redis: Shared by all processes, or None.
        similar: Index of prompts, or None.
    """

    local: LocalTier
    redis: RedisTier | None = None
    similar: SimilarityIndex | None = None
