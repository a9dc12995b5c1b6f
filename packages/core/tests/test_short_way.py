"""The short way of the hot endpoints and the long one give the same answers, also to what is wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import ROUTE
from wires import FEEDBACK, JSON, LONG_FEEDBACK, LONG_WAY, Place, eventually, place


@pytest.fixture
async def free(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path, held=False) as opened:
        yield opened


FAULTY = {
    "nothing": b"",
    "half": b'{"request": {"prom',
    "no request": b"{}",
    "an unknown field": b'{"request": {"prompt": "x", "colour": "red"}}',
    "an unknown model": b'{"request": {"prompt": "x", "allowed_models": ["no/such"]}}',
    "nothing is left": b'{"request": {"prompt": "x"}, "preferences": {"max_cost_usd": 1e-12}}',
    "too large": b" " * 2_000_000,
}


@pytest.mark.parametrize("what", FAULTY)
async def test_both_ways_tell_a_mistake_in_the_same_words(free: Place, what: str) -> None:
    wire, other = await free.wire(), await free.wire()
    wire.ask(FAULTY[what])
    other.ask(FAULTY[what], target=LONG_WAY)
    short, long = await wire.answer(), await other.answer()
    assert short.status >= 400
    assert (short.status, short.headers, short.body) == (long.status, long.headers, long.body)
    wire.ask("and the connection is good for more")
    assert (await wire.answer()).status == 200


FAULTY_REPORTS = {
    "nothing": (b"", JSON),
    "half": (b'{"decision_id": "x', JSON),
    "says nothing": (b'{"decision_id": "x"}', JSON),
    "a forged id": (b'{"decision_id": "x", "success": true}', JSON),
    "a form": (b'{"decision_id": "x", "success": true}', "content-type: text/plain"),
    "no type": (b'{"decision_id": "x", "success": true}', "accept: */*"),
    "too large": (b" " * 2_000_000, JSON),
}


@pytest.mark.parametrize("what", FAULTY_REPORTS)
async def test_both_ways_tell_what_is_wrong_with_a_report_in_the_same_words(free: Place, what: str) -> None:
    body, header = FAULTY_REPORTS[what]
    wire, other = await free.wire(), await free.wire()
    wire.ask(body, header, target=FEEDBACK)
    other.ask(body, header, target=LONG_FEEDBACK)
    short, long = await wire.answer(), await other.answer()
    assert short.status >= 400
    assert (short.status, short.headers, short.body) == (long.status, long.headers, long.body)
    wire.ask("and the connection is good for more")
    assert (await wire.answer()).status == 200


async def test_a_report_is_taken_once_whichever_way_it_comes(free: Place) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    said = json.dumps({"decision_id": decision_id, "outcome_id": "mine", "success": True}).encode()
    for target, status in ((FEEDBACK, 202), (LONG_FEEDBACK, 200), (FEEDBACK, 200)):
        wire.ask(said, JSON, target=target)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (status, {"accepted": True})
        assert answer.headers["content-type"] == "application/json"
        assert [row.outcome_id for row in free.held.engine.store.outcomes_of(decision_id)] == ["anonymous:mine"]


async def test_reports_sent_in_one_go_with_requests_are_answered_in_order(free: Place) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    for number in range(6):
        if number % 2:
            wire.ask(f"request {number}")
        else:
            said = {"decision_id": decision_id, "outcome_id": f"o{number}", "success": True}
            wire.ask(json.dumps(said).encode(), JSON, target=FEEDBACK)
    assert [(await wire.answer()).status for _ in range(6)] == [202, 200] * 3


async def test_a_report_whose_sender_hangs_up_is_stored_all_the_same(free: Place) -> None:
    wire, leaves = await free.wire(), await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    leaves.ask(json.dumps({"decision_id": decision_id, "success": True}).encode(), JSON, target=FEEDBACK)
    await leaves.writer.drain()
    leaves.writer.close()
    await eventually(lambda: len(free.held.engine.store.outcomes_of(decision_id)) == 1)
    wire.ask("and others are served")
    assert (await wire.answer()).status == 200


async def test_what_breaks_while_a_report_is_taken_is_told_without_details(
    free: Place, caplog: pytest.LogCaptureFixture
) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    free.held.engine.reports.put = None  # type: ignore[method-assign,assignment]
    wire.ask(json.dumps({"decision_id": decision_id, "success": True}).encode(), JSON, target=FEEDBACK)
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "NoneType" in caplog.text
    assert "NoneType" not in json.dumps(answer.body)


async def test_both_ways_decide(free: Place) -> None:
    wire = await free.wire()
    for target in (ROUTE, LONG_WAY):
        wire.ask("x", target=target)
        answer = await wire.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.body["cache"] == "bypass"
    again = json.dumps(
        {"request": {"prompt": "again"}, "quantum_config": {"explore": False, "timeout_ms": 1000}}
    ).encode()
    wire.ask(again)
    first = await wire.answer()
    wire.ask(again)
    assert {(await wire.answer()).body["model"], first.body["model"]} == {first.body["model"]}
    assert free.held.outcome("decided") == 4


@pytest.mark.parametrize("target", [ROUTE, LONG_WAY])
async def test_an_answer_that_cannot_be_written_is_told_as_such_and_spares_the_next(free: Place, target: str) -> None:
    cache = free.held.engine.caching.cache
    good, cache.decide = cache.decide, lambda _: [{"odd": object()}]  # type: ignore[method-assign]
    wire = await free.wire()
    wire.ask("x", target=target)
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    cache.decide = good  # type: ignore[method-assign]
    wire.ask("y", target=target)
    assert (await wire.answer()).status == 200
    assert (free.held.outcome("internal_error"), free.held.outcome("decided")) == (1, 1)


async def test_what_breaks_inside_is_told_without_details(free: Place, caplog: pytest.LogCaptureFixture) -> None:
    free.held.engine.batcher.put = None  # type: ignore[method-assign,assignment]
    wire = await free.wire()
    wire.ask("x")
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "NoneType" in caplog.text
    assert "NoneType" not in json.dumps(answer.body)
