"""Who may serve, and who stays in shadow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import table
from colours import MODELS
from logged_world import Traffic, trainer
from reporting import changed, decisions, report, stream

from monkey_coder.quantum.log_training import LogTrainer
from monkey_coder.quantum.logged_episodes import Attempt
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_judge import (
    HeldOut,
    JudgeOptions,
    Verdict,
    held_out_decisions,
    is_held_out,
    judge,
)
from monkey_coder.quantum.transition_log import TransitionLog

DAY = 86_400.0
ALL = 1.0 - 1e-12


@pytest.fixture(scope="module")
def good() -> PolicyBundle:
    """A policy that knows which model is good at which colour."""
    one, traffic = trainer(), Traffic(seed=30)
    one.take(traffic.run(700)[0], traffic.decided.get)
    return one.train().bundle


def logged(traffic: Traffic, count: int, **run: Any) -> list[Attempt]:
    rows, _ = traffic.run(count, **run)
    log = TransitionLog()
    log.take(rows, traffic.decided.get, 2e9)
    return log.attempts(2e9)


def held_out(traffic: Traffic, count: int) -> HeldOut:
    found = held_out_decisions(logged(traffic, count), MODELS, ALL, 10_000)
    assert found is not None
    return found


def judged(found: HeldOut | None, challenger: PolicyBundle, current: PolicyBundle | None, **options: Any) -> Verdict:
    return judge(found, MODELS, challenger, current, JudgeOptions(**options), np.random.default_rng(0))


def test_a_better_policy_may_serve(good: PolicyBundle) -> None:
    found = held_out(Traffic(seed=1), 400)
    there = judged(found, good, None)
    assert there.publish
    assert there.difference is not None
    assert there.difference.doubly_robust.low > 0.3
    assert there.differ > 0.5


def test_a_policy_that_changes_nothing_may_serve(good: PolicyBundle) -> None:
    verdict = judged(held_out(Traffic(seed=2), 150), good, good)
    assert verdict.publish
    assert (verdict.differ, verdict.checks) == (0.0, 0)
    assert verdict.difference is not None
    assert verdict.difference.doubly_robust.mean == 0.0


def test_what_was_hardly_tried_is_not_believed(good: PolicyBundle) -> None:
    verdict = judged(held_out(Traffic(seed=3), 300), good, None, least_checks=200)
    assert not verdict.publish
    assert "too little was tried" in verdict.reason


def test_too_few_decisions_are_no_reason_to_publish(good: PolicyBundle) -> None:
    verdict = judged(held_out(Traffic(seed=4), 60), good, None)
    assert not verdict.publish
    assert "only" in verdict.reason
    assert verdict.to_json()["difference"] is None


def test_what_can_never_be_tried_is_not_believed(good: PolicyBundle) -> None:
    found = held_out(Traffic(seed=5), 200)
    blind = replace(found, logged=np.where(found.logged > 0.5, found.logged, 0.0))
    verdict = judged(blind, good, None)
    assert not verdict.publish
    assert "hardly ever tries" in verdict.reason


def test_without_exploration_there_is_nothing_to_judge_by(good: PolicyBundle) -> None:
    assert held_out_decisions(logged(Traffic(seed=6, epsilon=0.0), 40), MODELS, ALL, 100) is None
    assert not judged(None, good, None).publish


def test_callers_who_opt_out_sessions_and_caches_are_left_out() -> None:
    records = decisions(4)
    sure = replace(records[1], numbers=records[1].numbers.copy())
    sure.distribution[:] = 0.0
    sure.distribution[sure.refs.index(sure.served)] = 1.0
    records = [records[0], sure, changed(records[2], cache="redis"), records[3]]
    log = TransitionLog()
    rows = [report(record) for record in records[:3]] + [report(records[3], error_type="timeout")]
    log.take(stream(rows), {record.id: record for record in records}.get, 2e9)
    found = held_out_decisions(log.attempts(2e9), table(), ALL, 100)
    assert found is not None
    assert [record.id for record in found.records] == [records[0].id]


def to_go(now_s: float, *reports: dict[str, Any], value_usd: float = 1e9) -> list[float]:
    """Utility to the end from each attempt of one episode."""
    made = decisions(len(reports), episode_id="an episode", preferences={"value_usd": value_usd})
    made = [changed(record, episode_id="an episode") for record in made]
    log = TransitionLog()
    rows = [report(record, **said) for record, said in zip(made, reports, strict=True)]
    log.take(stream(rows), {record.id: record for record in made}.get, made[0].made_at)
    found = held_out_decisions(log.attempts(made[0].made_at + now_s), table(), ALL, 100)
    return [] if found is None else found.log.reward.tolist()


def test_an_episode_is_worth_its_last_answer_less_all_prices() -> None:
    assert to_go(60.0, {"success": False}, {"success": False}, {"success": True}) == pytest.approx([1.0, 1.0, 1.0])
    dear = to_go(60.0, {"success": False, "cost_usd": 1e-3}, {"success": True, "cost_usd": 2e-3}, value_usd=0.01)
    assert dear == pytest.approx([1.0 - 0.3, 1.0 - 0.2], abs=0.12)  # a report's price counts at most tenfold
    assert to_go(60.0, {"success": False, "final": True}) == pytest.approx([0.0], abs=1e-6)


def test_an_open_episode_is_not_judged_and_a_forgotten_one_is_bootstrapped() -> None:
    assert to_go(60.0, {"success": False}) == []
    (value,) = to_go(2 * DAY, {"success": False})
    assert 0.4 <= value <= 1.0  # the best model left is expected to succeed that often
    assert to_go(2 * DAY, {"success": False, "final": True}) == pytest.approx([0.0], abs=1e-6)


def test_held_out_prompts_are_always_the_same_and_about_their_share() -> None:
    prompts = np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32)
    held = [is_held_out(prompt, 0.3) for prompt in prompts]
    assert held == [is_held_out(prompt.copy(), 0.3) for prompt in prompts]
    assert np.mean(held) == pytest.approx(0.3, abs=0.04)


def test_a_verdict_can_be_stored() -> None:
    one = trainer(least_decisions=20)
    traffic = Traffic(seed=8)
    one.take(traffic.run(200)[0], traffic.decided.get)
    verdict = one.judge(one.train().bundle, None)
    again = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert again["publish"] is verdict.publish
    assert set(again["difference"]["doubly_robust"]) == {"mean", "low", "high"}


def test_the_same_evidence_gives_the_same_verdict(good: PolicyBundle) -> None:
    one: LogTrainer = trainer()
    traffic = Traffic(seed=10)
    one.take(traffic.run(400)[0], traffic.decided.get)
    assert one.judge(good, None) == one.judge(good, None)


@pytest.mark.parametrize(
    "options", [{"tolerance": -0.1}, {"most_unchecked": 2.0}, {"least_checks": 0}, {"least_decisions": 0}]
)
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        JudgeOptions(**options)
