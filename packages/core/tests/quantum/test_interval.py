"""Intervals for probabilities: where they must lie, how they shrink, and that they cover what they promise."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from monkey_coder.quantum.interval import wilson


@given(st.floats(0.0, 1.0, width=32), st.floats(0.0, 1e6, width=32))
def test_ends_are_probabilities_around_the_estimate(success, evidence) -> None:
    estimate = np.float32([success])
    low, high = wilson(estimate, np.float32([evidence]))
    assert 0.0 <= low[0] <= estimate[0] <= high[0] <= 1.0


def test_without_evidence_anything_is_possible() -> None:
    low, high = wilson(np.float32([0.0, 0.3, 1.0]), np.float32([0.0, 0.0, 0.0]))
    np.testing.assert_allclose(low, 0.0, atol=1e-3)
    np.testing.assert_allclose(high, 1.0, atol=1e-3)


def test_more_evidence_narrows_the_interval() -> None:
    low, high = wilson(np.full(5, 0.7), np.array([1.0, 10.0, 100.0, 1000.0, 1e5]))
    assert (np.diff(high - low) < 0).all()
    assert high[-1] - low[-1] < 0.01


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_agrees_with_scipy(case) -> None:
    wins, trials = case
    low, high = wilson(np.array([wins / trials]), np.array([float(trials)]))
    reference = binomtest(wins, trials).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [reference.low, reference.high], atol=1e-4)
