"""The latest decisions of this process by their ids, for those who learn from outcomes before the log has them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice

from monkey_coder.ports import DecisionEvent, Repeat
from monkey_coder.quantum.decision_facts import DecisionFacts


class RecentDecisions:
    """The latest decisions of this process, which are reported on before the log has them. Safe for all threads.

    Few of them are ever asked for, so that what must be known of one is gathered when it is.

    Args:
        size: How many to keep; there may be a tenth more at times.
        most_models: How many models all of them together may be about: what is kept grows with the catalog.
    """

    def __init__(self, size: int = 3_000, most_models: int = 1_000_000) -> None:
        self._size, self._most_models = size, most_models
        self._models = 1
        self._lock = threading.Lock()
        self._events: dict[str, DecisionEvent | Repeat] = {}

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take note of the decisions of one batch."""
        with self._lock:
            if events:
                self._models = max(1, len(events[0].distribution))
            self._events.update((event.answer["decision_id"], event) for event in events)
            self._bound()

    def on_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Take note of answers from the cache."""
        with self._lock:
            self._events.update((repeat.decision_id, repeat) for repeat in repeats)
            self._bound()

    def get(self, decision_id: str) -> DecisionFacts | None:
        """The facts of a decision, if it is one of the latest here."""
        event = self._events.get(decision_id)
        if isinstance(event, Repeat):
            event = event.event()
        return None if event is None else DecisionFacts.of_event(event)

    def _bound(self) -> None:
        size = min(self._size, self._most_models // self._models)
        surplus = len(self._events) - size
        if surplus > size // 10:
            for oldest in list(islice(self._events, surplus)):
                del self._events[oldest]
