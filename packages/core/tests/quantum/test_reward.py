"""The formula that everything maximises, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.models import Preferences
from monkey_coder.quantum.reward import reference_weights, references, utility, worth

positive = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False, allow_nan=False)


def weights_of(preferences: Preferences, cost_ref: float, latency_ref: float) -> tuple[float, float]:
    per_usd, per_second = reference_weights([preferences], np.array([cost_ref]), np.array([latency_ref]))
    return float(per_usd[0]), float(per_second[0])


def test_the_value_of_a_solved_task_prices_money_and_leaves_time_free() -> None:
    assert weights_of(Preferences(value_usd=4.0), cost_ref=0.1, latency_ref=3.0) == (0.25, 0.0)


def test_weights_are_relative_to_the_dearest_and_the_slowest() -> None:
    per_usd, per_second = weights_of(Preferences(quality=0.5, cost=0.25, latency=0.25), cost_ref=0.02, latency_ref=10.0)
    assert per_usd == pytest.approx(0.5 / 0.02)
    assert per_second == pytest.approx(0.5 / 10.0)


def test_only_the_proportions_of_the_weights_count() -> None:
    small = weights_of(Preferences(quality=0.6, cost=0.3, latency=0.1), 0.01, 2.0)
    large = weights_of(Preferences(quality=600.0, cost=300.0, latency=100.0), 0.01, 2.0)
    assert small == pytest.approx(large)


def test_where_everything_is_free_or_instant_it_weighs_nothing() -> None:
    assert weights_of(Preferences(), cost_ref=0.0, latency_ref=0.0) == (0.0, 0.0)


@given(
    st.one_of(
        st.builds(Preferences, value_usd=positive.filter(lambda x: x <= 1e9)),
        st.builds(
            Preferences,
            quality=positive.filter(lambda x: x <= 1e6),
            cost=st.floats(0.0, 1e6),
            latency=st.floats(0.0, 1e6),
        ),
    ),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
)
def test_preferences_of_any_size_give_finite_utilities(preferences, cost, latency) -> None:
    chances, costs, latencies = np.array([[0.5]]), np.array([[cost]]), np.array([[latency]])
    value = worth([preferences], chances, costs, latencies, np.array([[True]]))
    assert np.isfinite(value).all()
    assert value[0, 0] <= 0.5 + 1e-6


def test_utility_is_success_less_weighted_cost_and_latency() -> None:
    value = utility(
        np.array([[0.9, 0.4], [0.9, 0.4]]),
        np.array([[0.02, 0.001], [0.02, 0.001]]),
        np.array([[5.0, 1.0], [5.0, 1.0]]),
        np.array([10.0, 0.0]),
        np.array([0.0, 0.1]),
    )
    np.testing.assert_allclose(value, [[0.7, 0.39], [0.4, 0.3]], rtol=1e-6)


def test_references_look_at_candidates_alone() -> None:
    cost, latency = np.array([[1.0, 9.0], [1.0, 9.0]]), np.array([[7.0, 2.0], [7.0, 2.0]])
    cost_ref, latency_ref = references(cost, latency, np.array([[True, False], [False, False]]))
    assert cost_ref.tolist() == [1.0, 0.0]
    assert latency_ref.tolist() == [7.0, 0.0]


def test_an_excluded_dear_model_does_not_make_the_others_look_cheap() -> None:
    args = ([Preferences(quality=1.0, cost=1.0, latency=0.0)], np.array([[0.8, 0.8]]), np.array([[0.1, 100.0]]))
    alone = worth(*args, np.zeros((1, 2)), np.array([[True, False]]))
    both = worth(*args, np.zeros((1, 2)), np.array([[True, True]]))
    assert alone[0, 0] == pytest.approx(-0.2)
    assert both[0, 0] == pytest.approx(0.799)


def test_a_shared_row_of_latencies_will_do() -> None:
    preferences = [Preferences(quality=1.0, cost=0.0, latency=1.0)] * 2
    value = worth(
        preferences, np.ones((2, 2)), np.zeros((2, 2)), np.array([[1.0, 4.0]]), np.ones((2, 2), dtype=np.bool_)
    )
    np.testing.assert_allclose(value, [[0.75, 0.0], [0.75, 0.0]])
