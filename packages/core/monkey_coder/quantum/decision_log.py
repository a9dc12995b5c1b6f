"""The decision log: every decision goes to the store soon after its answer, and is found there by its id.

On the request path a decision costs one entry in a queue. Its bytes are made in the writer's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from monkey_coder.errors import StoreFormatError, UnknownDecisionError
from monkey_coder.ports import DecisionEvent, FloatArray, Repeat
from monkey_coder.quantum.decision_record import DecisionRecord, decode
from monkey_coder.quantum.explanation import Precedent
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.record_bytes import OpenRecord, open_record
from monkey_coder.quantum.record_writing import payload_of, payloads_of
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

    def on_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Take note of answers from the cache."""
        made_at = self._now()
        for repeat in repeats:
            self._put(partial(_row, repeat, made_at))


def _row(repeat: Repeat, made_at: float) -> DecisionRow:
    return DecisionRow(repeat.decision_id, made_at, payload_of(repeat, made_at))


class _Rows:
    """The rows of one batch; the bytes of all are made when the first is asked for. For one thread at a time."""

    __slots__ = ("_events", "_made_at", "_payloads")

    def __init__(self, events: Sequence[DecisionEvent], made_at: float) -> None:
        self._events, self._made_at = events, made_at
        self._payloads: list[bytes | None] = []

    def row(self, place: int) -> DecisionRow:
        """One of them.

        Raises:
            ValueError: This one cannot be written; the message names it.
        """
        if not self._payloads:
            try:
                self._payloads = [*payloads_of(self._events, self._made_at)]
            except Exception:  # noqa: BLE001 - whatever one decision holds, the others are made by themselves
                self._payloads = [None] * len(self._events)
        decision_id, payload = self._events[place].answer["decision_id"], self._payloads[place]
        if payload is None:
            try:
                (payload,) = payloads_of(self._events[place : place + 1], self._made_at)
            except Exception as error:
                raise ValueError(f"decision {decision_id} cannot be logged, and is lost there: {error!r}") from error
        return DecisionRow(decision_id, self._made_at, payload)


def records_of(events: Sequence[DecisionEvent], made_at: float) -> list[DecisionRecord]:
    """The decisions of a batch as the log will have them.

    Args:
        events: In any order.
        made_at: When they were decided, in seconds since 1970.
    """
    return [decode(payload) for payload in payloads_of(events, made_at)]


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
    found: list[OpenRecord] = []
    for row in log.recent_decisions(0.0, RECENT):
        try:
            record = open_record(row.payload)
        except StoreFormatError:
            continue  # of another version: no precedent, and no reason to fail
        if record.common.encoding_version == ENCODING_VERSION and record.common.dimensions == len(embedding) > 0:
            found.append(record)
    if not found:
        return []
    similarity = np.stack([record.embedding for record in found]) @ embedding
    return [
        _precedent(found[place].answer, float(similarity[place]))
        for place in np.argsort(-similarity, kind="stable")[:most].tolist()
        if similarity[place] >= LEAST_SIMILAR
    ]


def _precedent(answer: Mapping[str, Any], similarity: float) -> Precedent:
    return Precedent(
        decision_id=answer["decision_id"],
        similarity=round(min(max(similarity, -1.0), 1.0), 4),
        model=f"{answer['provider']}/{answer['model']}",
        success=None,
    )


def _repeated(record: DecisionRecord, log: StoredDecisions) -> DecisionRecord:
    """A decision from the cache with what the one was made from that it repeats, as long as that one is kept."""
    payload = None if record.same_as is None else log.decision(record.same_as)
    if payload is None:
        return record
    original = decode(payload)
    if not original.refs:
        return record
    numbers = original.numbers.copy()
    numbers[original.layout.numbers["distribution"]] = np.arange(len(original.refs)) == original.winner  # for certain
    return replace(original, answer=record.answer, made_at=record.made_at, numbers=numbers, same_as=record.same_as)
