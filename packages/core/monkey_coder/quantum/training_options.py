"""Every knob of a training run, and the presets for usual situations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from monkey_coder.quantum.belief_training import BeliefOptions
from monkey_coder.quantum.dqn_config import DQNConfig
from monkey_coder.quantum.policy_file import NetworkConfig
from monkey_coder.quantum.success_training import SuccessOptions
from monkey_coder.quantum.training_monitor import MonitorConfig

WEIGHT_GRID: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Cost weights w of ``success - w * cost / cost_ref`` on which policies are validated."""

LEAST_TASKS: Final = 24
"""Fewer tasks than these teach nothing that could be validated."""

LEAST_OUTCOMES: Final = 5
"""A model with fewer outcomes than these counts as new: its declared prior says more."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        attempts: Attempts of an episode that are planned for, K, at least 1.
        noise: Probability that a verdict of the caller's verifier is wrong, 0 up to and without one half.
        seed: Of all randomness.
        validation_share: Share of the distinct prompts that the value network is chosen on, above 0 and below 1.
        most_validation: Tasks that are played at each validation while training; all are for the model card.
        most_tasks: Tasks that episodes are simulated on; a random part of larger data.
        steps: Most gradient steps of the value network.
        round_steps: Gradient steps between two simulations.
        round_states: States visited in one simulation.
        actions: Most promising models of a visited state that become transitions.
        outcome_share: Share of visited tasks whose recorded outcome decides; for the others the belief's expectation
            does, which has no sampling noise.
        check_steps: Gradient steps between two validations.
        dqn: The agent.
        success: The success model.
        belief: The belief.
        monitor: When a run has converged or diverged.
    """

    attempts: int = 4
    noise: float = 0.0
    seed: int = 0
    validation_share: float = 0.2
    most_validation: int = 240
    most_tasks: int = 4_000
    steps: int = 720
    round_steps: int = 8
    round_states: int = 96
    actions: int = 10
    outcome_share: float = 0.3
    check_steps: int = 60
    dqn: DQNConfig = field(default_factory=DQNConfig)
    success: SuccessOptions = field(default_factory=SuccessOptions)
    belief: BeliefOptions = field(default_factory=BeliefOptions)
    monitor: MonitorConfig = field(default_factory=lambda: MonitorConfig(patience=6, min_improvement=1e-4))

    def __post_init__(self) -> None:
        for knob in ("most_validation", "most_tasks", "round_steps", "round_states", "actions", "check_steps"):
            if getattr(self, knob) < 1:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least 1")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; an episode has at least 1")
        if not 0.0 <= self.noise < 0.5:
            raise ValueError(f"noise is {self.noise}; it must lie in 0..0.5: a worse verifier says nothing, or lies")
        if not 0.0 < self.validation_share < 1.0:
            raise ValueError(f"validation_share is {self.validation_share}; it must lie between 0 and 1")
        if not 0.0 <= self.outcome_share <= 1.0:
            raise ValueError(f"outcome_share is {self.outcome_share}; it must lie in 0..1")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; 0 trains no value network, fewer do not exist")


_NETWORK: Final = NetworkConfig(
    state_hidden=(32,),
    model_hidden=(16,),
    pair_hidden=(32,),
    width=8,
    failed_width=0,
    activation="relu",
    slot_terms="none",
    members=4,
)
_BALANCED: Final = DQNConfig(
    network=_NETWORK,
    learning_rate=2e-3,
    learning_rate_end=1e-4,
    learning_rate_steps=720,
    epsilon_start=0.25,
    epsilon_end=0.25,
    batch_size=240,
    replay_capacity=6_000,
    tau=0.05,
    huber_delta=0.1,
    gradient_clip=2.0,
    weight_decay=1e-3,
)

PRESETS: Final[Mapping[str, TrainOptions]] = MappingProxyType(
    {
        "small_data": TrainOptions(
            steps=480,
            dqn=replace(
                _BALANCED,
                network=replace(_NETWORK, state_hidden=(16,), pair_hidden=(16,), model_hidden=(8,), width=4),
                learning_rate=1e-3,
                learning_rate_steps=480,
                weight_decay=1e-2,
            ),
        ),
        "balanced": TrainOptions(dqn=_BALANCED),
        "fast_online": TrainOptions(
            steps=240,
            check_steps=40,
            dqn=replace(
                _BALANCED,
                learning_rate=4e-3,
                learning_rate_steps=240,
                replay_capacity=3_000,
                priority_alpha=0.6,
                priority_beta=0.4,
                priority_beta_steps=240,
            ),
        ),
    }
)
"""`balanced` is the default; `small_data` is for some hundred tasks (a smaller network, stronger decay); `fast_online`
for frequent runs on fresh outcomes (few steps at a high rate, prioritised replay)."""


def preset(name: str, *, attempts: int = 4, noise: float = 0.0, seed: int = 0) -> TrainOptions:
    """A preset for these episodes and this seed.

    Raises:
        ValueError: There is no such preset, or a value is out of range.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    options = PRESETS[name]
    return replace(options, attempts=attempts, noise=noise, seed=seed, dqn=replace(options.dqn, seed=seed))
