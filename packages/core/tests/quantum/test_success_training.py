"""Fitting the success model: near the best that a reader could say, calibrated, honest about its own rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import Rows, World, log_loss

from monkey_coder.errors import TrainingDivergedError
from monkey_coder.quantum.family_training import OTHER_FAMILY
from monkey_coder.quantum.neural_networks import Models, Observation, import_network
from monkey_coder.quantum.success_model import logit, sigmoid
from monkey_coder.quantum.success_training import (
    SuccessOptions,
    SuccessTraining,
    train_success,
)

WORLD = World.make(seed=1)
TRAIN, TEST = WORLD.rows(1500, seed=2), WORLD.rows(3000, seed=3)
QUICK = SuccessOptions(members=3, epochs=30)
HASTY = SuccessOptions(members=2, epochs=1)


def fit(rows: Rows, options: SuccessOptions = HASTY, seed: int = 0, **more) -> SuccessTraining:
    return train_success(rows.data(**more), options, np.random.default_rng(seed))


def judged(training: SuccessTraining, rows: Rows) -> np.ndarray:
    models = rows.world.models
    declared = np.full((len(rows.scores), len(models)), 0.5, np.float32)
    return training.model.bind(models).estimate(rows.state, rows.embedding, declared).success


@pytest.fixture(scope="module")
def trained() -> SuccessTraining:
    return fit(TRAIN, QUICK)


def test_it_comes_near_the_best_that_a_reader_of_prompts_can_say(trained) -> None:
    best = log_loss(TEST.expected, TEST.scores)
    families = np.stack([TRAIN.scores[TRAIN.family == f].mean(axis=0) for f in range(3)])[TEST.family]
    found, by_family = log_loss(judged(trained, TEST), TEST.scores), log_loss(families, TEST.scores)
    assert found - best < 0.35 * (by_family - best)


def test_its_probabilities_hold_what_they_promise(trained) -> None:
    promised, kept = judged(trained, TEST).ravel(), TEST.scores.ravel()
    for part in np.array_split(np.argsort(promised), 10):
        assert promised[part].mean() == pytest.approx(kept[part].mean(), abs=0.05)


def test_held_out_estimates_are_as_good_as_on_new_prompts_and_no_better(trained) -> None:
    held_out = trained.held_out
    assert not held_out.far.any()
    seen, unseen = log_loss(held_out.success, TRAIN.scores), log_loss(judged(trained, TEST), TEST.scores)
    assert unseen - 0.02 < seen < unseen + 0.03
    assert held_out.evidence.min() > 0.0


def test_rows_are_held_out_of_their_own_prior() -> None:
    rows = WORLD.rows(40, seed=4)
    flipped = rows.scores.copy()
    flipped[0, 0] = 1.0 - flipped[0, 0]
    one, other = fit(rows), fit(replace(rows, scores=flipped))
    change = np.abs(one.held_out.prior - other.held_out.prior)
    same_family = rows.family == rows.family[0]
    assert change[0, 0] < 0.5 * change[1:][same_family[1:], 0].min()


def test_the_networks_say_in_numpy_what_they_said_in_torch(trained) -> None:
    model = trained.model
    bound = model.bind(model.models)
    features = model.features(TEST.embedding[:50], TEST.marks[:50])
    family = model.family_probability(features)
    base = logit(family @ model.family_success)
    network = import_network(model.network.header, model.network.weights)
    observation = Observation.of(
        {"state": np.concatenate([features, family], axis=1), "candidates": np.ones_like(base), "base": base}
    )
    with torch.no_grad():
        said = network(observation, Models(torch.zeros(len(model.models), 1), torch.arange(len(model.models))))
    members = sigmoid(said.numpy())
    raw = model.slope * logit(members.mean(axis=0), 1e-4) + model.offset
    found = bound.estimate(TEST.state[:50], TEST.embedding[:50], np.zeros_like(base))
    near = ~found.far
    np.testing.assert_allclose(found.success[near], sigmoid(raw)[near], atol=1e-5)


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    rows = WORLD.rows(60, seed=5)
    one, same, other = (judged(fit(rows, seed=seed), TEST) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_missing_outcomes_are_not_failures() -> None:
    gone = np.where(np.random.default_rng(6).random(TRAIN.scores.shape) < 0.5, np.nan, TRAIN.scores)
    training = fit(replace(TRAIN, scores=gone), QUICK)
    assert training.model.mean == pytest.approx(TRAIN.scores.mean(axis=0), abs=0.05)
    assert log_loss(judged(training, TEST), TEST.scores) < log_loss(TEST.expected, TEST.scores) + 0.05


def test_inverse_propensities_undo_a_chooser_that_sent_hard_tasks_to_one_model() -> None:
    rng = np.random.default_rng(7)
    easy = TRAIN.chance.mean(axis=1) > 0.6
    propensity = np.where(easy, 0.15, 0.85)
    gone, weights = TRAIN.scores.copy(), np.ones_like(TRAIN.scores, dtype=np.float32)
    gone[rng.random(len(easy)) > propensity, 0] = np.nan
    weights[:, 0] = 1.0 / propensity
    truth = TRAIN.scores[:, 0].mean()
    naive = fit(replace(TRAIN, scores=gone)).model.mean[0]
    mended = fit(replace(TRAIN, scores=gone), weights=weights).model.mean[0]
    assert naive < truth - 0.1
    assert mended == pytest.approx(truth, abs=0.04)


def test_small_families_are_thrown_together() -> None:
    data = WORLD.rows(40, seed=8).data()
    names = ["large"] * 30 + ["a", "b", "c"] * 3 + ["d"]
    training = train_success(replace(data, families=names), HASTY, np.random.default_rng(0))
    assert training.model.families == ("large", OTHER_FAMILY)


def test_prompts_that_come_twice_stay_in_one_fold() -> None:
    rows = WORLD.rows(30, seed=9)
    index = np.repeat(np.arange(30), 2)
    scores = WORLD.rows(60, seed=10).scores
    twice = replace(rows, embedding=rows.embedding[index], marks=rows.marks[index], scores=scores)
    twice = replace(twice, family=rows.family[index])
    training = fit(twice, SuccessOptions(members=6, epochs=2))
    deviations = training.held_out.deviations.reshape(30, 2, -1)
    assert np.abs(deviations[:, 0] - deviations[:, 1]).max() < 0.5


def test_progress_is_told_and_may_stop_the_fit() -> None:
    told = []
    train_success(WORLD.rows(40, seed=11).data(), HASTY, np.random.default_rng(0), lambda *facts: told.append(facts))
    assert [(epoch, most) for epoch, most, _ in told] == [(1, 1)]

    def stop(epoch, most, loss) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_success(WORLD.rows(40, seed=11).data(), HASTY, np.random.default_rng(0), stop)


def test_what_cannot_be_learned_from_is_refused() -> None:
    rows = WORLD.rows(40, seed=12)
    nothing = rows.scores.copy()
    nothing[:, 2] = np.nan
    with pytest.raises(ValueError, match="made/model-2"):
        fit(replace(rows, scores=nothing))
    with pytest.raises(ValueError, match="too few"):
        fit(WORLD.rows(3, seed=13))
    with pytest.raises(TrainingDivergedError):
        fit(rows, replace(HASTY, learning_rate=1e30, epochs=5))


@pytest.mark.parametrize("knobs", [{"members": 1}, {"dropout": 1.0}, {"epochs": 0}, {"least_family": 1}])
def test_options_out_of_range_are_refused(knobs) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        SuccessOptions(**knobs)
