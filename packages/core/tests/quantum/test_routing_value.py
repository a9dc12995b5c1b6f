"""From lookaheads to Q-values, the same way in training and in serving."""

from __future__ import annotations

import numpy as np
import pytest

from monkey_coder.quantum.dqn_agent import DQNAgent
from monkey_coder.quantum.particles import STATE_FEATURES, LookAhead, Particles, look_ahead
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import NetworkShape, PolicyHeader
from monkey_coder.quantum.routing_value import PAIRS, adds, encode_models, feature_range, observation
from monkey_coder.quantum.training_options import PRESETS

REFS = ("a/a", "b/b", "c/c")
FEATURES = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def agent() -> DQNAgent:
    """With weights that say something."""
    agent = DQNAgent(PRESETS["balanced"].dqn, NetworkShape(STATE_FEATURES, 4, PAIRS, 3), FEATURES)
    rng = np.random.default_rng(0)
    for array in agent.online.parameters():
        array.data += array.new_tensor(0.3 * rng.normal(size=tuple(array.shape)))
    return agent


def look(left: int) -> tuple[LookAhead, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    profile = rng.uniform(0.1, 0.9, (4, 6, 3)).astype(np.float32)
    weights = np.full((4, 6), 1 / 6, np.float32)
    particles = Particles(profile, weights, profile.mean(axis=1), np.ones(3, np.float32), np.zeros(3, np.float32))
    open_models, attempts = np.ones((4, 3), dtype=np.bool_), np.full(4, left)
    found = look_ahead(
        particles,
        open_models=open_models,
        rejected=~open_models,
        weighted_cost=np.full((4, 3), 0.1, np.float32),
        attempts_left=attempts,
        noise=0.1,
        planned=4,
    )
    return found, open_models, attempts


def served(agent: DQNAgent) -> Policy:
    header = PolicyHeader(agent.online.config, agent.online.shape, 1, REFS, feature_range(FEATURES))
    return Policy(header, {name: array.numpy(force=True) for name, array in agent.online.state_dict().items()})


@pytest.mark.parametrize("left", [1, 2])
def test_near_the_end_the_lookahead_is_the_value_whatever_the_network_says(agent: DQNAgent, left: int) -> None:
    found, open_models, attempts = look(left)
    assert not adds(attempts)
    assert np.array_equal(agent.q_values(observation(found, open_models, attempts)), found.value)


def test_further_off_the_network_adds_as_far_as_a_rejection_is_likely(agent: DQNAgent) -> None:
    found, open_models, attempts = look(4)
    assert adds(attempts)
    seen = observation(found, open_models, attempts)
    added = agent.q_values(seen) - found.value
    plain = agent.q_values(seen | {"gain": np.ones_like(found.value)}) - found.value
    assert np.abs(added).max() > 1e-3
    assert added == pytest.approx(found.rejection * plain, abs=1e-5)


def test_serving_says_what_training_says(agent: DQNAgent) -> None:
    found, open_models, attempts = look(3)
    seen = observation(found, open_models, attempts)
    policy = served(agent)
    assert policy.q_values(seen, encode_models(policy, REFS, FEATURES)) == pytest.approx(agent.q_values(seen), abs=1e-5)


def test_features_beyond_what_training_saw_count_as_its_edge(agent: DQNAgent) -> None:
    policy = served(agent)
    beyond = encode_models(policy, REFS, FEATURES + 100.0)
    edge = encode_models(policy, REFS, np.tile(FEATURES.max(axis=0), (3, 1)))
    assert np.array_equal(beyond.vectors, edge.vectors)
