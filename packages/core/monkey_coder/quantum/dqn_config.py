"""Every knob of the DQN agent, with presets for usual situations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from monkey_coder.quantum.policy_file import NetworkConfig


@dataclass(frozen=True, slots=True)
class DQNConfig:
    """Every knob of the agent. Knobs that contradict each other are refused.

    Attributes:
        network: The architecture, with the dueling option.
        learning_rate: Of AdamW, above 0.
        learning_rate_end: Where a linear schedule ends; None: it stays as it is.
        learning_rate_steps: Gradient steps until then.
        discount: Weight of the next attempt's value, 0..1. Episodes are short and end by themselves, so 1 is safe;
            0 learns one attempt at a time.
        epsilon_start: Share of random choices at first, 0..1.
        epsilon_end: Share of random choices in the end, not above `epsilon_start`.
        epsilon_steps: Gradient steps until then, falling linearly.
        batch_size: Transitions in one gradient step.
        replay_capacity: Transitions kept; at least one batch.
        tau: Soft updates: share of the way the target network moves after each step, above 0..1. This or
            `target_period`, not both.
        target_period: Hard updates: steps between copies of the online network to the target.
        double: The online network picks the next model, the target network prices it; else the target does both.
        n_step: Rewards summed before bootstrapping, at least 1.
        huber_delta: Error from which on the loss grows linearly (Huber), above 0; None: squared error.
        gradient_clip: Largest norm of the gradient, above 0; None: not clipped.
        weight_decay: Of the weights of all layers (AdamW), not negative; biases and gains do not decay.
        slot_decay: Of the terms of single models: how far a model must prove that it differs from its features.
        priority_alpha: Prioritised replay: how strongly errors decide, above 0..1; None: uniform replay.
        priority_beta: Importance weights at first, 0..1, rising to 1; given with `priority_alpha`.
        priority_beta_steps: Gradient steps until they reach 1.
        seed: Of weights and dropout.
        device: `auto`, `cpu`, `cuda`, `cuda:1` ...
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    learning_rate: float = 1e-3
    learning_rate_end: float | None = None
    learning_rate_steps: int | None = None
    discount: float = 1.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_steps: int = 2_000
    batch_size: int = 64
    replay_capacity: int = 2_000
    tau: float | None = 0.01
    target_period: int | None = None
    double: bool = True
    n_step: int = 1
    huber_delta: float | None = 1.0
    gradient_clip: float | None = 10.0
    weight_decay: float = 1e-4
    slot_decay: float = 1e-3
    priority_alpha: float | None = None
    priority_beta: float | None = None
    priority_beta_steps: int | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check_ranges()
        if (self.tau is None) == (self.target_period is None):
            raise ValueError("set either tau (soft target updates) or target_period (hard ones), and the other to None")
        if (self.learning_rate_end is None) != (self.learning_rate_steps is None):
            raise ValueError("learning_rate_end and learning_rate_steps belong together: set both or neither")
        priority = (self.priority_alpha, self.priority_beta, self.priority_beta_steps)
        if any(knob is None for knob in priority) and any(knob is not None for knob in priority):
            raise ValueError("priority_alpha, priority_beta and priority_beta_steps belong together: all or none")
        if self.epsilon_end > self.epsilon_start:
            raise ValueError(
                f"epsilon_end {self.epsilon_end} is above epsilon_start {self.epsilon_start}; it only falls"
            )
        if self.replay_capacity < self.batch_size:
            raise ValueError(f"replay_capacity {self.replay_capacity} does not hold one batch of {self.batch_size}")
        if self.n_step > 1 and self.discount == 0.0:
            raise ValueError(f"n_step {self.n_step} sums rewards that discount 0 throws away: set n_step to 1")

    def _check_ranges(self) -> None:
        """Refuse values out of range; None stands for a knob that is off."""
        for knob in ("discount", "epsilon_start", "epsilon_end", "priority_beta"):
            value = getattr(self, knob)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{knob} is {value}; it must lie in 0..1")
        for knob in ("tau", "priority_alpha"):
            value = getattr(self, knob)
            if value is not None and not 0.0 < value <= 1.0:
                raise ValueError(f"{knob} is {value}; it must lie in 0..1, above 0")
        for knob in ("learning_rate", "learning_rate_end", "huber_delta", "gradient_clip"):
            value = getattr(self, knob)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{knob} is {value}; it must be above 0")
        for knob in ("weight_decay", "slot_decay"):
            if not 0.0 <= getattr(self, knob) < math.inf:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must not be negative")
        for knob in (
            "learning_rate_steps",
            "epsilon_steps",
            "batch_size",
            "replay_capacity",
            "target_period",
            "n_step",
            "priority_beta_steps",
        ):
            value = getattr(self, knob)
            if value is not None and value < 1:
                raise ValueError(f"{knob} is {value}; it must be at least 1")


def scheduled(start: float, end: float, steps: int, step: int) -> float:
    """Go from start to end in a straight line of so many steps, and stay there."""
    return start + (end - start) * min(1.0, step / steps)


PRESETS: Final[Mapping[str, DQNConfig]] = MappingProxyType(
    {
        "small_data": DQNConfig(
            network=NetworkConfig(
                state_hidden=(32,),
                model_hidden=(16,),
                width=8,
                failed_width=4,
                dropout=0.2,
                slot_dropout=0.1,
                members=3,
            ),
            learning_rate=5e-4,
            batch_size=128,
            weight_decay=1e-2,
            slot_decay=1e-2,
        ),
        "balanced": DQNConfig(),
        "fast_online": DQNConfig(
            network=NetworkConfig(state_hidden=(64,), model_hidden=(16,), width=16, dueling=True),
            learning_rate=3e-3,
            epsilon_steps=500,
            batch_size=32,
            tau=0.05,
            n_step=2,
            priority_alpha=0.6,
            priority_beta=0.4,
            priority_beta_steps=2_000,
        ),
    }
)
"""Starting points: `small_data` (some hundred tasks: small, strongly regularised, averaged over three networks),
`balanced` (the defaults), `fast_online` (learns quickly from few fresh outcomes: high rates, prioritised replay)."""
