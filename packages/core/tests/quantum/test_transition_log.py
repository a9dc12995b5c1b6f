"""Every outcome counts exactly once, whatever happens on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders import ask, engine
from deciding import MADE_AT, Recorder
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import changed, decisions, lookup, report, stream

from monkey_coder.errors import StoreFormatError, StoreUnavailableError
from monkey_coder.quantum.decision_record import DecisionRecord, decode
from monkey_coder.quantum.record_layout import Layout
from monkey_coder.quantum.record_writing import payloads_of
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.transition_log import TransitionLog, TransitionOptions
from monkey_coder.storage.port import DecisionRow, OutcomeRow, StreamedOutcome
from monkey_coder.storage.sqlite_store import SqliteStore

NOW = 1_700_001_000.0


@cache
def some_decisions() -> tuple[DecisionRecord, ...]:
    """Six decisions: two alone, one from a cache, and an episode of three."""
    records = decisions(6)
    records[2] = changed(records[2], cache="local")
    return (*records[:3], *(changed(record, episode_id="an episode") for record in records[3:]))


def contents(log: TransitionLog, now_s: float = NOW) -> list[tuple[object, ...]]:
    """All that learning sees of a log."""
    return [
        (
            each.record.id,
            each.report.model,
            each.report.occurred_at,
            each.report.outcome,
            each.episode,
            each.place,
            each.terminated,
            each.truncated,
            each.drawn,
            each.reward,
            each.next_state.tobytes() if each.ended else None,
        )
        for each in log.attempts(now_s)
    ]


def filled(rows: Sequence[StreamedOutcome], records: Sequence[DecisionRecord], **options: float) -> TransitionLog:
    log = TransitionLog(TransitionOptions(**options))
    log.take(rows, lookup(records).get, NOW)
    return log


reports = st.builds(
    lambda place, at, success, name, other, final: report(
        some_decisions()[place],
        at=at,
        success=success,
        outcome_id=name,
        final=final,
        model=some_decisions()[place].refs[other] if other is not None else None,
    ),
    st.integers(0, 5),
    st.integers(1, 50).map(float),
    st.booleans(),
    st.sampled_from([None, None, "one", "two"]),
    st.sampled_from([None, None, 0, 1]),
    st.booleans(),
)


def as_stored(rows: Sequence[OutcomeRow]) -> list[StreamedOutcome]:
    """What a store streams of these reports: of one name the first, and of others only what is newer."""
    stands: dict[str, OutcomeRow] = {}
    kept = []
    for row in rows:
        earlier = stands.get(row.identity)
        if earlier is None or (row.outcome_id is None and row.occurred_at > earlier.occurred_at):
            stands[row.identity] = row
            kept.append(row)
    return stream(kept)


@settings(max_examples=60)
@given(st.lists(reports, max_size=14), st.randoms(use_true_random=False), st.integers(1, 6))
def test_neither_order_nor_repetition_changes_what_is_learned(rows, random, most) -> None:
    rows = as_stored(rows)
    once = filled(rows, some_decisions(), most_decisions=most)
    shuffled = TransitionLog(TransitionOptions(most_decisions=most))
    again = [*rows, *random.sample(rows, len(rows) // 2)]
    random.shuffle(again)
    while again:
        bulk, again = again[:3], again[3:]
        shuffled.take(bulk, lookup(some_decisions()).get, NOW)
    assert contents(shuffled) == contents(once)
    assert shuffled.counts == once.counts


@settings(max_examples=60)
@given(st.lists(reports, max_size=14), st.integers(0, 14), st.integers(0, 6), st.integers(1, 6))
def test_a_killed_learner_reads_again_from_where_it_must_and_has_the_same(rows, killed, late, most) -> None:
    rows = as_stored(rows)
    known = lookup(some_decisions())
    readable = {each: known[each] for each in list(known)[late:]}  # the others come into the log later
    first = TransitionLog(TransitionOptions(most_decisions=most))
    first.take(rows[:killed], readable.get, NOW)
    since = first.since
    second = TransitionLog(TransitionOptions(most_decisions=most), since)
    after = [row for row in rows if int(row.position) > int(since)]
    second.take(after, known.get, NOW)
    assert contents(second) == contents(filled(rows, some_decisions(), most_decisions=most))


def test_a_correction_takes_the_place_of_what_was_said_before() -> None:
    (record,) = decisions()
    said = stream([report(record, at=5.0), report(record, at=9.0, success=False)])
    for rows in (said, said[::-1]):
        (attempt,) = filled(rows, [record]).attempts(NOW)
        assert attempt.score == 0.0


def test_the_decided_model_is_the_same_whether_it_is_named_or_not() -> None:
    (record,) = decisions()
    rows = stream([report(record, at=5.0), report(record, at=9.0, success=False, model=record.served)])
    log = filled(rows, [record])
    assert log.counts.outcomes == 1
    assert [attempt.score for attempt in log.attempts(NOW)] == [0.0]


def test_reports_of_different_names_are_kept_apart_and_the_newest_speaks() -> None:
    (record,) = decisions()
    rows = stream([report(record, at=5.0, outcome_id="a"), report(record, at=9.0, success=False, outcome_id="b")])
    log = filled(rows, [record])
    assert log.counts.outcomes == 2
    assert [attempt.score for attempt in log.attempts(NOW)] == [0.0]


def test_an_outcome_waits_for_its_decision() -> None:
    (record,) = decisions()
    log = TransitionLog()
    assert log.take(stream([report(record)]), lambda _: None, NOW) == []
    assert (log.counts.waiting, log.counts.decisions, log.since) == (1, 0, "0")
    asked = []

    def not_yet(decision_id: str) -> None:
        asked.append(decision_id)

    assert log.take([], not_yet, NOW + 0.1) == []
    assert asked == []
    assert log.take([], not_yet, NOW + 1.0) == []
    assert asked == [record.id]
    (word,) = log.take([], lookup([record]).get, NOW + 3.0)
    assert word.decision_id == record.id
    assert (log.counts.waiting, log.counts.decisions) == (0, 1)


def test_one_whose_decision_never_comes_is_given_up() -> None:
    (record,) = decisions()
    log = TransitionLog()
    log.take(stream([report(record)]), lambda _: None, NOW)
    log.take([], lambda _: None, NOW + 100_000.0)
    assert (log.counts.waiting, log.counts.given_up, log.since) == (0, 1, "1")
    few = filled(stream([report(each) for each in decisions(5)]), [], most_waiting=2)
    assert (few.counts.waiting, few.counts.given_up) == (2, 3)


def test_if_the_store_fails_nothing_of_the_rows_is_taken() -> None:
    known = decisions(3)
    rows = stream([report(record) for record in known])
    calls = []

    def failing(decision_id: str) -> DecisionRecord:
        calls.append(decision_id)
        if len(calls) == 3:
            raise StoreUnavailableError("gone")
        return lookup(known)[decision_id]

    log = TransitionLog()
    with pytest.raises(StoreUnavailableError):
        log.take(rows, failing, NOW)
    assert (log.counts.outcomes, log.since) == (0, "0")
    assert len(log.take(rows, lookup(known).get, NOW)) == 3
    assert contents(log) == contents(filled(rows, known))


def test_damaged_and_foreign_rows_cost_only_themselves() -> None:
    good, damaged, foreign, heuristic = decisions(4)
    foreign = replace(foreign, encoding_version=1)
    nothing = {"layout": Layout(0, 0, 0), "numbers": np.zeros(4, np.float32), "marks": np.zeros(0, np.uint8)}
    heuristic = replace(heuristic, refs=(), strategies=(), **nothing)
    known = lookup([good, foreign, heuristic])

    def read(decision_id: str) -> DecisionRecord | None:
        if decision_id == damaged.id:
            raise StoreFormatError("its checksum does not fit")
        return known.get(decision_id)

    rows = [report(each) for each in (damaged, foreign, heuristic)]
    rows += [replace(report(good), payload=b"{]"), report(good)]
    log = TransitionLog()
    assert [word.decision_id for word in log.take(stream(rows), read, NOW)] == [good.id]
    assert log.counts.unusable == 4
    assert len(log.attempts(NOW)) == 1


def test_a_decision_from_a_cache_is_learned_as_the_one_that_it_repeats() -> None:
    original, other = decisions(2)
    bare = {"refs": (), "strategies": (), "numbers": np.zeros(4, np.float32), "marks": np.zeros(0, np.uint8)}
    hit = replace(changed(other, cache="local"), **bare, same_as=original.id)
    hit = changed(hit, provider=original.answer["provider"], model=original.answer["model"])
    log = TransitionLog()
    (word,) = log.take(stream([report(hit)]), lookup([original, hit]).get, NOW)
    assert (word.decision_id, word.cached, word.model) == (hit.id, True, original.served)
    (attempt,) = log.attempts(NOW)
    assert attempt.record.embedding.tolist() == original.embedding.tolist()
    assert not attempt.drawn
    orphan = TransitionLog()
    orphan.take(stream([report(hit)]), lookup([hit]).get, NOW)
    assert (orphan.counts.unusable, orphan.counts.waiting) == (1, 0)


def test_the_first_word_on_a_decision_is_told_once() -> None:
    (record,) = decisions()
    record = changed(record, policy_version=7)
    log, known = TransitionLog(), lookup([record]).get
    rows = stream(
        [
            report(record, at=1.0, error_type="timeout"),
            report(record, at=2.0, success=True, model=record.refs[-1])
            if record.refs[-1] != record.served
            else report(record, at=2.0, success=True, model=record.refs[0]),
            report(record, at=3.0, success=False),
            report(record, at=4.0, success=True),
        ]
    )
    told = [log.take([row], known, NOW) for row in rows]
    assert [len(words) for words in told] == [0, 0, 1, 0]
    word = told[2][0]
    assert (word.score, word.policy_version, word.model, word.task) == (0.0, 7, record.served, record.task)
    assert word.reward < 0.0
    assert log.take(rows, known, NOW) == []


def test_only_what_says_something_new_of_quality_makes_a_new_training_worthwhile() -> None:
    known = decisions(3)
    rows = stream(
        [report(known[0], at=10.0), report(known[1], at=10.0), report(known[2], at=10.0, error_type="timeout")]
    )
    log = filled(rows, known)
    assert log.outcomes_after(0.0) == 2
    assert log.outcomes_after(known[0].made_at + 10.0) == 1


@pytest.mark.parametrize("knob", ["episode_s", "most_decisions", "most_waiting", "wait_s"])
def test_senseless_bounds_are_refused(knob: str) -> None:
    with pytest.raises(ValueError, match=knob):
        TransitionOptions(**{knob: 0})


def test_a_log_comes_back_from_a_real_store(tmp_path: Path) -> None:
    recorder = Recorder()
    with engine(*objective_strategies(), listeners=[recorder], epsilon=0.3) as manager:
        manager.decide([ask(f"Fix test number {place}") for place in range(5)])
    payloads = [payloads_of([each], MADE_AT + place)[0] for place, each in enumerate(recorder.events)]
    known = [decode(payload) for payload in payloads]
    store = SqliteStore(tmp_path / "store.db", lambda: NOW)
    try:
        store.append_decisions(
            [DecisionRow(each.id, each.made_at, payload) for each, payload in zip(known, payloads, strict=True)]
        )
        store.append_outcomes([report(record, at=1.0, success=False) for record in known])
        store.append_outcomes([report(known[1], at=2.0), report(known[1], at=1.5, success=False)])

        def read(decision_id: str) -> DecisionRecord | None:
            payload = store.decision(decision_id)
            return None if payload is None else decode(payload)

        def follow(log: TransitionLog) -> TransitionLog:
            position = log.since
            while rows := store.read_outcomes(position, 2):
                log.take(rows, read, NOW)
                position = rows[-1].position
            return log

        first = follow(TransitionLog(TransitionOptions(most_decisions=4)))
        again = follow(TransitionLog(TransitionOptions(most_decisions=4), first.since))
        assert contents(first) == contents(again)
        assert [attempt.score for attempt in first.attempts(NOW)] == [1.0, 0.0, 0.0, 0.0]
    finally:
        store.close()
