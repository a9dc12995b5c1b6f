"""The monitor says what is true of a run, and the control carries a person's wishes into it."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import PATIENCE_S

from monkey_coder.quantum.training_monitor import (
    MonitorConfig,
    TrainingControl,
    TrainingPoint,
    action_entropy,
    judge,
    largest_return,
)


def run(count: int = 12, **last) -> list[TrainingPoint]:
    """A run that goes well, but for the last point."""
    points = [TrainingPoint(100 * n, 0.5 / n, 0.9, 0.5 + 0.02 * n, 0.6, 0.1) for n in range(1, count)]
    good = {"loss": 0.5 / count, "max_abs_q": 0.9, "validation_reward": 0.5 + 0.02 * count}
    return [*points, TrainingPoint(100 * count, **{**good, "action_entropy": 0.6, "dead_share": 0.1, **last})]


def test_a_good_run_is_healthy_and_tells_its_best() -> None:
    verdict = judge(run(), 1.0)
    assert (verdict.status, verdict.warnings) == ("healthy", ())
    assert "0.74" in verdict.reason
    assert "step 1200" in verdict.reason


def test_nothing_measured_yet_is_healthy() -> None:
    assert judge([], 1.0).status == "healthy"
    assert judge([TrainingPoint(1, 0.5, 0.1)], 1.0).status == "healthy"


@pytest.mark.parametrize("name", ["loss", "max_abs_q", "validation_reward", "action_entropy", "dead_share"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_not_finite_are_divergence_at_once(name, value) -> None:
    verdict = judge(run(**{name: value}), 1.0)
    assert verdict.status == "diverged"
    assert name in verdict.reason


def test_values_beyond_what_is_achievable_are_divergence_when_they_stay() -> None:
    spike = [TrainingPoint(step, 0.1, q) for step, q in enumerate([0.9, 0.9, 7.0, 0.9])]
    stays = [TrainingPoint(step, 0.1, q) for step, q in enumerate([0.9, 2.0, 3.0, 4.0])]
    assert judge(spike, 1.0).status == "healthy"
    assert judge(stays, 1.0).status == "diverged"
    assert "|Q| reached 4" in judge(stays, 1.0).reason
    assert judge(stays, 5.0).status == "healthy"


def test_a_loss_that_explodes_is_divergence_and_one_spike_is_not() -> None:
    calm = [TrainingPoint(step, 0.1, 0.9) for step in range(20)]
    up = [TrainingPoint(20 + step, 5.0, 0.9) for step in range(5)]
    assert judge([*calm, *up], 1.0).status == "diverged"
    assert judge([*calm, up[0], *calm], 1.0).status == "healthy"
    tiny = [TrainingPoint(step, 1e-9, 0.9) for step in range(20)]
    assert judge([*tiny, *(TrainingPoint(20 + step, 1e-4, 0.9) for step in range(5))], 1.0).status == "healthy"


def test_validation_without_improvement_converges_after_patience() -> None:
    config = MonitorConfig(patience=3)
    flat = [TrainingPoint(step, 0.1, 0.9, 0.7) for step in range(4)]
    assert judge(flat[:3], 1.0, config).status == "healthy"
    verdict = judge(flat, 1.0, config)
    assert verdict.status == "converged"
    assert "3 validations ago" in verdict.reason


def test_points_without_validation_do_not_use_up_patience() -> None:
    config = MonitorConfig(patience=3)
    rare = [TrainingPoint(step, 0.1, 0.9, 0.7 if step % 10 == 0 else None) for step in range(30)]
    assert judge(rare, 1.0, config).status == "healthy"


def test_choosing_one_model_is_a_warning_and_divergence_only_when_worse_than_before() -> None:
    stays_good = judge(run(action_entropy=0.0), 1.0)
    assert stays_good.status == "healthy"
    assert "same model" in stays_good.warnings[0]
    got_worse = judge(run(action_entropy=0.0, validation_reward=0.4), 1.0)
    assert got_worse.status == "diverged"
    assert "same model" in got_worse.reason


def test_dead_units_are_a_warning_and_then_divergence() -> None:
    assert "60%" in judge(run(dead_share=0.6), 1.0).warnings[0]
    assert judge(run(dead_share=0.99), 1.0).status == "diverged"


@pytest.mark.parametrize(
    "knobs",
    [
        {"q_slack": -1.0},
        {"loss_window": 0},
        {"loss_factor": 1.0},
        {"loss_floor": 0.0},
        {"patience": 0},
        {"min_improvement": -1.0},
        {"reward_drop": 0.0},
        {"entropy_floor": 2.0},
        {"dead_limit": 0.0},
    ],
)
def test_refuses_senseless_thresholds(knobs) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        MonitorConfig(**knobs)


def test_largest_return_by_hand() -> None:
    assert largest_return(-0.5, 1.0, 0.5, 3) == 1.75
    assert largest_return(-4.0, 1.0, 1.0, 4) == 16.0


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(0, 1), st.floats(-3, 0), st.floats(0, 3))
def test_no_episode_returns_more_than_the_bound(rewards, discount, low, high) -> None:
    clipped = np.clip(rewards, low, high)
    total = sum(reward * discount**step for step, reward in enumerate(clipped))
    assert abs(total) <= largest_return(low, high, discount, len(rewards)) + 1e-9


def test_entropy_of_choices() -> None:
    assert action_entropy(np.array([2, 2, 2]), 4) == 0.0
    assert action_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(1.0)
    assert action_entropy(np.array([0, 1]), 4) == pytest.approx(0.5)
    assert action_entropy(np.array([0]), 1) == 1.0


def test_overrides_reach_the_loop_and_can_be_taken_back() -> None:
    control = TrainingControl()
    control.set_learning_rate(1e-4)
    control.set_epsilon(0.0)
    assert (control.wait().learning_rate, control.wait().epsilon) == (1e-4, 0.0)
    control.set_learning_rate(None)
    assert control.now.learning_rate is None
    assert control.now.epsilon == 0.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_senseless_learning_rate(value) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        TrainingControl().set_learning_rate(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_refuses_a_senseless_epsilon(value) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        TrainingControl().set_epsilon(value)


@pytest.mark.parametrize("release", ["resume", "stop"])
def test_a_paused_loop_waits_until_released(release) -> None:
    control, steps, held = TrainingControl(), [], threading.Event()
    control.pause()
    assert control.wait(timeout_s=0.01).paused

    def loop() -> None:
        held.set()
        steps.append(control.wait())

    thread = threading.Thread(target=loop)
    thread.start()
    held.wait()
    assert not steps
    getattr(control, release)()
    thread.join(timeout=PATIENCE_S)
    assert not thread.is_alive()
    assert steps[0].stopped == (release == "stop")
