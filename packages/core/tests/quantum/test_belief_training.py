"""Fitting the belief: it finds what is there, and one model's failure tells of the others as it does in truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import World, log_loss

from monkey_coder.quantum.belief_training import (
    BeliefOptions,
    BeliefTraining,
    fit_classes,
    normal_points,
    score_levels,
    train_belief,
)
from monkey_coder.quantum.particles import Particles, after
from monkey_coder.quantum.success_training import SuccessOptions, SuccessTraining, train_success

WORLD = World.make(seed=31, hidden=2.0)
TRAIN, TEST = WORLD.rows(900, seed=32), WORLD.rows(2000, seed=33)


@pytest.fixture(scope="module")
def success() -> SuccessTraining:
    return train_success(TRAIN.data(), SuccessOptions(members=3, epochs=20), np.random.default_rng(0))


@pytest.fixture(scope="module")
def trained(success) -> BeliefTraining:
    return train_belief(WORLD.models, TRAIN.scores, success.held_out, BeliefOptions(), np.random.default_rng(0))


def chance(belief: Particles) -> np.ndarray:
    return np.einsum("bn,bnm->bm", belief.weights, belief.profile)


def test_after_a_failure_it_knows_better_than_one_that_forgets_it(success, trained) -> None:
    declared = np.full(TEST.scores.shape, 0.5, np.float32)
    estimate = success.model.bind(WORLD.models).estimate(TEST.state, TEST.embedding, declared)
    before = trained.belief.bind(WORLD.models).particles(estimate)
    failed = TEST.scores[:, 0] == 0.0
    tried = np.zeros(TEST.scores.shape, np.bool_)
    tried[:, 0] = True
    then = chance(after(before, tried, 0.0))[failed][:, 1:]
    truth = TEST.scores[failed][:, 1:]
    assert log_loss(then, truth) < log_loss(estimate.success[failed][:, 1:], truth) - 0.05
    assert then.mean() == pytest.approx(truth.mean(), abs=0.04)
    for part in np.array_split(np.argsort(then.ravel()), 5):
        assert then.ravel()[part].mean() == pytest.approx(truth.ravel()[part].mean(), abs=0.08)


def test_before_any_failure_it_is_nearly_as_good_as_the_success_model(success, trained) -> None:
    declared = np.full(TEST.scores.shape, 0.5, np.float32)
    estimate = success.model.bind(WORLD.models).estimate(TEST.state, TEST.embedding, declared)
    found = chance(trained.belief.bind(WORLD.models).particles(estimate))
    assert log_loss(found, TEST.scores) < log_loss(estimate.success, TEST.scores) + 0.05
    np.testing.assert_allclose(found.mean(axis=0), TEST.scores.mean(axis=0), atol=0.05)


def test_independent_models_tell_nothing_of_each_other() -> None:
    world = World.make(seed=34, hidden=0.0, readable=0.0)
    rows = world.rows(1200, seed=35)
    success = train_success(rows.data(), SuccessOptions(members=2, epochs=5), np.random.default_rng(0))
    found = train_belief(world.models, rows.scores, success.held_out, BeliefOptions(), np.random.default_rng(0))
    tried = np.zeros(rows.scores.shape, np.bool_)
    tried[:, 0] = True
    change = chance(after(found.held_out, tried, 0.0))[:, 1:] - chance(found.held_out)[:, 1:]
    assert abs(change.mean()) < 0.06


def test_no_row_is_in_its_own_held_out_belief(success) -> None:
    flipped = TRAIN.scores.copy()
    flipped[5] = 1.0 - flipped[5]
    options = BeliefOptions(factor_steps=1)
    weights = [
        train_belief(WORLD.models, scores, success.held_out, options, np.random.default_rng(0)).held_out.weights
        for scores in (TRAIN.scores, flipped)
    ]
    change = np.abs(weights[0] - weights[1]).sum(axis=1)
    assert change[5] <= np.quantile(change, 0.99)
    np.testing.assert_allclose(weights[0].sum(axis=1), 1.0, atol=1e-5)


def test_classes_that_are_there_are_found() -> None:
    rng = np.random.default_rng(36)
    truth = np.array([[0.95, 0.9, 0.05, 0.1, 0.9, 0.1], [0.1, 0.05, 0.9, 0.95, 0.1, 0.9]])
    member = (rng.random(600) < 0.3).astype(int)
    passes = (rng.random((600, 6)) < truth[member]).astype(np.float32)
    counts = (rng.random((600, 6)) < 0.8).astype(np.float32)
    found = fit_classes(passes * counts, counts, BeliefOptions(most_classes=2), rng)
    order = np.argsort(-found.profile[:, 0])
    np.testing.assert_allclose(found.profile[order], truth, atol=0.08)
    np.testing.assert_allclose(found.weight[order], [0.7, 0.3], atol=0.06)
    assert (found.members[:, order].argmax(axis=1) == member).mean() > 0.95


def test_levels_of_graded_scores() -> None:
    scores = np.array([[0.9, 0.0], [0.7, np.nan], [0.1, 0.2], [0.3, 0.4]])
    passed, failed = score_levels(scores, np.where(np.isnan(scores), 0.0, 1.0).astype(np.float32))
    np.testing.assert_allclose(passed, [0.8, 1.0], atol=1e-6)
    np.testing.assert_allclose(failed, [0.2, 0.2], atol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 24, 64])
def test_points_of_the_factor_are_those_of_a_normal_distribution(count) -> None:
    points = normal_points(count, np.random.default_rng(0))
    assert points.shape == (count, 2)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-5)
    if count >= 24:
        np.testing.assert_allclose(points.std(axis=0), 1.0, atol=0.15)


def test_small_tables_trust_the_factor_and_large_ones_the_classes(success, trained) -> None:
    few = np.arange(40)
    small = train_belief(
        WORLD.models, TRAIN.scores[few], success.held_out.take(few), BeliefOptions(), np.random.default_rng(0)
    ).belief
    assert small.class_share < 0.1 < 0.6 < trained.belief.class_share
    assert len(small.class_weight) == 5


def test_the_same_seed_gives_the_same_belief(success) -> None:
    options = BeliefOptions(factor_steps=5)
    one, same = (
        train_belief(WORLD.models, TRAIN.scores, success.held_out, options, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.held_out.profile, same.held_out.profile)


def test_missing_outcomes_and_weights_are_understood(success) -> None:
    gone = np.where(np.random.default_rng(8).random(TRAIN.scores.shape) < 0.4, np.nan, TRAIN.scores)
    weights = np.ones(gone.shape, np.float32)
    found = train_belief(
        WORLD.models, gone, success.held_out, BeliefOptions(), np.random.default_rng(0), weights
    ).held_out
    np.testing.assert_allclose(chance(found).mean(axis=0), TRAIN.scores.mean(axis=0), atol=0.06)


def test_what_does_not_fit_is_refused(success) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="do not fit"):
        train_belief(WORLD.models[1:], TRAIN.scores, success.held_out, BeliefOptions(), rng)
    nothing = TRAIN.scores.copy()
    nothing[:, 1] = np.nan
    with pytest.raises(ValueError, match="without an outcome"):
        train_belief(WORLD.models, nothing, success.held_out, BeliefOptions(), rng)
    changed = replace(BeliefOptions(), most_anchors=50)
    assert len(train_belief(WORLD.models, TRAIN.scores, success.held_out, changed, rng).belief.anchors) == 50
