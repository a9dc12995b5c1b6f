"""Tells listeners of hits, and metrics of what the cache did: in bulk, a moment later, in a thread of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, Final

import orjson

from monkey_coder.models import TaskType
from monkey_coder.ports import DecisionListener, Repeat, RepeatListener, Reuse
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.repeating import repeat

TELL_EVERY_S: Final = 0.05
"""Longest delay of a hit on its way to the log; a crash loses no more."""

MOST_AT_ONCE: Final = 512

PARTS_KEPT: Final = 512
"""Answers that are kept as read: few entries have most of the hits, and to read one takes longer than the rest."""

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
        self._parts: Callable[[bytes, str, TaskType], tuple[Reuse, dict[str, Any]]]
        self._parts = lru_cache(maxsize=PARTS_KEPT)(_parts)

    def tell(self) -> int:
        """Tell all that has not been told; returns how many hits that were."""
        told = 0
        while hits := self._next():
            for listener in self._listeners():
                try:
                    if isinstance(listener, RepeatListener):
                        listener.on_repeated(hits)
                    else:
                        listener.on_decided([hit.event() for hit in hits])
                except Exception:  # noqa: BLE001 - what is only told about must not keep it from the others
                    _log.exception("a listener failed on %d hits", len(hits))
            told += len(hits)
        self._count()
        return told

    async def run(self, executor: Executor) -> None:
        """Tell again and again until cancelled."""
        await repeat(executor, TELL_EVERY_S, self.tell, log=_log, failed="hits of the cache could not be told of")

    def _next(self) -> list[Repeat]:
        untold, parts = self._cache.untold, self._parts
        hits: list[Repeat] = []
        for _ in range(min(len(untold), MOST_AT_ONCE)):
            decision_id, episode_id, entry, tier, degraded, seconds = untold.popleft()
            reuse, said = parts(entry.answer, entry.origin, entry.task)
            hits.append(Repeat(decision_id, episode_id or decision_id, tier, degraded, seconds, reuse, said))
        return hits

    def _count(self) -> None:
        local = self._cache.tiers.local
        counts = Counter(self._cache.counts)
        counts["local", "evicted"], counts["local", "expired"] = local.evicted, local.expired
        for (tier, result), times in counts.items():
            fresh = times - self._counted[tier, result]
            if fresh and result in METRIC_RESULTS:
                self._on_cache(tier, result, fresh)
        self._counted = counts


def _parts(answer: bytes, origin: str, task: TaskType) -> tuple[Reuse, dict[str, Any]]:
    return Reuse(origin, task, answer), orjson.loads(answer)
