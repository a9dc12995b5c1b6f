"""The figures of a model card, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.training_figures import Played, calibration, frontier, paired_gain, strategy_trust


def played(utility: np.ndarray) -> Played:
    return Played(utility, np.zeros_like(utility), np.ones_like(utility), utility)


def constant(value: float, tasks: int = 5_000) -> Played:
    return played(np.full((tasks, 3), value))


def test_trust_falls_with_what_following_a_strategy_loses() -> None:
    trust = strategy_trust([{"dqn": constant(0.8), "memory": constant(0.79), "balanced": constant(0.7)}])
    assert 1.0 >= trust["dqn"] > trust["memory"] > trust["balanced"] > 0.0
    assert trust["dqn"] == pytest.approx(1.0)


def test_a_handful_of_tasks_hardly_moves_trust() -> None:
    many = strategy_trust([{"dqn": constant(0.7), "balanced": constant(0.8)}])
    few = strategy_trust([{"dqn": constant(0.7, 5), "balanced": constant(0.8, 5)}])
    assert many["dqn"] < 0.01
    assert few["dqn"] > 0.5


def test_what_chance_explains_is_not_held_against_a_strategy() -> None:
    luck = np.random.default_rng(0).normal(0.0, 1.0, (200, 1))
    noisy = strategy_trust([{"dqn": played(0.5 + luck), "memory": played(0.5 - luck)}])
    assert min(noisy.values()) > 0.3


@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=30), st.floats(-0.5, 0.5))
def test_a_paired_gain_cancels_what_both_have(base: list[float], gain: float) -> None:
    ours, theirs = (played(np.array(base)[:, None] + shift) for shift in (gain, 0.0))
    found = paired_gain(ours, theirs)
    assert found["mean"] == pytest.approx(gain, abs=1e-9)
    assert found["low"] == pytest.approx(gain, abs=1e-9)
    assert found["high"] == pytest.approx(gain, abs=1e-9)


def test_intervals_hold_the_mean_and_shrink_with_tasks() -> None:
    rng = np.random.default_rng(0)
    width = []
    for tasks in (30, 3_000):
        rows = frontier(played(rng.random((tasks, 2))), (0.0, 1.0), rng)
        assert [row["weight"] for row in rows] == [0.0, 1.0]
        figure = rows[0]["utility"]
        assert figure["low"] < figure["mean"] < figure["high"]
        width.append(figure["high"] - figure["low"])
    assert width[1] < width[0] / 5


def test_calibration_by_hand() -> None:
    success = np.array([[0.9, 0.2]] * 10, np.float32)
    scores = np.array([[1.0, 0.0]] * 9 + [[0.0, np.nan]])
    found = calibration(success, scores, np.full_like(success, 0.5))
    assert found["outcomes"] == 19
    assert found["brier"] == pytest.approx((9 * 0.01 + 0.81 + 9 * 0.04) / 19, abs=1e-6)
    assert found["prior_log_loss"] == pytest.approx(np.log(2.0), abs=1e-6)
    assert sum(row["outcomes"] for row in found["bins"]) == 19


def test_good_forecasts_are_seen_as_such() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random((4_000, 3)).astype(np.float32)
    scores = (rng.random(chance.shape) < chance).astype(float)
    good = calibration(chance, scores, chance)
    bold = calibration(np.clip(2.0 * chance - 0.5, 0.0, 1.0), scores, chance)
    assert good["calibration_error"] < 0.02 < bold["calibration_error"]
    assert good["log_loss"] < bold["log_loss"]
