"""Serving the success model: far requests, unknown and removed models, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from worlds import DIMENSIONS, World, log_loss

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.success_model import FAR_EVIDENCE, SuccessEstimate, SuccessModel, logit, sigmoid
from monkey_coder.quantum.success_training import SuccessOptions, train_success
from monkey_coder.quantum.text_marks import MARKS

WORLD = World.make(seed=21, models=6)
TRAIN, TEST = WORLD.rows(900, seed=22), WORLD.rows(1500, seed=23)
KNOWN = WORLD.models[:5]
NEW = WORLD.models[5]


@pytest.fixture(scope="module")
def model() -> SuccessModel:
    options = SuccessOptions(members=3, epochs=30)
    return train_success(TRAIN.data(models=5), options, np.random.default_rng(0)).model


def judge(model: SuccessModel, refs, embedding=TEST.embedding, state=TEST.state, declared=0.5) -> SuccessEstimate:
    return model.bind(refs).estimate(state, embedding, np.full((len(state), len(refs)), declared, np.float32))


@given(arrays(np.float64, 5, elements=st.floats(0.0, 1.0)))
def test_log_odds_and_back(chance) -> None:
    np.testing.assert_allclose(sigmoid(logit(chance)), np.clip(chance, 0.02, 0.98), atol=1e-6)
    assert np.isfinite(sigmoid(np.array([-1e30, 1e30]))).all()


def test_prompts_like_those_of_training_are_near_and_others_far(model) -> None:
    assert judge(model, KNOWN).far.mean() < 0.05
    basis, _ = np.linalg.qr(np.concatenate([WORLD.centres.T, np.random.default_rng(1).normal(size=(24, 5))], axis=1))
    strange = np.concatenate([basis[:, 3:].T, np.zeros((1, DIMENSIONS))]).astype(np.float32)
    state = np.concatenate([strange, TEST.marks[:6]], axis=1)
    found = judge(model, KNOWN, strange, state)
    assert found.far.all()
    np.testing.assert_allclose(found.success, np.tile(model.mean, (6, 1)), atol=0.02)
    assert (found.evidence == FAR_EVIDENCE).all()
    assert not found.deviations.any()


def test_an_unknown_model_is_judged_by_the_difficulty_of_the_request(model) -> None:
    truth = TRAIN.scores[:, 5].mean()
    found = judge(model, (*KNOWN, NEW), declared=truth)
    np.testing.assert_allclose(found.success[:, :5], judge(model, KNOWN).success, atol=1e-6)
    near = ~found.far
    plain = np.full(near.sum(), truth)
    assert log_loss(found.success[near, 5], TEST.scores[near, 5]) < log_loss(plain, TEST.scores[near, 5]) - 0.01
    assert found.success[:, 5].mean() == pytest.approx(truth, abs=0.05)
    assert (found.evidence[:, 5] == FAR_EVIDENCE).all()


def test_the_order_of_a_table_and_models_it_lacks_change_no_estimate(model) -> None:
    whole, some = judge(model, KNOWN), judge(model, (KNOWN[3], "other/unknown", KNOWN[0]))
    np.testing.assert_array_equal(some.success[:, 0], whole.success[:, 3])
    np.testing.assert_array_equal(some.success[:, 2], whole.success[:, 0])
    np.testing.assert_array_equal(some.prior[:, 0], whole.prior[:, 3])
    np.testing.assert_array_equal(some.deviations, whole.deviations)


def test_the_prior_can_be_had_without_the_rest(model) -> None:
    declared = np.full((len(TEST.state), len(KNOWN) + 1), 0.3, np.float32)
    state, embedding = TEST.state.copy(), TEST.embedding.copy()
    state[0], embedding[0] = 3.0, -embedding[0]  # far from all that was seen
    bound = model.bind((*KNOWN[1:], NEW, KNOWN[0]))
    whole = bound.estimate(state, embedding, declared)
    assert whole.far[0]
    np.testing.assert_allclose(bound.prior(state, embedding, declared), whole.prior, rtol=1e-6)


def test_a_table_of_strangers_alone_can_be_judged(model) -> None:
    found = judge(model, ("other/a", "other/b"), declared=0.7)
    assert found.success.shape == (1500, 2)
    assert found.success.mean() == pytest.approx(0.7, abs=0.05)


@settings(max_examples=30)
@given(
    arrays(np.float32, (3, DIMENSIONS), elements=st.floats(-1.0, 1.0, width=32)),
    arrays(np.float32, (3, MARKS), elements=st.floats(-100.0, 100.0, width=32)),
)
def test_any_request_gets_probabilities_and_each_its_own(model, embedding, marks) -> None:
    state = np.concatenate([embedding, marks], axis=1)
    found = judge(model, (*KNOWN, NEW), embedding, state)
    assert np.isfinite(found.logits).all()
    assert ((found.success >= 0.0) & (found.success <= 1.0)).all()
    assert ((found.prior > 0.0) & (found.prior < 1.0)).all()
    assert (found.evidence > 0.0).all()
    alone = judge(model, (*KNOWN, NEW), embedding[1:2], state[1:2])
    np.testing.assert_allclose(alone.success, found.take([1]).success, atol=1e-4)


def test_members_that_disagree_make_weak_evidence(model) -> None:
    members = model.network.header.network.members
    shaken = {name: array.copy() for name, array in model.network.weights.items()}
    shaken["slot_bias"] += np.linspace(-2.0, 2.0, members, dtype=np.float32)[:, None]
    changed = replace(model, network=type(model.network)(model.network.header, shaken))
    assert np.median(judge(changed, KNOWN).evidence) < 0.2 * np.median(judge(model, KNOWN).evidence)


def test_it_survives_a_file(model) -> None:
    again = SuccessModel.from_arrays(*model.to_arrays())
    np.testing.assert_array_equal(judge(again, KNOWN).success, judge(model, KNOWN).success)
    np.testing.assert_array_equal(judge(again, (NEW,)).success, judge(model, (NEW,)).success)


def test_damaged_files_are_refused(model) -> None:
    arrays_, header = model.to_arrays()
    with pytest.raises(PolicyError, match="centre"):
        SuccessModel.from_arrays({n: a for n, a in arrays_.items() if n != "centre"}, header)
    with pytest.raises(PolicyError, match="mean"):
        SuccessModel.from_arrays(arrays_ | {"mean": np.full(5, np.nan, np.float32)}, header)
    with pytest.raises(PolicyError, match="family_bias"):
        SuccessModel.from_arrays(arrays_ | {"family_bias": np.zeros(9, np.float32)}, header)
    with pytest.raises(PolicyError, match="damaged"):
        SuccessModel.from_arrays(arrays_, header | {"network": {}})
