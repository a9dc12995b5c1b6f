"""Models unknown to training: first judged by difficulty, then by their own outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import log_loss

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.new_model import NewModelPrior, fit_logistic, learn_prior


def sigmoid(value):
    return 1.0 / (1.0 + np.exp(-value))


def prior(slope: float = 0.7) -> NewModelPrior:
    return NewModelPrior(slope, 0.2, np.linspace(-2.0, 2.0, 101, dtype=np.float32))


@given(st.floats(0.01, 0.99), st.floats(0.0, 1.0))
def test_before_any_outcome_its_mean_success_is_the_declared_one(declared, slope) -> None:
    deviations = np.linspace(-2.0, 2.0, 101, dtype=np.float32)[:, None]
    success = prior(slope).success(np.full((101, 1), declared), deviations)
    assert success.mean() == pytest.approx(declared, abs=0.003)
    assert (np.diff(success[:, 0]) >= -1e-6).all()  # easier tasks are likelier to succeed


def test_declarations_of_certainty_give_no_certainty() -> None:
    success = prior().success(np.array([[0.0, 1.0]]), np.zeros((1, 3), np.float32))
    assert 0.0 < success[0, 0] < 0.02
    assert 0.98 < success[0, 1] < 1.0


def test_without_outcomes_the_posterior_says_what_the_prior_says() -> None:
    deviations = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    posterior = prior().update(0.6, np.zeros((0, 4), np.float32), np.zeros(0))
    assert posterior.outcomes == 0
    expected = prior().success(np.full((50, 1), 0.6), deviations)[:, 0]
    np.testing.assert_allclose(posterior.success(deviations), expected, atol=1e-4)


def test_outcomes_move_it_to_the_truth_and_wrong_declarations_are_forgotten() -> None:
    rng = np.random.default_rng(2)
    deviations = rng.normal(size=(4000, 4)).astype(np.float32)
    truth = sigmoid(-0.5 + 0.4 * deviations.mean(axis=1) + 0.9 * deviations[:, 2])
    outcomes = (rng.random(4000) < truth).astype(float)
    test, losses = slice(2000, None), []
    for count in (0, 20, 200, 2000):
        posterior = prior().update(0.75, deviations[:count], outcomes[:count])
        losses.append(log_loss(posterior.success(deviations[test]), outcomes[test]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < log_loss(truth[test], outcomes[test]) + 0.01


def test_slopes_are_learned_from_how_models_follow_each_other() -> None:
    rng = np.random.default_rng(3)
    common = rng.standard_normal(3000)

    def learned(follow: float) -> NewModelPrior:
        logits = follow * common[:, None] + (1.0 - follow) * rng.standard_normal((3000, 5))
        scores = (rng.random(logits.shape) < sigmoid(2.0 * logits)).astype(float)
        scores[::7, 1] = np.nan
        return learn_prior((logits - logits.mean(axis=0)).astype(np.float32), scores)

    together, apart = learned(1.0), learned(0.1)
    assert together.slope > 0.8
    assert apart.slope < 0.3
    assert 0.0 <= apart.slope <= together.slope <= 1.0


def test_two_models_are_too_few_to_learn_a_slope() -> None:
    assert learn_prior(np.ones((10, 2), np.float32), np.ones((10, 2))).slope == 0.5


def test_logistic_regression_finds_the_maximum_of_the_posterior() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 3))
    y = (rng.random(300) < sigmoid(x @ np.array([1.0, -2.0, 0.5]))).astype(float)
    mean, precision, weights = np.array([0.5, 0.0, 0.0]), np.array([2.0, 0.1, 1.0]), rng.random(300)
    found = fit_logistic(x, y, mean, precision, weights)

    def posterior(b):
        z = x @ b
        return float((weights * (y * z - np.logaddexp(0.0, z))).sum() - 0.5 * (precision * (b - mean) ** 2).sum())

    for direction in np.eye(3):
        assert posterior(found) >= posterior(found + 0.01 * direction)
        assert posterior(found) >= posterior(found - 0.01 * direction)


def test_it_survives_a_file() -> None:
    again = NewModelPrior.from_arrays(*prior().to_arrays())
    assert (again.slope, again.slope_deviation) == (0.7, 0.2)
    np.testing.assert_array_equal(again.difficulties, prior().difficulties)
    with pytest.raises(PolicyError, match="slope"):
        NewModelPrior.from_arrays(prior().to_arrays()[0], {})
