"""The decision log: every decision goes to the store soon after its answer, and is found there by its id.

On the request path a decision costs one entry in a queue. Its bytes are made in the writer's thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import StoreFormatError, UnknownDecisionError
from monkey_coder.models import TASK_TYPES, Preferences, TaskType
from monkey_coder.ports import DecisionEvent, Deliberation, FloatArray, RouteBatch
from monkey_coder.quantum.decision_record import MARKS, PER_MODEL, SCALARS, DecisionRecord, Layout, decode, encode
from monkey_coder.quantum.explanation import Precedent
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.state_encoder import ENCODING_VERSION
from monkey_coder.storage.port import DecisionLog as StoredDecisions
from monkey_coder.storage.port import DecisionRow

LIFETIME_S: Final = 30 * 86_400.0
"""How long a decision id is accepted."""

RECENT: Final = 256
"""Decisions among which precedents are looked for."""

LEAST_SIMILAR: Final = 0.4
"""Cosine below which a prompt is no precedent."""


class DecisionLog:
    """A listener that hands decisions to a writer.

    Args:
        put: Takes what makes a row, and calls it later, in a thread of its own; never waits and never raises.
        wall_clock: Seconds since 1970.
    """

    def __init__(self, put: Callable[[Callable[[], DecisionRow]], None], wall_clock: Callable[[], float]) -> None:
        self._put = put
        self._now = wall_clock

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take note of the decisions of one batch."""
        rows = _Rows(events, self._now())
        for place in range(len(events)):
            self._put(partial(rows.row, place))


class _Rows:
    """The rows of one batch; the records of all are made when the first is asked for. For one thread at a time."""

    __slots__ = ("_events", "_made_at", "_records")

    def __init__(self, events: Sequence[DecisionEvent], made_at: float) -> None:
        self._events, self._made_at = events, made_at
        self._records: list[DecisionRecord] = []

    def row(self, place: int) -> DecisionRow:
        if not self._records:
            self._records = records_of(self._events, self._made_at)
            self._events = ()
        record = self._records[place]
        return DecisionRow(record.id, record.made_at, encode(record))


def records_of(events: Sequence[DecisionEvent], made_at: float) -> list[DecisionRecord]:
    """Turn the events of a batch into records, with one copy of the arrays for all of them.

    Args:
        events: In any order.
        made_at: When they were decided, in seconds since 1970.
    """
    records: list[DecisionRecord] = []
    for _, together in groupby(events, key=lambda event: id(event.deliberation)):
        same = list(together)
        batch, told = same[0].batch, same[0].deliberation
        if batch is None or told is None:
            records += [_answer_alone(event, made_at) for event in same]
        else:
            records += _records(same, batch, told, made_at)
    return records


def find_decision(decision_id: str, ids: SignedIds, log: StoredDecisions, now_s: float) -> DecisionRecord:
    """Look a decision up; may wait for the store.

    Args:
        decision_id: As it was answered, or whatever a caller takes for it.
        ids: Tells real ids from forged ones.
        log: Where decisions are.
        now_s: Seconds since 1970.

    Raises:
        UnknownDecisionError: The id is forged, expired, or not (or not yet, or no longer) in the log.
        StoreUnavailableError: The store does not answer.
        StoreFormatError: The logged decision is damaged.
    """
    issued_at = ids.issued_at(decision_id)
    if issued_at is None:
        raise UnknownDecisionError("this is no decision id of this deployment")
    if now_s - issued_at > LIFETIME_S:
        raise UnknownDecisionError(f"decisions are kept for {LIFETIME_S / 86_400:.0f} days, and this one is older")
    payload = log.decision(decision_id)
    if payload is None:
        raise UnknownDecisionError(
            "the id is genuine, but the decision is not in the log; it gets there within a second of its answer"
        )
    record = decode(payload)
    return record if record.same_as is None else _repeated(record, log)


def recent_precedents(log: StoredDecisions, embedding: FloatArray, most: int) -> list[Precedent]:
    """The decisions, among the most recent ones, whose prompts were most similar; may wait for the store.

    Args:
        log: Where decisions are.
        embedding: (D,) of the prompt, unit length.
        most: How many to return.

    Returns:
        The most similar first. What became of them is not known here: `success` is None.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found: list[DecisionRecord] = []
    for row in log.recent_decisions(0.0, RECENT):
        try:
            record = decode(row.payload)
        except StoreFormatError:
            continue  # of another version: no precedent, and no reason to fail
        if record.encoding_version == ENCODING_VERSION and record.dimensions == len(embedding) > 0:
            found.append(record)
    if not found:
        return []
    similarity = np.stack([record.embedding for record in found]) @ embedding
    return [
        Precedent(
            decision_id=found[place].id,
            similarity=round(float(np.clip(similarity[place], -1.0, 1.0)), 4),
            model=found[place].served,
            success=None,
        )
        for place in np.argsort(-similarity, kind="stable")[:most].tolist()
        if similarity[place] >= LEAST_SIMILAR
    ]


def _answer_alone(event: DecisionEvent, made_at: float) -> DecisionRecord:
    return DecisionRecord(
        answer=event.answer,
        made_at=made_at,
        refs=(),
        strategies=(),
        preferences=Preferences(),
        task=_task(event),
        attempts_left=1 if event.batch is None else int(event.batch.attempts_left[event.row]),
        input_tokens=0,
        output_tokens=0,
        budget_usd=math.inf,
        last=-1,
        stays=False,
        dimensions=0,
        encoding_version=ENCODING_VERSION,
        numbers=np.zeros(Layout(0, 0, 0).numbers, dtype=np.float32),
        marks=np.zeros(0, dtype=np.uint8),
        same_as=None if event.reuse is None else event.reuse.origin,
    )


def _task(event: DecisionEvent) -> TaskType:
    if event.reuse is not None:
        return event.reuse.task
    return "general" if event.batch is None else TASK_TYPES[event.batch.task[event.row]]


def _repeated(record: DecisionRecord, log: StoredDecisions) -> DecisionRecord:
    """A decision from the cache with what the one was made from that it repeats, as long as that one is kept."""
    payload = None if record.same_as is None else log.decision(record.same_as)
    if payload is None:
        return record
    original = decode(payload)
    if not original.refs:
        return record
    numbers = original.numbers.copy()
    numbers[original.layout.of_models("distribution")] = np.arange(len(original.refs)) == original.winner  # for certain
    return replace(original, answer=record.answer, made_at=record.made_at, numbers=numbers, same_as=record.same_as)


def _records(
    events: Sequence[DecisionEvent], batch: RouteBatch, told: Deliberation, made_at: float
) -> list[DecisionRecord]:
    numbers, marks = _numbers(events, batch, told), _marks(batch, told)
    tasks: list[int] = batch.task.tolist()
    left: list[int] = batch.attempts_left.tolist()
    tokens: list[tuple[int, int]] = list(zip(told.input_tokens.tolist(), told.output_tokens.tolist(), strict=True))
    budgets: list[float] = told.budget_usd.tolist()
    last: list[int] = told.last.tolist()
    stays: list[bool] = told.stays.tolist()
    return [
        DecisionRecord(
            answer=event.answer,
            made_at=made_at,
            refs=batch.table.refs,
            strategies=told.strategies,
            preferences=told.preferences[row],
            task=TASK_TYPES[tasks[row]],
            attempts_left=left[row],
            input_tokens=tokens[row][0],
            output_tokens=tokens[row][1],
            budget_usd=budgets[row],
            last=last[row],
            stays=stays[row],
            dimensions=batch.embedding.shape[1],
            encoding_version=ENCODING_VERSION,
            numbers=numbers[row],
            marks=marks[row],
        )
        for event in events
        for row in [event.row]
    ]


def _numbers(events: Sequence[DecisionEvent], batch: RouteBatch, told: Deliberation) -> FloatArray:
    """(B, Layout.numbers)."""
    rows, models = batch.candidates.shape
    distribution = np.zeros((rows, models), dtype=np.float32)
    for event in events:
        distribution[event.row] = event.distribution
    none = np.full((rows, models), np.nan, dtype=np.float32)
    per_model: dict[str, NDArray[np.generic]] = {
        "prior": batch.success,
        "evidence": batch.evidence,
        "cost_usd": batch.cost_usd,
        "latency_s": batch.latency_s,
        "bonus": told.bonus,
        "distribution": distribution,
        "success": told.success,
        "low": told.low,
        "high": told.high,
        "collapsed": told.collapsed,
        "order": told.order,
    }
    scalars: tuple[FloatArray, ...] = tuple(getattr(batch, name)[:, None] for name in SCALARS)
    parts: list[NDArray[np.generic]] = [
        *scalars,
        batch.state,
        *(per_model[name] for name in PER_MODEL),
        told.confidence.T,
        told.reliability.T,
        np.broadcast_to(told.arrival, told.voting.T.shape),
        *told.utility,
        *(none if chances is None else chances for chances in told.chances),
    ]
    numbers: FloatArray = np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
    return numbers


def _marks(batch: RouteBatch, told: Deliberation) -> NDArray[np.uint8]:
    """(B, Layout.marks)."""
    per_model = {
        "exclusions": told.exclusions,
        "attempts": batch.attempts.view(np.uint8),
        "available": np.broadcast_to(batch.table.available, batch.candidates.shape).view(np.uint8),
    }
    return np.concatenate([*(per_model[name] for name in MARKS), told.voting.T.view(np.uint8)], axis=1)
