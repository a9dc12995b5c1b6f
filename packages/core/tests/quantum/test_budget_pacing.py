"""Pacing: the price of money keeps spend at its target, whatever was expected wrongly, and says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.models import Preferences
from monkey_coder.quantum.budget_pacing import (
    BudgetPacer,
    Pace,
    PacingOptions,
    Prospect,
    optimism_for,
    paced_weights,
    price_for,
    spend,
)


@st.composite
def markets(draw):
    """Values and costs of some tasks and models, and a target between the cheapest and the dearest choices."""
    rows, models = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    value = rng.random((rows, models))
    value[rng.random(value.shape) < 0.2] = -np.inf
    value[:, 0] = rng.random(rows)
    cost = 10.0 ** rng.uniform(-6.0, 0.0, (rows, models))
    return value, cost, float(cost.mean() * 10.0 ** draw(st.floats(-3.0, 1.0)))


@given(markets())
def test_at_the_price_found_spend_keeps_the_target_or_nothing_cheaper_can_be_had(market) -> None:
    value, cost, target = market
    price = price_for(value, cost, target)
    cheapest = np.where(np.isfinite(value), cost, np.inf).min(axis=1).mean()
    assert spend(value, cost, price) <= max(target, cheapest) * (1.0 + 1e-9)


@given(markets())
def test_a_clearly_lower_price_would_spend_more_than_the_target(market) -> None:
    value, cost, target = market
    price = price_for(value, cost, target)
    cheapest = np.where(np.isfinite(value), cost, np.inf).min(axis=1).mean()
    if price > 0.0 and target > cheapest:
        assert spend(value, cost, 0.99 * price - 1e-6 / target) > target


@given(markets(), st.floats(0.0, 1e6), st.floats(1.0, 10.0))
def test_spend_never_rises_with_the_price(market, price: float, factor: float) -> None:
    value, cost, _ = market
    assert spend(value, cost, factor * price) <= spend(value, cost, price) * (1.0 + 1e-9)


@given(markets(), st.floats(1.0, 20.0))
def test_what_is_left_over_buys_optimism_and_no_more_than_that(market, most: float) -> None:
    value, cost, target = market
    optimism = np.tile(np.linspace(0.0, 0.1, value.shape[1]), (len(value), 1))
    factor = optimism_for(value, optimism, cost, target, most)
    assert 1.0 <= factor <= most
    if spend(value + optimism, cost, 0.0) <= target:
        assert spend(value + factor * optimism, cost, 0.0) <= target


def run(
    target: float,
    tasks: int = 1500,
    seed: int = 0,
    wrong: float = 1.0,
    attempts: int = 1,
    refs: int = 3,
    jumps: float = 1.0,
) -> tuple[list[float], BudgetPacer]:
    """Spend of each task where models cost 1, 10 and 100 on average, and what is expected is wrong by a factor."""
    rng = np.random.default_rng(seed)
    pacer, spent = BudgetPacer(target), []
    for task in range(tasks):
        paid = 0.0
        for attempt in range(attempts):
            now = jumps if task > tasks // 2 else 1.0
            cost = np.array([1.0, 10.0, 100.0])[:refs] * rng.lognormal(0.0, 0.5, refs) * now
            value = np.array([0.5, 0.7, 0.75])[:refs] + 0.1 * rng.standard_normal(refs)
            pace = pacer.pace() if task % 10 == 0 else pace  # noqa: F821 - set by the first task
            best = int(np.argmax(value - pace.cost_weight * wrong * cost))
            prospect = Prospect(value, np.zeros(refs), wrong * cost, np.ones(refs, np.bool_))
            pacer.observe(prospect, float(cost[best]), opens=attempt == 0)
            paid += float(cost[best])
        spent.append(paid)
    return spent, pacer


@pytest.mark.parametrize("target", [3.0, 12.0, 40.0])
def test_spend_stays_within_one_percent_of_its_target(target: float) -> None:
    spent, pacer = run(target)
    assert np.mean(spent) == pytest.approx(target, rel=0.01)
    pace = pacer.pace()
    assert pace.target_usd == target
    assert pace.balance_usd == pytest.approx(target * len(spent) - sum(spent), abs=1e-6)
    assert pace.spent_usd == pytest.approx(np.mean(spent[-500:]))


@pytest.mark.parametrize("wrong", [0.6, 1.6])
def test_wrong_expectations_are_made_up_for(wrong: float) -> None:
    spent, _ = run(12.0, wrong=wrong)
    assert np.mean(spent[500:]) == pytest.approx(12.0, rel=0.03)


def test_a_price_change_is_followed() -> None:
    spent, _ = run(12.0, tasks=2000, jumps=0.5)
    assert np.mean(spent[-600:]) == pytest.approx(12.0, rel=0.1)


def test_a_task_of_several_attempts_has_one_target() -> None:
    spent, _ = run(12.0, attempts=2, tasks=1000)
    assert np.mean(spent[300:]) == pytest.approx(12.0, rel=0.03)


def test_a_debt_lowers_what_the_next_tasks_may_cost_and_is_bounded() -> None:
    prospect = Prospect(np.array([0.5, 0.9]), np.zeros(2), np.array([1.0, 10.0]), np.ones(2, np.bool_))
    pacer = BudgetPacer(11.0, PacingOptions(most_balance=50.0))
    assert pacer.pace() == Pace(11.0, 0.0, 1.0, 0.0, 0.0)
    for _ in range(20):
        pacer.observe(prospect, 10.0, opens=True)
    assert pacer.pace().cost_weight == 0.0
    for _ in range(20):
        pacer.observe(prospect, 1000.0, opens=True)
    pace = pacer.pace()
    assert pace.balance_usd == -550.0
    assert pace.cost_weight * 9.0 > 0.4


def test_only_candidates_are_counted_on_and_a_new_catalog_starts_a_new_window() -> None:
    pacer = BudgetPacer(5.0)
    pacer.observe(
        Prospect(np.array([0.9, 0.5]), np.zeros(2), np.array([9.0, 1.0]), np.array([False, True])), 1.0, opens=True
    )
    assert pacer.pace().cost_weight == 0.0
    pacer.observe(
        Prospect(np.array([0.9, 0.5, 0.1]), np.zeros(3), np.array([30.0, 1.0, 1.0]), np.ones(3, np.bool_)),
        1.0,
        opens=True,
    )
    assert pacer.pace().cost_weight > 0.0


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_a_target_must_be_above_nothing(target: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        BudgetPacer(target)


def test_requests_keep_their_own_ratio_of_cost_to_quality_and_never_pay_more_than_a_success_is_worth() -> None:
    stated = [
        Preferences(),
        Preferences(quality=0.6, cost=0.6, latency=0.1),
        Preferences(value_usd=0.01),
        Preferences(value_usd=10.0),
    ]
    own = np.array([1.0, 2.0, 100.0, 0.1], np.float32)
    pace = Pace(1.0, 7.0, 1.0, 0.0, 0.0)
    np.testing.assert_allclose(paced_weights(stated, own, pace), [7.0, 14.0, 100.0, 7.0], rtol=1e-6)
    np.testing.assert_array_equal(paced_weights(stated, own, None), own)


@pytest.mark.parametrize("price", [0.0, 7.0, 1e30])
def test_preferences_of_any_size_give_finite_weights(price: float) -> None:
    stated = [Preferences(quality=5e-324, cost=1e6, latency=0.0), Preferences(quality=1e6, cost=0.0, latency=0.0)]
    assert np.isfinite(paced_weights(stated, np.ones(2, np.float32), Pace(1.0, price, 1.0, 0.0, 0.0))).all()
