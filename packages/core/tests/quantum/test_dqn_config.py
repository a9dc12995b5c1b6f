"""Knobs: documented, checked, and refused when they contradict each other."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from monkey_coder.quantum.dqn_config import PRESETS, DQNConfig, scheduled
from monkey_coder.quantum.policy_file import NetworkConfig


@pytest.mark.parametrize("owner", [DQNConfig, NetworkConfig])
def test_every_knob_is_described(owner) -> None:
    assert [field.name for field in fields(owner) if f"        {field.name}: " not in owner.__doc__] == []


@pytest.mark.parametrize(
    "knobs",
    [
        {"discount": 1.1},
        {"epsilon_start": -0.1},
        {"tau": 0.0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"huber_delta": -1.0},
        {"gradient_clip": 0.0},
        {"weight_decay": -1.0},
        {"slot_decay": math.inf},
        {"batch_size": 0},
        {"epsilon_steps": 0},
        {"n_step": 0},
        {"tau": None, "target_period": 0},
    ],
)
def test_refuses_values_out_of_range_and_names_the_knob(knobs) -> None:
    with pytest.raises(ValueError, match=f"{next(reversed(knobs))} is"):
        DQNConfig(**knobs)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"target_period": 100}, "either tau"),
        ({"tau": None}, "either tau"),
        ({"learning_rate_end": 1e-5}, "learning_rate_steps belong together"),
        ({"priority_alpha": 0.6}, "belong together"),
        ({"priority_beta": 0.4, "priority_beta_steps": 10}, "belong together"),
        ({"epsilon_start": 0.1, "epsilon_end": 0.2}, "only falls"),
        ({"replay_capacity": 10, "batch_size": 20}, "does not hold one batch"),
        ({"n_step": 3, "discount": 0.0}, "set n_step to 1"),
    ],
)
def test_refuses_contradictions_and_says_the_mend(knobs, says) -> None:
    with pytest.raises(ValueError, match=says):
        DQNConfig(**knobs)


def test_there_are_presets_for_usual_situations() -> None:
    assert {"small_data", "balanced", "fast_online"} <= PRESETS.keys()
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_schedules_are_straight_and_stay_at_their_end() -> None:
    assert [scheduled(1.0, 0.2, 4, step) for step in (0, 1, 2, 4, 99)] == pytest.approx([1.0, 0.8, 0.6, 0.2, 0.2])
