"""The decision log: every decision is findable by its id, and writing it down never holds anybody up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import SECRET, Fixed, SetClock, ask, engine
from deciding import Recorder

from monkey_coder.errors import StoreFormatError, StoreUnavailableError, UnknownDecisionError
from monkey_coder.quantum.decision_log import (
    LIFETIME_S,
    RECENT,
    DecisionLog,
    find_decision,
    recent_precedents,
)
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.storage.background_writer import BackgroundWriter
from monkey_coder.storage.port import DecisionRow
from monkey_coder.storage.sqlite_store import SqliteStore

IDS = SignedIds(SECRET, time.time, os.urandom)


def logged(prompts: Sequence[str], put: Callable[[Any], None], now: float = 50.0) -> list[Any]:
    with engine(Fixed("only", [0.5, 0.4, 0.3]), listeners=[DecisionLog(put, SetClock(now))]) as manager:
        return manager.decide([ask(prompt) for prompt in prompts])


def test_decisions_are_found_by_their_ids_soon_after(store: SqliteStore) -> None:
    errors: list[Exception] = []
    writer = BackgroundWriter(store, errors.append, SetClock(50.0))
    answers = logged([f"task {number}" for number in range(5)], writer.put)
    writer.close()
    for answer in answers:
        record = find_decision(answer["decision_id"], IDS, store, time.time())
        assert record.answer == answer
        assert record.made_at == 50.0
    assert errors == []
    assert writer.dropped == 0


def test_bytes_are_made_by_whoever_writes_and_not_on_the_way_of_a_request() -> None:
    waiting: list[Callable[[], DecisionRow]] = []
    answers = logged(["one", "two"], waiting.append)
    assert [callable(row) for row in waiting] == [True, True]
    rows = [row() for row in reversed(waiting)]
    assert [row.id for row in rows] == [answer["decision_id"] for answer in reversed(answers)]
    assert [decode(row.payload).id for row in rows] == [row.id for row in rows]


def test_a_decision_that_cannot_be_written_is_lost_alone_and_the_error_names_it(store: SqliteStore) -> None:
    errors: list[Exception] = []
    recorder = Recorder()
    with engine(Fixed("only", [0.5, 0.4, 0.3]), listeners=[recorder]) as manager:
        answers = manager.decide([ask(f"task {number}") for number in range(5)])
    events = list(recorder.events)
    events[2] = replace(events[2], answer={**events[2].answer, "persona": "\ud800"})  # no text that has bytes
    writer = BackgroundWriter(store, errors.append, SetClock(50.0))
    DecisionLog(writer.put, SetClock(50.0)).on_decided(events)
    writer.close()
    ids = [answer["decision_id"] for answer in answers]
    assert [store.decision(name) is not None for name in ids] == [True, True, False, True, True]
    assert find_decision(ids[3], IDS, store, time.time()).answer == answers[3]
    assert writer.dropped == 1
    (error,) = errors
    assert ids[2] in str(error)
    assert "cannot be logged" in str(error)


def test_forged_expired_and_unlogged_ids_are_told_apart(store: SqliteStore) -> None:
    (genuine,) = IDS.make(1)
    with pytest.raises(UnknownDecisionError, match="no decision id of this deployment"):
        find_decision(genuine[:-1] + ("A" if genuine[-1] != "A" else "B"), IDS, store, time.time())
    with pytest.raises(UnknownDecisionError, match="kept for 30 days"):
        find_decision(genuine, IDS, store, time.time() + LIFETIME_S + 1)
    with pytest.raises(UnknownDecisionError, match="not in the log; it gets there within a second"):
        find_decision(genuine, IDS, store, time.time())


def test_a_damaged_entry_and_an_absent_store_are_said_so(store: SqliteStore) -> None:
    (genuine,) = IDS.make(1)
    store.append_decisions([DecisionRow(genuine, 1.0, b"scrambled")])
    with pytest.raises(StoreFormatError):
        find_decision(genuine, IDS, store, time.time())
    store.close()
    with pytest.raises(StoreUnavailableError):
        find_decision(genuine, IDS, store, time.time())


class Near:
    """An embedder that puts every prompt at the angle that it names, in degrees."""

    dimensions = 2

    def embed(self, texts: Sequence[str]) -> Any:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_precedents_are_the_most_similar_of_the_recent_decisions(store: SqliteStore) -> None:
    rows: list[Callable[[], DecisionRow]] = []
    log = DecisionLog(rows.append, SetClock(5.0))
    with engine(Fixed("only", [0.5, 0.4, 0.3]), listeners=[log], embedder=Near()) as manager:
        answers = {angle: manager.decide([ask(angle)])[0] for angle in ("0", "170", "20", "45", "80")}
    store.append_decisions([row() for row in rows])
    store.append_decisions([DecisionRow("from elsewhere", 6.0, b"of another version")])
    found = recent_precedents(store, np.float32([1.0, 0.0]), 3)
    assert [p.decision_id for p in found] == [answers[angle]["decision_id"] for angle in ("0", "20", "45")]
    assert [p.similarity for p in found] == pytest.approx(np.cos(np.radians([0, 20, 45])), abs=1e-4)
    assert {(p.model, p.success) for p in found} == {("tiny/cheap", None)}
    assert len(recent_precedents(store, np.float32([1.0, 0.0]), 99)) == 3  # the others are too far
    assert recent_precedents(store, np.float32([1.0, 0.0, 0.0]), 3) == []  # another embedding
    old = [DecisionRow(f"later {number}", 9.0, b"") for number in range(RECENT)]
    store.append_decisions(old)
    assert recent_precedents(store, np.float32([1.0, 0.0]), 3) == []


def test_heuristic_answers_are_logged_too(store: SqliteStore) -> None:
    rows: list[Callable[[], DecisionRow]] = []
    mute = Fixed("mute", [0.5] * 3, abstains=True)
    with engine(mute, listeners=[DecisionLog(rows.append, SetClock(5.0)), recorder := Recorder()]) as manager:
        manager.decide([ask()])
    assert len(recorder.events) == 1
    record = decode(rows[0]().payload)
    assert record.answer["degraded"] == ["quantum"]
    store.append_decisions([row() for row in rows])
    assert recent_precedents(store, record.embedding, 3) == []
