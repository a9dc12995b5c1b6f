"""Particles: posterior and lookahead against counting all outcomes, and what may never happen."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.quantum.particles import PAIR_FEATURES, STATE_FEATURES, LookAhead, Particles, after, look_ahead


def particles(seed: int, rows: int = 3, count: int = 5, models: int = 4, graded: bool = False) -> Particles:
    rng = np.random.default_rng(seed)
    weights = rng.random((rows, count)).astype(np.float32) + 0.01
    profile = rng.uniform(0.03, 0.97, (rows, count, models)).astype(np.float32)
    passed, failed = np.ones(models, np.float32), np.zeros(models, np.float32)
    if graded:
        passed, failed = rng.uniform(0.6, 1.0, models), rng.uniform(0.0, 0.4, models)
    weights /= weights.sum(axis=1, keepdims=True)
    success = rng.random((rows, models)).astype(np.float32)
    return Particles(profile, weights, success, passed.astype(np.float32), failed.astype(np.float32))


def enumerated(belief: Particles, row: int, noise: float):
    """Every joint outcome of all models with its probability, and each model's verdicts, by plain counting."""
    weights, profile = belief.weights[row].astype(float), belief.profile[row].astype(float)
    models = profile.shape[1]
    for outcome in product((0, 1), repeat=models):
        passes = np.array(outcome)
        joint = float(weights @ np.prod(np.where(passes, profile, 1.0 - profile), axis=1))
        for verdict in product((0, 1), repeat=models):
            accepted = np.array(verdict)
            agree = np.where(accepted == passes, 1.0 - noise, noise)
            yield passes, accepted, joint * float(agree.prod())


def conditional(belief: Particles, row: int, noise: float, rejected: list[int], value) -> float:
    """Mean of value(passes, accepted) over all cases in which these models are rejected."""
    cases = [case for case in enumerated(belief, row, noise) if not case[1][rejected].any()]
    return sum(chance * value(passes, accepted) for passes, accepted, chance in cases) / sum(c for _, _, c in cases)


def looked(belief: Particles, rejected: np.ndarray, noise: float, left: int, cost=None, open_models=None) -> LookAhead:
    return look_ahead(
        belief,
        open_models=~rejected if open_models is None else open_models,
        rejected=rejected,
        weighted_cost=np.full(rejected.shape, 0.1, np.float32) if cost is None else cost,
        attempts_left=np.full(len(rejected), left),
        noise=noise,
        planned=4,
    )


def mask(rows: int, models: int, chosen: list[int]) -> np.ndarray:
    out = np.zeros((rows, models), np.bool_)
    out[:, chosen] = True
    return out


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.lists(st.integers(0, 3), max_size=3, unique=True),
    st.booleans(),
)
def test_success_rejection_and_what_follows_agree_with_counting_all_outcomes(seed, noise, rejected, graded) -> None:
    start = particles(seed, graded=graded)
    tried = mask(3, 4, rejected)
    belief = after(start, tried, noise)
    cost = np.random.default_rng(seed).random((3, 4)).astype(np.float32)
    found = looked(belief, tried, noise, 2, cost)
    right, wrong = start.passed_score, start.failed_score
    for row, model in product(range(3), range(4)):

        def score(passes, accepted, model=model):
            return right[model] if passes[model] else wrong[model]

        expected = conditional(start, row, noise, rejected, score)
        assert found.success[row, model] == pytest.approx(expected, abs=1e-4)
        if model in rejected:
            continue
        rejection = conditional(start, row, noise, rejected, lambda p, a, model=model: 1.0 - a[model])
        kept = conditional(start, row, noise, rejected, lambda p, a, model=model: a[model] * score(p, a))
        assert found.rejection[row, model] == pytest.approx(rejection, abs=1e-4)
        assert found.kept[row, model] == pytest.approx(kept, abs=1e-4)
        then = [*rejected, model]
        options = [conditional(start, row, noise, then, score)]
        assert found.stopping[row, model] == pytest.approx(options[0], abs=1e-3)
        for other in set(range(4)) - set(then):
            of_other = conditional(start, row, noise, then, lambda p, a, o=other: right[o] if p[o] else wrong[o])
            options.append(of_other - cost[row, other])
        assert found.further[row, model] == pytest.approx(max(options), abs=1e-3)
        value = kept + rejection * max(options) - cost[row, model]
        assert found.value[row, model] == pytest.approx(value, abs=1e-3)
    best = max((found.success[0, model] for model in rejected), default=0.0)
    assert found.stop[0] == pytest.approx(best, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.49), st.permutations([0, 1, 2]))
def test_the_order_of_rejections_does_not_matter(seed, noise, order) -> None:
    start = particles(seed)
    one = start
    for model in order:
        one = after(one, mask(3, 4, [model]), noise)
    together = after(start, mask(3, 4, [0, 1, 2]), noise)
    np.testing.assert_allclose(one.weights, together.weights, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.49), st.integers(0, 2**12 - 1), st.integers(1, 4), st.floats(0.0, 1e9))
def test_beliefs_stay_probabilities_and_values_finite(seed, noise, bits, left, price) -> None:
    tried = ((bits >> np.arange(12)) & 1).astype(np.bool_).reshape(3, 4)
    belief = after(particles(seed), tried, noise)
    np.testing.assert_allclose(belief.weights.sum(axis=1), 1.0, atol=1e-5)
    found = looked(belief, tried, noise, left, np.full((3, 4), price, np.float32))
    for name in ("success", "rejection", "kept", "stopping", "stop"):
        part = getattr(found, name)
        assert ((part >= -1e-5) & (part <= 1.0 + 1e-5)).all(), name
    for name in ("further", "value", "state_features", "pair_features"):
        assert np.isfinite(getattr(found, name)).all(), name
    assert found.state_features.shape == (3, STATE_FEATURES)
    assert found.pair_features.shape == (3, 4, PAIR_FEATURES)
    assert np.abs(found.pair_features).max() <= 4.0


def test_a_sure_failure_of_all_makes_nothing_likely_and_no_nan() -> None:
    sure = replace(particles(1), profile=np.ones((3, 5, 4), np.float32))
    belief = after(sure, mask(3, 4, [0, 1]), 0.0)
    np.testing.assert_allclose(belief.weights, sure.weights, atol=1e-6)


def test_requests_without_rejections_are_left_alone() -> None:
    start = particles(2)
    assert after(start, np.zeros((3, 4), np.bool_), 0.1) is start
    one = np.zeros((3, 4), np.bool_)
    one[1, 2] = True
    changed = after(start, one, 0.1)
    np.testing.assert_array_equal(changed.weights[[0, 2]], start.weights[[0, 2]])
    assert np.abs(changed.weights[1] - start.weights[1]).max() > 1e-3


def test_a_single_attempt_is_valued_by_the_success_model_itself() -> None:
    start, nothing = particles(3), np.zeros((3, 4), np.bool_)
    found = looked(start, nothing, 0.1, 1)
    np.testing.assert_array_equal(found.success, start.success)
    np.testing.assert_allclose(found.value, start.success - 0.1, atol=1e-6)


def test_models_that_may_not_be_tried_are_no_way_on() -> None:
    start, nothing = particles(4), np.zeros((3, 4), np.bool_)
    free = np.full((3, 4), 0.0, np.float32)
    alone = looked(start, nothing, 0.0, 2, free, mask(3, 4, [1]))
    np.testing.assert_allclose(alone.further[:, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(alone.value[:, 1], alone.kept[:, 1], atol=1e-6)
    assert np.isfinite(looked(start, nothing, 0.0, 2, free, nothing).value).all()


def test_features_name_no_model_so_new_ones_can_be_valued() -> None:
    start = particles(5)
    cost = np.random.default_rng(5).random((3, 4)).astype(np.float32)
    turned = [2, 0, 3, 1]
    tried = mask(3, 4, [0])
    moved = replace(start, profile=start.profile[:, :, turned], success=start.success[:, turned])
    one = looked(after(start, tried, 0.1), tried, 0.1, 3, cost)
    other = looked(after(moved, tried[:, turned], 0.1), tried[:, turned], 0.1, 3, cost[:, turned])
    np.testing.assert_allclose(other.pair_features, one.pair_features[:, turned], atol=1e-4)
    np.testing.assert_allclose(other.state_features, one.state_features, atol=1e-4)
