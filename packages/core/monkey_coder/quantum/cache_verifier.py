"""Decides some of the hits again, to see whether they still stand, and repairs those that do not (R2.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from monkey_coder.errors import RouterError
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.cache_key import CacheKey
from monkey_coder.quantum.cache_parts import Asked, DecisionNotes
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.repeating import repeat

CHECK_EVERY_S: Final = 0.5
MOST_AT_ONCE: Final = 16

_log = logging.getLogger(__name__)


class CacheVerifier:
    """Checks hits in the background. One thread at a time.

    Args:
        cache: Whose hits.
        decide: Decides a batch without exploring, without telling anybody but `notes`, and without touching sessions.
        notes: Listens to it.
    """

    def __init__(
        self, cache: RoutingCache, decide: Callable[[Sequence[RouteRequest]], list[Any]], notes: DecisionNotes
    ) -> None:
        self._cache, self._decide, self._notes = cache, decide, notes
        self.agreed = self.disagreed = 0

    @property
    def disagreement(self) -> float | None:
        """Share of the checked hits that would be decided otherwise now; None before the first."""
        checked = self.agreed + self.disagreed
        return self.disagreed / checked if checked else None

    def check(self) -> int:
        """Check what waits to be checked, and put right what is wrong; returns how many hits were checked."""
        waiting = self._cache.unchecked
        due: list[tuple[Asked, CacheKey, CachedDecision]] = []
        while waiting and len(due) < MOST_AT_ONCE:
            due.append(waiting.popleft())
        if not due:
            return 0
        with self._notes.taken() as events:
            answers = self._decide([plain(asked.request) for asked, _, _ in due])
        made = self._cache.entries_of(list(events.values()))
        for (_, key, entry), answer in zip(due, answers, strict=True):
            event = None if isinstance(answer, RouterError) else events.get(answer["decision_id"])
            if event is not None and f"{answer['provider']}/{answer['model']}" == entry.ref:
                self.agreed += 1
                self._cache.count(_tier(entry), "agreed")
                continue
            self.disagreed += 1
            self._cache.count(_tier(entry), "disagreed")
            fresh = None if event is None else made.get(answer["decision_id"])
            if fresh is None:
                self._cache.forget(entry.origin, entry.ref, key)
            else:
                self._cache.keep(key, fresh)
        return len(due)

    async def run(self, executor: Executor) -> None:
        """Check again and again until cancelled."""
        await repeat(executor, CHECK_EVERY_S, self.check, log=_log, failed="checking cached decisions failed")


def plain(request: RouteRequest) -> RouteRequest:
    """The same request without exploring."""
    options = request.quantum_config.model_copy(update={"explore": False})
    return request.model_copy(update={"quantum_config": options})


def _tier(entry: CachedDecision) -> str:
    return "similar" if entry.of_other else "local"
