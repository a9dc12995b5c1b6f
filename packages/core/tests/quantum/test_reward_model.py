"""A model of rewards that knows nothing of the outcome it foretells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.quantum.reward_model import cross_fitted


def world(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Two actions; the second is good exactly for prompts of the second kind. Nothing of it was expected."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, count)
    embedding = (np.eye(6)[kind] + 0.05 * rng.normal(size=(count, 6))).astype(np.float32)
    action = rng.integers(0, 2, count)
    return {
        "embedding": embedding,
        "expected": np.full((count, 2), 0.5),
        "action": action,
        "reward": (action == kind).astype(float),
        "cluster": np.arange(count),
    }


def test_it_reads_what_the_engine_missed() -> None:
    made = world(400)
    found = cross_fitted(**made, rng=np.random.default_rng(1))
    kind = made["embedding"].argmax(axis=1).clip(max=1)
    truth = np.eye(2)[kind]
    assert np.abs(found - truth).mean() < 0.15


@pytest.mark.parametrize("size", [1, 4])
def test_no_outcome_reaches_what_is_foretold_of_its_own_cluster(size: int) -> None:
    made = world(80)
    made["cluster"] = made["cluster"] // size
    before = cross_fitted(**made, rng=np.random.default_rng(2))
    own = made["cluster"] == 3
    made["reward"] = np.where(own, 1.0 - made["reward"], made["reward"])
    after = cross_fitted(**made, rng=np.random.default_rng(2))
    assert np.array_equal(after[own], before[own])
    assert not np.array_equal(after, before)


def test_an_action_never_taken_misses_as_the_others_do() -> None:
    made = world(200)
    made["action"][:] = 0
    made["reward"] = np.full(200, 0.8)
    found = cross_fitted(**made, rng=np.random.default_rng(0))
    assert found[:, 1] == pytest.approx(0.79, abs=0.02)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(0, 1_000))
def test_what_is_foretold_stays_within_what_was_seen_and_expected(count: int, seed: int) -> None:
    made = world(count, seed)
    found = cross_fitted(**made, rng=np.random.default_rng(seed))
    assert found.shape == (count, 2)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
