"""Reports and their bytes: what is kept, what it says about quality, and times that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import FeedbackRequest
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord, Reporter, outcome_row

NOW = Reporter("team", 1_800_000_000.0)


def report(**fields: Any) -> FeedbackRequest:
    return FeedbackRequest.model_validate_json(json.dumps({"decision_id": "d"} | fields))


def told(said: FeedbackRequest, by: str, at: float) -> OutcomeRecord:
    """A report as those see it who read its row."""
    return OutcomeRecord.decode(outcome_row(said, Reporter(by, at)).payload)


@given(
    success=st.booleans(),
    quality=st.none() | st.floats(0.0, 1.0),
    cost_usd=st.none() | st.floats(0.0, 1e6),
    output_tokens=st.none() | st.integers(0, 10**9),
    error_type=st.none() | st.sampled_from(["timeout", "other"]),
    final=st.booleans(),
)
def test_what_was_said_comes_back_from_the_bytes(**said: Any) -> None:
    record = told(report(**said), "team", 12.5)
    assert OutcomeRecord.decode(record.encode()) == record
    assert (record.reporter, record.received_at) == ("team", 12.5)
    assert all(getattr(record, name) == value for name, value in said.items())


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"reporter": "a", "received_at": 1, "surprise": 2}', b"\xff"])
def test_foreign_bytes_are_refused_by_name(payload: bytes) -> None:
    with pytest.raises(StoreFormatError, match="outcome"):
        OutcomeRecord.decode(payload)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ({"success": True}, 1.0),
        ({"success": False}, 0.0),
        ({"quality": 0.3}, 0.3),
        ({"success": True, "quality": 0.3}, 1.0),
        ({"error_type": "timeout"}, None),
        ({"error_type": "timeout", "success": False}, None),
        ({"error_type": "timeout", "quality": 0.0}, None),
        ({"error_type": "timeout", "success": True}, 1.0),
    ],
)
def test_errors_tell_of_availability_and_the_rest_of_quality(said: dict[str, Any], score: float | None) -> None:
    assert told(report(**said), "team", 0.0).score == score


def test_a_row_names_the_model_the_time_and_the_reporter() -> None:
    plain = outcome_row(report(success=True), NOW)
    assert (plain.decision_id, plain.model, plain.occurred_at, plain.outcome_id) == ("d", DECIDED_MODEL, NOW.now, None)
    full = outcome_row(report(success=True, model="a/b", outcome_id="7", occurred_at=1000.0), NOW)
    assert (full.model, full.occurred_at, full.outcome_id) == ("a/b", 1000.0, "team:7")


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("2026-11-22T12:00:00Z", 1_795_348_800.0),
        ("2026-11-22T13:00:00+01:00", 1_795_348_800.0),
        (1_795_348_800.0, 1_795_348_800.0),
        (9e9, NOW.now),
    ],
)
def test_times_are_read_either_way_and_none_lies_in_the_future(said: Any, counts: float) -> None:
    assert outcome_row(report(success=True, occurred_at=said), NOW).occurred_at == counts


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"success": None, "quality": None, "error_type": None},
        {"success": True, "quality": 1.1},
        {"success": True, "latency_ms": -1.0},
        {"success": True, "occurred_at": "2026-11-22T12:00:00"},
        {"success": True, "occurred_at": -1.0},
        {"success": True, "error_type": "tired"},
        {"success": True, "model": "no slash"},
        {"success": True, "mood": "good"},
    ],
)
def test_reports_that_say_nothing_or_nonsense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        report(**wrong)
