"""What must be known of a decision to learn from its outcome; of this process, or read from the log in little time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from monkey_coder.models import TASK_TYPES, TaskType
from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.outlook import Forecast, Outlook
from monkey_coder.quantum.record_bytes import open_record
from monkey_coder.quantum.state_encoder import ENCODING_VERSION


@dataclass(slots=True)  # not frozen, which would make it slow to build: there are thousands a second
class DecisionFacts:
    """What must be known of a decision to learn from its outcome; not to be changed.

    Attributes:
        task: Task type.
        served: Ref of the decided model.
        opinions: Each strategy's first choice; None where it had no opinion.
        origin: Id of the decision, or of the one that it repeats.
        outlook: What was foreseen; None where the heuristic or the cache answered, or by another encoding.
    """

    task: TaskType
    served: str
    opinions: Mapping[str, str | None]
    origin: str
    outlook: Outlook | None = None

    @classmethod
    def of_event(cls, event: DecisionEvent) -> Self | None:
        """From a decision of this process; None where its task type is not known."""
        if event.reuse is not None:
            return cls._of(event.reuse.task, event.answer, _opinions(event.answer), event.reuse.origin, None)
        if event.batch is None:
            return None
        task = TASK_TYPES[event.batch.task[event.row]]
        return cls._of(task, event.answer, _opinions(event.answer), None, Outlook.of_event(event))

    @classmethod
    def of_payload(cls, payload: bytes) -> Self:
        """From a logged decision.

        Raises:
            StoreFormatError: The bytes are damaged, foreign, or of another version; the message says which.
        """
        opened = open_record(payload)
        common, own, outlook = opened.common, opened.own, None
        if common.refs and common.encoding_version == ENCODING_VERSION:
            outlook = Outlook(
                state=opened.numbers[common.layout.numbers["state"]],
                dimensions=common.dimensions,
                input_tokens=own["input_tokens"],
                output_tokens=own["output_tokens"],
                forecast=lambda: Forecast.of_record(decode(payload, whole=False)),
            )
        answer = opened.answer
        return cls._of(own["task"], answer, opened.choices or _opinions(answer), own["same_as"], outlook)

    @classmethod
    def _of(
        cls,
        task: TaskType,
        answer: Mapping[str, Any],
        opinions: Mapping[str, str | None],
        same_as: str | None,
        outlook: Outlook | None,
    ) -> Self:
        ref = f"{answer['provider']}/{answer['model']}"
        return cls(task, ref, opinions, same_as or answer["decision_id"], outlook)


def _opinions(answer: Mapping[str, Any]) -> dict[str, str | None]:
    return {thread["strategy"]: thread["model"] for thread in answer["thread_results"]}
