"""The bytes of a decision: everything comes back, nothing damaged passes, and no prompt is among it."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest
from builders import CHEAP, DEAR, MIDDLE, Fixed, ask, engine, table
from deciding import MADE_AT, Moody, Recorder, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.ports import REJECTED, Scores
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord, decode
from monkey_coder.quantum.gates import REASONS
from monkey_coder.quantum.record_writing import payloads_of
from monkey_coder.quantum.routing_strategies import objective_strategies

REFS = (CHEAP.ref, MIDDLE.ref, DEAR.ref)
PREFIX = struct.Struct("<3sBIII")


def one(**request: Any) -> DecisionRecord:
    (record,), _ = recorded(*objective_strategies(), Moody([0.4, 0.6, 0.9]), requests=[ask(**request)])
    return record


@cache
def one_payload() -> bytes:
    return payload_of()


def payload_of(**request: Any) -> bytes:
    recorder = Recorder()
    with engine(*objective_strategies(), Moody([0.4, 0.6, 0.9]), listeners=[recorder]) as manager:
        manager.decide([ask(**request)])
    (payload,) = payloads_of(recorder.events, MADE_AT)
    return payload


some_requests = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["Fix it", "Write tests for the parser", "é" * 50])},
    optional={
        "preferences": st.sampled_from(
            [{"value_usd": 2.5}, {"quality": 0.9, "cost": 0.0, "latency": 0.0}, {"quality_floor": 0.5}]
        ),
        "excluded_models": st.sampled_from([[CHEAP.ref], [CHEAP.ref, DEAR.ref]]),
        "preferred_providers": st.just(["big"]),
        "attempts": st.just([{"model": CHEAP.ref, "success": False, "cost_usd": 0.25}]),
        "episode_id": st.just("an episode"),
        "session_id": st.just("a session"),
        "options": st.sampled_from([{"collapse_strategy": name} for name in COLLAPSE_NAMES]),
    },
)


@settings(max_examples=40)
@given(st.lists(some_requests, min_size=1, max_size=4))
def test_what_was_decided_comes_back_from_its_bytes(asked: list[dict[str, Any]]) -> None:
    recorder = Recorder()
    with engine(*objective_strategies(), Moody([0.4, 0.6, 0.9]), listeners=[recorder], epsilon=0.5) as manager:
        manager.decide([ask(**request) for request in asked])
    events = [event for event in recorder.events if event.deliberation is not None]
    for event, back in zip(events, records_of(events, MADE_AT), strict=True):
        batch, told, row = event.batch, event.deliberation, event.row
        assert batch is not None
        assert told is not None
        assert (back.answer, back.made_at, back.refs) == (event.answer, MADE_AT, REFS)
        assert back.id == event.answer["decision_id"]
        for name in ("state", "embedding", "candidates", "attempts", "evidence", "cost_usd", "latency_s"):
            np.testing.assert_array_equal(getattr(back, name), getattr(batch, name)[row], name)
        np.testing.assert_array_equal(back.prior, batch.success[row])
        for name in ("success", "low", "high", "collapsed", "order", "exclusions", "bonus", "usd"):
            np.testing.assert_array_equal(getattr(back, name), getattr(told, name)[row], name)
        for name in ("confidence", "reliability", "voting", "first"):
            np.testing.assert_array_equal(getattr(back, name), getattr(told, name)[:, row], name)
        voted = told.voting[:, row]
        np.testing.assert_array_equal(back.utility[voted], told.utility[voted, row])
        np.testing.assert_array_equal(back.arrival, told.arrival)
        np.testing.assert_array_equal(back.distribution, event.distribution)
        assert back.strategies == told.strategies
        for strategy, chances in enumerate(told.chances):
            if chances is None:
                assert np.isnan(back.chances[strategy]).all()
            else:
                np.testing.assert_array_equal(back.chances[strategy], chances[row])
        assert back.cost_weight == batch.cost_weight[row]
        assert back.latency_weight == batch.latency_weight[row]
        assert back.quality_floor == batch.quality_floor[row]
        assert back.complexity == batch.complexity[row]
        assert back.attempts_left == batch.attempts_left[row]
        assert (back.input_tokens, back.output_tokens) == (told.input_tokens[row], told.output_tokens[row])
        assert (back.last, back.stays, back.budget_usd) == (told.last[row], told.stays[row], told.budget_usd[row])
        assert back.preferences == told.preferences[row]


def test_a_record_says_in_plain_words_what_was_asked() -> None:
    record = one(
        excluded_models=[DEAR.ref],
        attempts=[{"model": CHEAP.ref, "success": False, "cost_usd": 0.25}],
        preferences={"value_usd": 4.0, "max_cost_usd": 1.0},
        preferred_providers=["mid"],
        task_type="security",
        input_tokens=321,
        expected_output_tokens=123,
    )
    assert [REASONS[code - 1] if code else None for code in record.exclusions] == [
        "already_tried",
        None,
        "excluded_model",
    ]
    assert record.attempts.tolist() == [REJECTED, 0, 0]
    assert record.cost_weight == 0.25
    assert record.budget_usd == pytest.approx(0.75)
    assert record.bonus.tolist() == pytest.approx([0.0, 0.05, 0.0])
    assert (record.task, record.input_tokens, record.output_tokens) == ("security", 321, 123)
    assert (record.served, record.refs[record.winner]) == (MIDDLE.ref, MIDDLE.ref)
    assert record.last == -1


def test_collapse_groups_of_one_fan_out_keep_their_own_estimates() -> None:
    class ByState:
        name = "by_state"

        def score(self, batch: Any) -> Any:
            success = (1.0 + np.tanh(batch.embedding[:, :3])) / 2
            rows = len(batch)
            half, never = np.full(rows, 0.5, dtype=np.float32), np.zeros(rows, dtype=np.bool_)
            return Scores(success, half, never, success, np.full_like(success, 9.0))

    requests = [ask(f"task {number}", options={"collapse_strategy": COLLAPSE_NAMES[number % 2]}) for number in range(6)]
    records, _ = recorded(ByState(), requests=requests)
    for record in records:
        expected = (1.0 + np.tanh(record.embedding[:3])) / 2
        np.testing.assert_allclose(record.chances[0], expected, rtol=1e-6)
        np.testing.assert_allclose(record.success, expected, rtol=1e-6)


def test_the_prompt_is_nowhere_in_it() -> None:
    secret = "the launch code is nine-eight-seven, tell nobody"
    payload = payload_of(prompt=secret, files=[{"path": "secret_plan.py", "chars": 10}])
    payload += zlib.decompress(payload[PREFIX.size :][: PREFIX.unpack_from(payload)[3]])
    for part in (secret, "launch", "nine-eight-seven", "secret_plan"):
        assert part.encode() not in payload


def test_it_is_small() -> None:
    assert len(one_payload()) < 2_000  # a state of 8 + 82 entries, 3 models, 5 strategies


@settings(max_examples=150)
@given(st.data())
def test_no_damage_goes_unnoticed(data: Any) -> None:
    payload = bytearray(one_payload())
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreFormatError):
        decode(bytes(payload))


@settings(max_examples=50)
@given(st.data())
def test_a_part_of_it_is_not_taken_for_the_whole(data: Any) -> None:
    payload = one_payload()
    with pytest.raises(StoreFormatError):
        decode(payload[: data.draw(st.integers(0, len(payload) - 1))])
    with pytest.raises(StoreFormatError, match="checksum"):
        decode(payload + b"\0")


@given(st.binary(max_size=200))
def test_what_somebody_else_wrote_is_refused(payload: bytes) -> None:
    with pytest.raises(StoreFormatError, match="does not begin as one"):
        decode(payload)


def test_another_version_is_named() -> None:
    payload = bytearray(one_payload())
    payload[3] = 9
    with pytest.raises(StoreFormatError, match=r"has version 9, .* reads version 2"):
        decode(bytes(payload))


OWN = b'[[0,"general",1,0,0,-1,false,null],null,[null,null,null,null,null,null],[],0,[]]'


@pytest.mark.parametrize(
    ("common", "own"),
    [
        (b"nonsense", OWN),
        (zlib.compress(b"nonsense"), OWN),
        (zlib.compress(b"{}"), OWN),
        (zlib.compress(b"[[],[],0,[],0,1,[]]"), b"nonsense"),
        (zlib.compress(b"[[],[],0,[],0,1,[]]"), b"[]"),
        (zlib.compress(b"[[],[],0,[],0,1,[]]"), OWN),
        (zlib.compress(b"[[],[],-4,[],0,1,[]]"), OWN),
        (zlib.compress(b"[[],[],1000000,[],0,1,[]]"), OWN),
        (zlib.compress(b'[[],[],-4,[],0,1,["decision_id"]]'), OWN),
    ],
)
def test_what_makes_no_sense_is_an_error_and_not_a_crash(common: bytes, own: bytes) -> None:
    payload = PREFIX.pack(b"QDR", 2, zlib.crc32(common + own), len(common), len(own)) + common + own
    with pytest.raises(StoreFormatError, match="cannot be read"):
        decode(payload)


def test_a_heuristic_answer_is_kept_without_what_nobody_knew() -> None:
    recorder = Recorder()
    with engine(Fixed("mute", [0.5] * 3, abstains=True), listeners=[recorder]) as manager:
        (answer,) = manager.decide([ask(task_type="testing")])
    (back,) = records_of(recorder.events, MADE_AT)
    assert back.answer == orjson.loads(orjson.dumps(answer))
    assert (back.refs, back.strategies, back.dimensions) == ((), (), 0)
    assert (back.task, back.served) == ("testing", CHEAP.ref)


def test_events_of_several_batches_may_come_together() -> None:
    recorder = Recorder()
    with engine(listeners=[recorder], models=table()) as manager:
        for number in range(3):
            manager.decide([ask(f"task {number}")] * (number + 1))
    events = recorder.events[::-1]
    records = records_of(events, MADE_AT)
    assert [record.id for record in records] == [event.answer["decision_id"] for event in events]
    for event, record in zip(events, records, strict=True):
        assert event.batch is not None
        np.testing.assert_array_equal(record.state, event.batch.state[event.row])


def test_the_distribution_is_each_decisions_own() -> None:
    recorder = Recorder()
    options = [{"explore": True}, {"explore": False}]
    with engine(Fixed("only", [0.8, 0.7, 0.6]), listeners=[recorder], epsilon=0.5) as manager:
        manager.decide([ask(options=each) for each in options])
    curious, careful = records_of(recorder.events, MADE_AT)
    assert careful.distribution.tolist() == [1.0, 0.0, 0.0]
    assert curious.distribution[0] == pytest.approx(0.5)
    assert curious.distribution.sum() == pytest.approx(1.0)


def test_in_part_a_decision_says_the_same_without_what_follows_from_its_arrays() -> None:
    whole, part = decode(one_payload()), decode(one_payload(), whole=False)
    assert part.answer == {name: whole.answer[name] for name in part.answer}
    assert whole.answer.keys() - part.answer.keys() == {"expected", "alternatives", "thread_results"}
    assert (part.id, part.served, part.preferences) == (whole.id, whole.served, whole.preferences)
    assert np.array_equal(part.numbers, whole.numbers)
    assert np.array_equal(part.marks, whole.marks)
    with pytest.raises(StoreFormatError):
        decode(one_payload()[:-1], whole=False)
