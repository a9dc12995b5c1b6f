"""Outcomes as a store would stream them, and decisions of a real engine to report on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from builders import ask
from deciding import MADE_AT, recorded

from monkey_coder.models import FeedbackRequest
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.storage.port import OutcomeRow, StreamedOutcome


def decisions(count: int = 1, **request: Any) -> list[DecisionRecord]:
    """Decisions by the objective strategies, each of another prompt, a second apart."""
    asked = [ask(f"Fix test number {place}", **request) for place in range(count)]
    records, _ = recorded(*objective_strategies(), requests=asked, epsilon=0.3)
    return [replace(record, made_at=MADE_AT + place) for place, record in enumerate(records)]


def changed(record: DecisionRecord, made_at: float | None = None, **answer: Any) -> DecisionRecord:
    """The same decision with another answer."""
    return replace(record, made_at=record.made_at if made_at is None else made_at, answer={**record.answer, **answer})


def report(record: DecisionRecord, *, at: float = 10.0, by: str = "anonymous", **said: Any) -> OutcomeRow:
    """A report that comes so many seconds after the decision; a success unless something else is said."""
    if not {"success", "quality", "error_type"} & set(said):
        said["success"] = True
    asked = FeedbackRequest.model_validate({"decision_id": record.id, **said}, strict=False)
    return outcome_row(asked, Reporter(by, record.made_at + at))


def stream(rows: Sequence[OutcomeRow], start: int = 1) -> list[StreamedOutcome]:
    """Rows as they come out of a store, with positions."""
    return [StreamedOutcome(str(place), row) for place, row in enumerate(rows, start)]


def lookup(records: Sequence[DecisionRecord]) -> Mapping[str, DecisionRecord]:
    """Decisions by their ids."""
    return {record.id: record for record in records}
