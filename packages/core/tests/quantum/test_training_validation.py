"""What plans are worth: by hand, and against playing them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.episode_simulation import World
from monkey_coder.quantum.particles import Particles
from monkey_coder.quantum.training_validation import (
    NOTHING,
    Expectations,
    Waiting,
    follow_network,
    follow_order,
    grid,
    plans,
    worth,
)


def world(scores: list[list[float]], noise: float = 0.0, attempts: int = 3, cost: float = 0.1) -> World:
    table = np.array(scores)
    rows, models = table.shape
    profile = np.clip(np.nan_to_num(table, nan=0.5), 0.02, 0.98)[:, None].astype(np.float32)
    particles = Particles(
        profile,
        np.ones((rows, 1), np.float32),
        profile[:, 0],
        np.ones(models, np.float32),
        np.zeros(models, np.float32),
    )
    paid = np.full(table.shape, cost)
    return World(particles, table, paid, paid.astype(np.float32), cost, attempts, noise)


def test_the_first_accepted_answer_is_kept_and_all_attempts_are_paid() -> None:
    here = world([[0.0, 1.0, 1.0]])
    value = worth(np.array([[0, 1, 2]]), np.array([0]), Expectations.of(here, here.particles.success))
    assert value.success == pytest.approx([1.0])
    assert value.attempts == pytest.approx([2.0])
    assert value.cost == pytest.approx([0.2])


def test_where_it_stops_the_last_answer_is_kept_though_rejected() -> None:
    here = world([[0.4, 1.0, 1.0]])
    value = worth(np.array([[0, NOTHING, NOTHING]]), np.array([0]), Expectations.of(here, here.particles.success))
    assert value.success == pytest.approx([0.4])
    assert value.cost == pytest.approx([0.1])


def test_errors_of_the_verifier_by_hand() -> None:
    here = world([[0.0, 1.0]], noise=0.2)
    value = worth(np.array([[0, 1]]), np.array([0]), Expectations.of(here, here.particles.success))
    assert value.success == pytest.approx([0.8])  # wrongly accepted the first in one of five; else keeps the second
    assert value.attempts == pytest.approx([1.8])


def test_unknown_outcomes_count_by_what_is_expected() -> None:
    here = world([[np.nan, 1.0]])
    expected = Expectations.of(here, np.array([[0.3, 0.9]], np.float32))
    value = worth(np.array([[0, 1]]), np.array([0]), expected)
    assert value.success == pytest.approx([1.0])
    assert value.attempts == pytest.approx([1.7])


@given(st.integers(0, 2**31), st.floats(0.0, 0.4), st.integers(1, 4))
def test_the_closed_form_is_the_mean_of_many_episodes(seed: int, noise: float, attempts: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 2, (1, 4)).astype(float)
    here = world(scores.tolist(), noise=noise)
    order = rng.permutation(4)[:attempts]
    value = worth(order[None], np.array([0]), Expectations.of(here, here.particles.success))
    games = 4_000
    kept, made, going = np.zeros(games), np.zeros(games), np.ones(games, dtype=np.bool_)
    for model in order:
        made += going
        kept[going] = scores[0, model]
        wrong = rng.random(games) < noise
        going &= ~((scores[0, model] >= 0.5) ^ wrong)
    assert value.success[0] == pytest.approx(kept.mean(), abs=0.04)
    assert value.attempts[0] == pytest.approx(made.mean(), abs=0.08)


def test_no_model_is_tried_twice_and_a_plan_ends_where_nothing_is_worth_it() -> None:
    utility = np.array([[0.2, 0.5, -0.1], [-0.3, -0.2, -0.1]], np.float32)
    assert follow_order(utility, 3).tolist() == [[1, 0, NOTHING], [2, NOTHING, NOTHING]]


def test_a_plan_is_no_longer_than_there_are_models() -> None:
    def keen(waiting: Waiting) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(waiting.places), 2), np.float32), np.zeros(len(waiting.places), np.float32)

    assert plans(1, 2, 4, keen).tolist() == [[0, 1, NOTHING, NOTHING]]


def test_the_lookahead_follows_what_is_believed() -> None:
    here = world([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    rows, weight = grid(2, (0.1,))
    tried = follow_network(here, rows, weight, None)
    assert tried[:, 0].tolist() == [1, 0]
    assert follow_network(here, rows, weight, None, attempts=1).shape == (2, 1)


def test_the_grid_goes_through_all_weights_of_a_task_first() -> None:
    rows, weight = grid(2, (0.0, 1.0))
    assert rows.tolist() == [0, 0, 1, 1]
    assert weight.tolist() == [0.0, 1.0, 0.0, 1.0]
