"""Tells listeners of hits, and metrics of what the cache did: in bulk, a moment later, in a thread of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson

from monkey_coder.ports import DecisionEvent, DecisionListener, Reuse
from monkey_coder.quantum.cache_parts import Hit
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.repeating import repeat

TELL_EVERY_S: Final = 0.05
"""Longest delay of a hit on its way to the log; a crash loses no more."""

MOST_AT_ONCE: Final = 512

PARTS_KEPT: Final = 512
"""Answers that are kept as read: few entries have most of the hits, and to read one takes longer than the rest."""

_CERTAIN: Final = np.ones(1, dtype=np.float32)
"""Distribution over the one model that a hit can serve."""

METRIC_RESULTS: Final = frozenset(
    {"hit", "miss", "stored", "rejected", "evicted", "expired", "invalidated", "corrupt", "error", "disagreed"}
)
"""What `MetricsCollector.on_cache` knows of all that is counted."""

_log = logging.getLogger(__name__)


class HitTeller:
    """Hands hits on to whoever listens to decisions. One thread at a time.

    Args:
        cache: Where hits come from.
        listeners: Returns who listens now; asked anew each time.
        on_cache: Takes a tier, a result and how often; see `MetricsCollector.on_cache`.
    """

    def __init__(
        self,
        cache: RoutingCache,
        listeners: Callable[[], Sequence[DecisionListener]],
        on_cache: Callable[[str, str, int], None],
    ) -> None:
        self._cache, self._listeners, self._on_cache = cache, listeners, on_cache
        self._counted: Counter[tuple[str, str]] = Counter()
        self._parts: Callable[[bytes], dict[str, Any]] = lru_cache(maxsize=PARTS_KEPT)(orjson.loads)

    def tell(self) -> int:
        """Tell all that has not been told; returns how many hits that were."""
        told = 0
        while hits := self._next():
            events = [_event(hit, self._answer(hit)) for hit in hits]
            for listener in self._listeners():
                try:
                    listener.on_decided(events)
                except Exception:  # noqa: BLE001 - what is only told about must not keep it from the others
                    _log.exception("a listener failed on %d hits", len(events))
            told += len(hits)
        self._count()
        return told

    async def run(self, executor: Executor) -> None:
        """Tell again and again until cancelled."""
        await repeat(executor, TELL_EVERY_S, self.tell, log=_log, failed="hits of the cache could not be told of")

    def _next(self) -> list[Hit]:
        untold = self._cache.untold
        hits: list[Hit] = []
        while untold and len(hits) < MOST_AT_ONCE:
            hits.append(untold.popleft())
        return hits

    def _answer(self, hit: Hit) -> dict[str, Any]:
        """The answer of a hit, in contract form; those of one entry share their parts, which are not to be changed."""
        return {
            "decision_id": hit.decision_id,
            "episode_id": hit.episode_id or hit.decision_id,
            **self._parts(hit.entry.answer),
            "cache": hit.tier,
            "propensity": 1.0,
            "degraded": list(hit.degraded),
            "execution_time_ms": round(hit.seconds * 1e3, 3),
        }

    def _count(self) -> None:
        local = self._cache.tiers.local
        counts = Counter(self._cache.counts)
        counts["local", "evicted"], counts["local", "expired"] = local.evicted, local.expired
        for (tier, result), times in counts.items():
            fresh = times - self._counted[tier, result]
            if fresh and result in METRIC_RESULTS:
                self._on_cache(tier, result, fresh)
        self._counted = counts


def _event(hit: Hit, answer: dict[str, Any]) -> DecisionEvent:
    return DecisionEvent(
        answer=answer,
        batch=None,
        row=0,
        distribution=_CERTAIN,
        duration_s=hit.seconds,
        reuse=Reuse(hit.entry.origin, hit.entry.task, hit.entry.answer),
    )
