"""Simulated episodes: what they visit, and the transitions that come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.dqn_agent import DQNAgent
from monkey_coder.quantum.episode_simulation import Visits, World, accepted, schema, transitions, visit
from monkey_coder.quantum.experience_buffer import ExperienceBuffer
from monkey_coder.quantum.particles import STATE_FEATURES, Particles
from monkey_coder.quantum.policy_file import NetworkShape
from monkey_coder.quantum.routing_value import PAIRS
from monkey_coder.quantum.training_options import PRESETS

MODELS = 4


def world(rows: int = 6, attempts: int = 4, noise: float = 0.0, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    profile = rng.uniform(0.1, 0.9, (rows, 5, MODELS)).astype(np.float32)
    weights = np.full((rows, 5), 0.2, np.float32)
    ones, zeros = np.ones(MODELS, np.float32), np.zeros(MODELS, np.float32)
    particles = Particles(profile, weights, profile.mean(axis=1), ones, zeros)
    scores = rng.integers(0, 2, (rows, MODELS)).astype(float)
    cost = np.tile([0.1, 0.2, 0.3, 1.0], (rows, 1))
    return World(particles, scores, 2.0 * cost, cost.astype(np.float32), 1.0, attempts, noise)


def agent() -> DQNAgent:
    shape = NetworkShape(STATE_FEATURES, 2, PAIRS, MODELS)
    return DQNAgent(PRESETS["balanced"].dqn, shape, np.zeros((MODELS, 2), np.float32))


def at(row: int, rejected: list[int], weight: float = 0.5, *, recorded: bool = False) -> Visits:
    mask = np.zeros((1, MODELS), dtype=np.bool_)
    mask[0, rejected] = True
    return Visits(np.array([row]), np.array([weight]), mask, np.array([recorded]))


def test_expected_rewards_are_what_the_belief_says_less_the_price() -> None:
    here, rng = world(), np.random.default_rng(0)
    rows = transitions(here, at(2, []), MODELS, rng)
    chance = here.particles.profile[2].mean(axis=0)
    assert len(rows) == MODELS
    assert rows.reward == pytest.approx(chance[rows.action] - 0.5 * here.expected_cost[2, rows.action], abs=1e-5)
    assert rows.discount == pytest.approx(1.0 - chance[rows.action], abs=1e-5)
    assert not rows.terminated.any()
    assert not rows.truncated.any()


def test_recorded_outcomes_decide_where_they_are_known() -> None:
    here, rng = world(noise=0.1), np.random.default_rng(0)
    here.scores[1] = [1.0, 0.0, np.nan, 1.0]
    rows = transitions(here, at(1, [], recorded=True), MODELS, rng)
    of = {int(action): place for place, action in enumerate(rows.action)}
    assert rows.reward[of[0]] == pytest.approx(0.9 - 0.5 * 0.2)
    assert rows.discount[of[0]] == pytest.approx(0.1)
    assert rows.reward[of[1]] == pytest.approx(-0.5 * 0.4)
    assert rows.discount[of[1]] == pytest.approx(0.9)
    believed = transitions(here, at(1, []), MODELS, np.random.default_rng(0))
    same = {int(action): place for place, action in enumerate(believed.action)}
    assert rows.reward[of[2]] == pytest.approx(believed.reward[same[2]])


def test_a_certain_success_ends_the_episode() -> None:
    here = world()
    here.scores[0] = 1.0
    rows = transitions(here, at(0, [], recorded=True), MODELS, np.random.default_rng(0))
    assert rows.terminated.all()


def test_what_comes_after_knows_of_the_rejection_and_may_stop() -> None:
    here = world(noise=0.1)
    rows = transitions(here, at(0, [3]), MODELS, np.random.default_rng(0))
    assert 3 not in rows.action
    for place, action in enumerate(rows.action):
        free = rows.next_observation["candidates"][place]
        assert not free[action]
        assert not free[3]
        assert free.sum() == MODELS - 2
    assert ((rows.next_observation["stop"] > 0.0) & (rows.next_observation["stop"] < 1.0)).all()


def test_only_the_promising_models_become_transitions() -> None:
    here = world()
    here.particles.profile[0] = np.array([0.9, 0.1, 0.1, 0.1], np.float32)
    rows = transitions(here, at(0, [], weight=1.0), 1, np.random.default_rng(0))
    assert rows.action.tolist() == [0]


def test_errors_count_relative_to_the_price() -> None:
    rows = transitions(world(), at(0, [], weight=3.0), MODELS, np.random.default_rng(0))
    price = 3.0 * world().expected_cost[0, rows.action]
    assert rows.weight == pytest.approx(1.0 / (1.0 + price) ** 2, rel=1e-5)


@given(st.integers(0, 2**31), st.integers(3, 5), st.floats(0.0, 1.0))
def test_visits_leave_at_least_three_attempts_and_reject_nothing_twice(seed: int, attempts: int, share: float) -> None:
    here = world(attempts=attempts)
    visits = visit(here, agent(), 16, share, np.random.default_rng(seed), epsilon=0.5)
    assert (attempts - visits.rejected.sum(axis=1) >= 3).all()
    assert ((visits.rows >= 0) & (visits.rows < len(here))).all()
    assert (visits.weight >= 0.0).all()


def test_recorded_successes_end_an_episode_before_it_gets_deep() -> None:
    here = world(rows=40, attempts=4)
    solved = replace(here, scores=np.ones_like(here.scores))
    visits = visit(solved, agent(), 200, 1.0, np.random.default_rng(0), epsilon=0.3)
    assert not visits.rejected.any()
    never = visit(replace(here, scores=np.zeros_like(here.scores)), agent(), 200, 1.0, np.random.default_rng(0), 0.3)
    assert never.rejected.any()


def test_transitions_fit_the_buffer() -> None:
    here = world()
    buffer = ExperienceBuffer(schema(MODELS), 100)
    rng = np.random.default_rng(0)
    buffer.add(transitions(here, visit(here, agent(), 8, 0.3, rng, 0.2), 10, rng))
    assert len(buffer) > 8
    learned = agent().learn(buffer.sample(32, rng))
    assert np.isfinite(learned.loss)


def test_the_verifier_errs_as_often_as_it_is_said_to() -> None:
    chance = accepted(np.array([0.0, 0.49, 0.5, 1.0, np.nan]), 0.2)
    assert chance[:4].tolist() == [0.2, 0.2, 0.8, 0.8]
    assert np.isnan(chance[4])


def test_without_costs_money_weighs_nothing() -> None:
    free = replace(world(), cost_ref=0.0)
    assert free.per_usd(np.array([3.0])).tolist() == [0.0]
    assert len(free.take(np.array([0, 2]))) == 2
