"""Episodes of attempts: how they end, what they earn, and what the next decision rests on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, ask
from deciding import recorded
from reporting import changed, decisions, report

from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.logged_episodes import (
    Attempt,
    LoggedDecision,
    LoggedTransitions,
    Report,
    attempts_of,
)
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.storage.port import OutcomeRow

DAY = 86_400.0


def logged(record: DecisionRecord, *rows: OutcomeRow) -> LoggedDecision:
    reports = [
        Report(
            row.identity,
            record.served if row.model == DECIDED_MODEL else row.model,
            row.occurred_at,
            OutcomeRecord.decode(row.payload),
        )
        for row in rows
    ]
    return LoggedDecision(record, tuple(reports))


def episode(*attempts: dict[str, Any], gap_s: float = 60.0, now_s: float = 1e3) -> list[Attempt]:
    """Decisions `gap_s` apart, each with the report that these fields make; seen so long after the first."""
    records = [
        changed(record, record.made_at + place * gap_s, episode_id="an episode")
        for place, record in enumerate(decisions(len(attempts), episode_id="an episode"))
    ]
    rows = [logged(record, report(record, **said)) for record, said in zip(records, attempts, strict=True)]
    return attempts_of(reversed(rows), records[0].made_at + now_s, DAY)


def test_an_episode_ends_with_its_success() -> None:
    first, second = episode({"success": False}, {"success": True})
    assert [each.place for each in (first, second)] == [0, 1]
    assert first.episode == second.episode
    assert (first.terminated, first.truncated, first.ended) == (False, False, True)
    assert (second.terminated, second.truncated) == (True, False)
    np.testing.assert_array_equal(first.next_state, second.record.state)
    assert not second.next_state.any()


def test_an_episode_without_success_stays_open_for_a_day_and_is_then_cut_off() -> None:
    (today,) = episode({"success": False}, now_s=DAY)
    assert (today.terminated, today.truncated, today.ended) == (False, False, False)
    (tomorrow,) = episode({"success": False}, now_s=DAY + 20.0)
    assert (tomorrow.terminated, tomorrow.truncated, tomorrow.ended) == (False, True, True)


def test_a_caller_can_end_an_episode_without_success() -> None:
    (only,) = episode({"success": False, "final": True})
    assert (only.terminated, only.truncated) == (True, False)


def test_an_error_alone_ends_nothing_and_says_nothing_of_quality() -> None:
    first, second = episode({"error_type": "timeout", "cost_usd": 0.0, "latency_ms": 0.0}, {"success": True})
    assert math.isnan(first.score)
    assert first.error == "timeout"
    assert first.reward == 0.0
    assert (first.terminated, second.place) == (False, 1)


def test_good_quality_counts_as_success_where_nothing_else_is_said() -> None:
    assert [each.terminated for each in episode({"quality": 0.3}, {"quality": 0.8})] == [False, True]


def test_an_only_attempt_ends_with_its_outcome() -> None:
    (record,) = decisions()
    (only,) = attempts_of([logged(record, report(record, success=False))], record.made_at + 20.0, DAY)
    assert only.terminated
    assert only.reward < 0.0


def test_an_id_that_is_used_again_after_an_end_or_a_long_pause_begins_a_new_episode() -> None:
    after_success = episode({"success": True}, {"success": False})
    assert [each.episode for each in after_success] == [0, 1]
    assert [each.place for each in after_success] == [0, 0]
    late = episode({"success": False}, {"success": False}, gap_s=2 * DAY, now_s=2.5 * DAY)
    assert [each.episode for each in late] == [0, 1]
    assert [each.truncated for each in late] == [True, False]


def test_the_reward_is_the_utility_at_the_callers_preferences() -> None:
    (record,) = decisions(preferences={"value_usd": 2.0})
    place = record.refs.index(record.served)
    told = logged(record, report(record, success=True, cost_usd=2.0 * float(record.cost_usd[place])))
    (attempt,) = attempts_of([told], record.made_at, DAY)
    assert attempt.reward == pytest.approx(1.0 - 0.5 * 2.0 * float(record.cost_usd[place]), rel=1e-6)
    absurd = logged(record, report(record, success=True, cost_usd=1e6))
    (attempt,) = attempts_of([absurd], record.made_at, DAY)
    assert attempt.cost_usd == pytest.approx(10.0 * float(record.cost_usd[place]))


def test_without_a_price_in_the_report_the_expected_one_counts() -> None:
    (record,) = decisions()
    (attempt,) = attempts_of([logged(record, report(record))], record.made_at, DAY)
    place = record.refs.index(record.served)
    assert attempt.cost_usd == pytest.approx(float(record.cost_usd[place]))
    assert attempt.latency_s == pytest.approx(float(record.latency_s[place]))
    timed = logged(record, report(record, latency_ms=500.0))
    (attempt,) = attempts_of([timed], record.made_at, DAY)
    assert attempt.latency_s == 0.5


@pytest.mark.parametrize("said", [{"success": False}, {"error_type": "timeout"}])
def test_the_state_after_the_last_attempt_is_what_the_engine_would_have_encoded(said: dict[str, Any]) -> None:
    failed = {"model": CHEAP.ref, "success": False, "cost_usd": 0.25}
    (record, then), _ = recorded(
        *objective_strategies(),
        requests=[
            ask(episode_id="an episode", attempts=[failed]),
            ask(episode_id="an episode", attempts=[failed, failed | {"model": MIDDLE.ref, "cost_usd": 0.5} | said]),
        ],
    )
    record = changed(record, provider="mid", model="middle")
    record = replace(record, numbers=record.numbers.copy())
    record.cost_usd[record.refs.index(MIDDLE.ref)] = 0.5
    row = logged(record, report(record, cost_usd=0.5, **said))
    (attempt,) = attempts_of([row], record.made_at + 2 * DAY, DAY)
    assert attempt.truncated
    # Preferences follow the candidates that are left; all else is as the engine would write it.
    np.testing.assert_allclose(attempt.next_state[:-3], then.state[:-3], atol=2e-6)


def test_a_fallback_that_answered_is_no_draw_of_the_engine() -> None:
    (record,) = decisions(excluded_models=[DEAR.ref])
    other = next(ref for ref in record.refs if ref != record.served)
    (attempt,) = attempts_of([logged(record, report(record, model=other))], record.made_at, DAY)
    assert attempt.report.model == other
    assert not attempt.drawn
    (attempt,) = attempts_of([logged(record, report(record))], record.made_at, DAY)
    assert attempt.drawn
    assert attempt.propensity == pytest.approx(float(record.distribution[record.refs.index(record.served)]))
    assert attempt.propensity == pytest.approx(record.answer["propensity"], abs=1e-5)


def test_a_decision_from_a_cache_is_no_draw_either() -> None:
    (record,) = decisions()
    (attempt,) = attempts_of([logged(changed(record, cache="similar"), report(record))], record.made_at, DAY)
    assert not attempt.drawn
    assert attempt.logged.cached


def test_a_model_that_the_catalog_did_not_have_changes_no_state() -> None:
    (record,) = decisions()
    row = logged(record, report(record, model="no/such", success=False, cost_usd=0.1))
    (attempt,) = attempts_of([row], record.made_at + 2 * DAY, DAY)
    assert (attempt.column, attempt.propensity, attempt.cost_usd) == (-1, 0.0, 0.1)
    assert np.isfinite(attempt.next_state).all()


def test_a_fallback_follows_the_decided_model_that_failed() -> None:
    (record,) = decisions(episode_id="an episode")
    other = next(ref for ref in record.refs if ref != record.served)
    both = logged(record, report(record, model=other, at=5.0), report(record, success=False))
    first, second = attempts_of([both], record.made_at, DAY)
    assert (first.report.model, second.report.model) == (record.served, other)
    assert second.terminated
    assert first.next_state[-8] != first.record.state[-8]  # one more was rejected


def test_arrays_hold_what_is_known_to_its_end() -> None:
    open_one = episode({"success": False})
    done = episode({"success": False}, {"success": True})
    told = LoggedTransitions.of([*open_one, *done])
    assert told.state.shape == told.next_state.shape
    assert told.terminated.tolist() == [False, True]
    assert told.reward.tolist() == [each.reward for each in done]
    assert told.action == tuple(each.report.model for each in done)
    assert (told.propensity > 0.0).all()
    assert len(LoggedTransitions.of(open_one).reward) == 0
