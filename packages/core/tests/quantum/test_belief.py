"""The belief: whose classes a request takes, unknown and missing models, graded scores, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.belief import Belief
from monkey_coder.quantum.particles import Particles, after
from monkey_coder.quantum.success_model import SuccessEstimate, logit

MODELS = ("a/one", "a/two", "b/three", "b/four")


def mask(rows: int, models: int, chosen: list[int]) -> np.ndarray:
    out = np.zeros((rows, models), np.bool_)
    out[:, chosen] = True
    return out


def belief() -> Belief:
    rng = np.random.default_rng(6)
    easy = np.array([[0.9, 0.9, 0.8, 0.95], [0.1, 0.2, 0.05, 0.3], [0.2, 0.9, 0.2, 0.9]], np.float32)
    anchors = np.repeat(logit(easy), 4, axis=0)
    return Belief(
        models=MODELS,
        class_profile=easy,
        class_weight=np.array([0.5, 0.3, 0.2], np.float32),
        anchors=anchors + 0.01 * rng.normal(size=anchors.shape).astype(np.float32),
        anchor_class=np.repeat(np.eye(3, dtype=np.float32), 4, axis=0),
        bandwidth=0.3,
        pseudo_rows=0.5,
        class_share=0.6,
        points=np.array([[-1.0, 0.5], [1.0, -0.5]], np.float32),
        intercept=np.zeros(4, np.float32),
        slope=1.0,
        centre=np.zeros(4, np.float32),
        loading=np.ones((2, 4), np.float32),
        passed_score=np.ones(4, np.float32),
        failed_score=np.zeros(4, np.float32),
    )


def estimate(success: np.ndarray, far: bool = False) -> SuccessEstimate:
    success = np.atleast_2d(np.asarray(success, np.float32))
    rows = len(success)
    return SuccessEstimate(
        success, logit(success), success, np.ones_like(success), np.full(rows, far), np.zeros((rows, 4), np.float32)
    )


def test_a_request_takes_the_classes_of_the_rows_it_is_like() -> None:
    bound = belief().bind(MODELS)
    weights = bound.class_weights(estimate(belief().class_profile))
    assert (np.diag(weights) > 0.85).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)


def test_a_far_request_gets_the_overall_mix() -> None:
    weights = belief().bind(MODELS).class_weights(estimate([0.9, 0.9, 0.8, 0.95], far=True))
    np.testing.assert_allclose(weights[0], belief().class_weight)


def test_models_that_a_table_lacks_do_not_disturb_the_others() -> None:
    success = np.array([[0.2, 0.9, 0.2, 0.9]], np.float32)
    some = [3, 0, 1]
    whole = belief().bind(MODELS).particles(estimate(success))
    part = belief().bind([MODELS[column] for column in some]).particles(estimate(success[:, some]))
    np.testing.assert_allclose(part.profile, whole.profile[:, :, some], atol=1e-6)


def test_an_unknown_model_has_its_own_chance_and_suffers_from_the_failures_of_others() -> None:
    refs = (*MODELS, "new/model")
    start = belief().bind(refs).particles(estimate([0.5, 0.6, 0.5, 0.7, 0.6]))

    def chance(belief: Particles) -> float:
        return float(belief.weights[0] @ belief.profile[0, :, 4])

    assert chance(start) == pytest.approx(0.6, abs=0.03)
    assert chance(after(start, mask(1, 5, [0, 1, 3]), 0.0)) < 0.45


def test_strangers_alone_can_be_believed_in() -> None:
    start = belief().bind(("x/a", "x/b")).particles(estimate([0.4, 0.7]))
    mean = np.einsum("bn,bnm->bm", start.weights, start.profile)
    np.testing.assert_allclose(mean, [[0.4, 0.7]], atol=0.03)


def test_graded_scores_are_told_apart_from_passing() -> None:
    graded = replace(belief(), passed_score=np.full(4, 0.8, np.float32), failed_score=np.full(4, 0.3, np.float32))
    start = replace(graded, class_share=0.0, loading=np.zeros((2, 4), np.float32)).bind(MODELS)
    found = start.particles(estimate([0.3, 0.55, 0.8, 0.675]))
    np.testing.assert_allclose(found.profile[0, -1], [0.02, 0.5, 0.98, 0.75], atol=1e-5)


def test_it_survives_a_file() -> None:
    asked = estimate([[0.5, 0.6, 0.5, 0.7]])
    again = Belief.from_arrays(*belief().to_arrays()).bind(MODELS).particles(asked)
    np.testing.assert_array_equal(again.profile, belief().bind(MODELS).particles(asked).profile)
    arrays, header = belief().to_arrays()
    with pytest.raises(PolicyError, match="loading"):
        Belief.from_arrays(arrays | {"loading": np.zeros((2, 9), np.float32)}, header)
