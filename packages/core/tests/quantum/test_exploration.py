"""Exploration: who may be drawn, how often, and that the probabilities reported are the true ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from monkey_coder.quantum.exploration import LEAST_SHARE, TEMPERATURE, Served, decayed, explore


def serve(winner, utility, drawable, epsilon, seed=0, rows=1) -> Served:
    """The same request `rows` times."""
    return explore(
        np.full(rows, winner),
        np.tile(np.float32(utility), (rows, 1)),
        np.tile(np.array(drawable, dtype=np.bool_), (rows, 1)),
        np.full(rows, epsilon, dtype=np.float32),
        np.random.default_rng(seed),
    )


@st.composite
def situations(draw):
    rows, models = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 1e6, 1e18]))
    return (
        rng.integers(models, size=rows),
        (1.0 - scale * rng.random((rows, models))).astype(np.float32),
        rng.random((rows, models)) < draw(st.floats(0.0, 1.0)),
        rng.choice(np.float32([0.0, 0.02, 0.5, 1.0]), rows),
    )


@settings(max_examples=150)
@given(situations(), st.integers(0, 2**32 - 1))
def test_only_the_winner_and_what_may_be_drawn_is_served(situation, seed) -> None:
    winner, utility, drawable, epsilon = situation
    served = explore(winner, utility, drawable, epsilon, np.random.default_rng(seed))
    rows = np.arange(len(winner))
    np.testing.assert_array_equal(served.explored, served.column != winner)
    assert (served.explored <= drawable[rows, served.column]).all()
    assert not served.explored[epsilon == 0.0].any()
    np.testing.assert_allclose(served.distribution.sum(axis=1), 1.0, atol=1e-5)
    assert (served.propensity > 0.0).all()
    impossible = ~drawable
    impossible[rows, winner] = False
    assert not served.distribution[impossible].any()
    others = (drawable & (np.arange(utility.shape[1]) != winner[:, None])).any(axis=1)
    np.testing.assert_allclose(served.distribution[rows, winner], np.where(others, 1.0 - epsilon, 1.0), atol=1e-6)


def test_frequencies_match_the_propensities_reported() -> None:
    served = serve(1, [0.7, 0.9, 0.65, 0.5, 0.6], [True, True, True, False, True], epsilon=0.3, seed=11, rows=40_000)
    counts = np.bincount(served.column, minlength=5)
    expected = served.distribution[0].astype(np.float64)
    assert counts[3] == 0
    possible = expected > 0
    expected = expected[possible] / expected[possible].sum()
    assert chisquare(counts[possible], expected * counts.sum()).pvalue > 0.001


def test_better_candidates_are_drawn_more_often() -> None:
    distribution = serve(0, [0.9, 0.5 + TEMPERATURE, 0.5], [True] * 3, epsilon=0.2).distribution[0]
    assert distribution[1] / distribution[2] == pytest.approx(np.e, rel=1e-4)
    assert distribution[1:].sum() == pytest.approx(0.2)


def test_who_opted_out_gets_the_winner_beside_those_who_did_not() -> None:
    served = explore(
        np.zeros(2000, dtype=np.int64),
        np.zeros((2000, 3), dtype=np.float32),
        np.ones((2000, 3), dtype=np.bool_),
        np.tile(np.float32([0.0, 1.0]), 1000),
        np.random.default_rng(3),
    )
    assert not served.explored[::2].any()
    assert served.explored[1::2].all()
    assert (served.propensity[::2] == 1.0).all()


def test_no_randomness_is_spent_when_nobody_explores() -> None:
    rng = np.random.default_rng(5)
    explore(np.array([0]), np.zeros((1, 2), np.float32), np.ones((1, 2), np.bool_), np.float32([0.0]), rng)
    assert rng.random() == np.random.default_rng(5).random()


def test_a_seed_decides_everything() -> None:
    one, other = (serve(0, [0.5, 0.4, 0.3], [True] * 3, 0.5, seed=9, rows=200) for _ in range(2))
    np.testing.assert_array_equal(one.column, other.column)


def test_a_winner_without_rivals_is_certain() -> None:
    served = serve(1, [0.5, 0.4], [False, True], epsilon=1.0)
    assert served.column.tolist() == [1]
    assert served.propensity.tolist() == [1.0]


def test_nothing_that_is_no_candidate_is_looked_at() -> None:
    served = serve(0, [0.5, 0.4, np.nan], [True, True, False], epsilon=1.0, rows=50)
    assert (served.column == 1).all()
    assert served.distribution[0].tolist() == [0.0, 1.0, 0.0]


def hope(winner, utility, drawable, optimism, epsilon=1e-9) -> Served:
    return explore(
        np.array([winner]),
        np.array([utility], np.float32),
        np.array([drawable]),
        np.array([epsilon], np.float32),
        np.random.default_rng(0),
        np.array(optimism, np.float32),
    )


def test_the_benefit_of_the_doubt_puts_another_first_for_sure_and_calls_it_explored() -> None:
    served = hope(0, [0.9, 0.8, 0.7], [True] * 3, [0.0, 0.2, 0.25])
    assert (served.column[0], served.explored[0]) == (1, True)
    assert served.propensity[0] == pytest.approx(1.0)
    assert hope(0, [0.9, 0.8], [True, True], [0.0, 0.05]).column[0] == 0


@pytest.mark.parametrize(
    ("drawable", "winner", "epsilon"), [([True, False], 0, 1e-9), ([True, True], 0, 0.0), ([True, True, True], 2, 1e-9)]
)
def test_no_doubt_helps_where_it_must_not(drawable, winner, epsilon) -> None:
    """Not past a gate or the floor, not for those who opted out, and not over a winner that won for another reason."""
    utility = [0.9, 0.8, 0.1][: len(drawable)]
    served = hope(winner, utility, drawable, [0.0, 0.5, 0.0][: len(drawable)], epsilon)
    assert (served.column[0], served.explored[0]) == (winner, False)


def test_exploring_falls_with_experience_and_never_ends() -> None:
    rates = [decayed(0.02, outcomes) for outcomes in (0.0, 300.0, 3_000.0, 1e9)]
    assert rates[:2] == pytest.approx([0.02, 0.01])
    assert rates[1] > rates[2] > rates[3] == pytest.approx(0.02 * LEAST_SHARE)
    assert decayed(0.0, 10.0) == 0.0
