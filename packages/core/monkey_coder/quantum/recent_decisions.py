"""What must be known of a decision to learn from its outcome, and the latest decisions of this process by their ids."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from monkey_coder.models import TASK_TYPES, TaskType
from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.outlook import Outlook


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """What must be known of a decision to learn from its outcome.

    Attributes:
        task: Task type.
        served: Ref of the decided model.
        opinions: Each strategy's first choice; None where it had no opinion.
        origin: Id of the decision, or of the one that it repeats.
        outlook: What was foreseen; None where the heuristic or the cache answered.
    """

    task: TaskType
    served: str
    opinions: Mapping[str, str | None]
    origin: str = ""
    outlook: Outlook | None = None

    @classmethod
    def of(
        cls, task: TaskType, answer: Mapping[str, Any], same_as: str | None = None, outlook: Outlook | None = None
    ) -> Self:
        """From an answer in contract form, the id of the decision that it repeats, and what was foreseen."""
        opinions = {thread["strategy"]: thread["model"] for thread in answer["thread_results"]}
        ref = f"{answer['provider']}/{answer['model']}"
        return cls(task, ref, opinions, same_as or answer["decision_id"], outlook)


class RecentDecisions:
    """The latest decisions of this process, which are reported on before the log has them. Safe for all threads.

    Few of them are ever asked for, so that what must be known of one is gathered when it is.

    Args:
        size: How many to keep; there may be a tenth more at times.
    """

    def __init__(self, size: int = 3_000) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._events: dict[str, DecisionEvent] = {}

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take note of the decisions of one batch."""
        with self._lock:
            self._events.update((event.answer["decision_id"], event) for event in events)
            surplus = len(self._events) - self._size
            if surplus > self._size // 10:
                for oldest in list(islice(self._events, surplus)):
                    del self._events[oldest]

    def get(self, decision_id: str) -> DecisionFacts | None:
        """The facts of a decision, if it is one of the latest here."""
        event = self._events.get(decision_id)
        task = None if event is None else _task(event)
        if event is None or task is None:
            return None
        return DecisionFacts.of(
            task, event.answer, event.reuse.origin if event.reuse else None, Outlook.of_event(event)
        )


def _task(event: DecisionEvent) -> TaskType | None:
    """The task type of a decision, if it is known."""
    if event.reuse is not None:
        return event.reuse.task
    return None if event.batch is None else TASK_TYPES[event.batch.task[event.row]]
