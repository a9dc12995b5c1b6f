"""Each objective by the choice that a user of it expects."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from builders import route_batch
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.ports import REJECTED, UNANSWERED
from monkey_coder.quantum.advanced_model_selector import (
    BALANCED,
    COST_EFFICIENT,
    PERFORMANCE,
    TASK_OPTIMIZED,
    Objective,
    harder,
    objective_utility,
    planned_utility,
)
from monkey_coder.quantum.reward import utility

chances = st.lists(st.floats(0.0, 1.0, width=32), min_size=3, max_size=3)
prices = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1.0)), min_size=3, max_size=3)


def choice(objective: Objective, **batch: object) -> int:
    return int(objective_utility(route_batch(**batch), objective)[0].argmax())


@given(chances, prices, prices, st.floats(0.0, 10.0), st.floats(0.0, 1.0))
def test_balanced_takes_the_request_at_its_word(success, cost, latency, cost_weight, latency_weight) -> None:
    batch = route_batch([success], [cost], [latency], cost_weight=cost_weight, latency_weight=latency_weight)
    plain = utility(batch.success, batch.cost_usd, batch.latency_s, batch.cost_weight, batch.latency_weight)
    np.testing.assert_array_equal(objective_utility(batch, BALANCED), plain)


def test_cost_efficient_takes_the_cheapest_of_those_that_are_good_enough() -> None:
    # Balanced pays 5 cents for 4 points of success; thrift does not.
    models = {"success": [[0.90, 0.86, 0.30]], "cost_usd": [[0.05, 0.02, 0.001]], "cost_weight": 1.0}
    assert choice(BALANCED, **models) == 0
    assert choice(COST_EFFICIENT, **models) == 1


def test_cost_efficient_prefers_the_cheaper_of_equals_even_when_money_is_no_object() -> None:
    assert choice(COST_EFFICIENT, success=[[0.8, 0.8]], cost_usd=[[0.2, 0.1]], cost_weight=0.0) == 1


def test_cost_efficient_does_not_call_a_model_below_the_floor_good_enough() -> None:
    models = {"success": [[0.95, 0.86]], "cost_usd": [[0.02, 0.0199]], "cost_weight": 0.0}
    without = objective_utility(route_batch(**models), COST_EFFICIENT)[0]
    floored = objective_utility(route_batch(**models, quality_floor=0.95), COST_EFFICIENT)[0]
    assert without.argmax() == 1
    assert floored.argmax() == 0


def test_cost_efficient_measures_good_enough_by_the_candidates() -> None:
    models = {"success": [[0.99, 0.60, 0.52]], "cost_usd": [[1.0, 0.03, 0.02]], "cost_weight": 1.0}
    assert choice(COST_EFFICIENT, **models, candidates=[[False, True, True]]) in (1, 2)
    utilities = objective_utility(route_batch(**models, candidates=[[False, True, True]]), COST_EFFICIENT)[0]
    assert utilities[2] > utilities[1]


def test_performance_takes_the_better_and_the_faster() -> None:
    assert choice(PERFORMANCE, success=[[0.9, 0.7]], cost_usd=[[0.1, 0.0]], cost_weight=3.0) == 0
    assert choice(BALANCED, success=[[0.9, 0.7]], cost_usd=[[0.1, 0.0]], cost_weight=3.0) == 1
    assert choice(PERFORMANCE, success=[[0.9, 0.8]], latency_s=[[9.0, 1.0]], latency_weight=0.01) == 1
    assert choice(BALANCED, success=[[0.9, 0.8]], latency_s=[[9.0, 1.0]], latency_weight=0.01) == 0


def test_task_optimized_takes_a_stronger_model_for_a_harder_task() -> None:
    models = {"success": [[0.97, 0.90]], "cost_usd": [[0.2, 0.1]], "cost_weight": 1.0}
    assert choice(TASK_OPTIMIZED, **models, complexity=0.1) == 1
    assert choice(TASK_OPTIMIZED, **models, complexity=1.0) == 0


@pytest.mark.parametrize("objective", [BALANCED, COST_EFFICIENT, PERFORMANCE, TASK_OPTIMIZED])
@given(success=chances, cost=prices, cost_weight=st.floats(0.0, 1e12), complexity=st.floats(0.0, 1.0))
def test_utilities_are_finite_and_at_most_one(objective, success, cost, cost_weight, complexity) -> None:
    utilities = objective_utility(
        route_batch([success], [cost], cost_weight=cost_weight, complexity=complexity), objective
    )
    assert utilities.dtype == np.float32
    assert np.isfinite(utilities).all()
    assert (utilities <= 1.0).all()


def test_a_logit_is_a_logit() -> None:
    # odds 1:1, a factor of 3 against it: one in four
    assert harder(np.float32([[0.5]]), np.log(np.float32([3.0])))[0, 0] == pytest.approx(0.25)


@given(st.floats(0.01, 0.99), st.floats(-3.0, 3.0))
def test_harder_is_undone_by_easier(chance, logits) -> None:
    there = harder(np.float32([[chance]]), np.float32([logits]))
    assert harder(there, np.float32([-logits]))[0, 0] == pytest.approx(chance, abs=1e-3)


def planned(attempts_left: int, *, setback: float = 0.0, attempts: object = None, **batch: object) -> np.ndarray:
    ready = route_batch(**batch)
    tried = ready.attempts if attempts is None else np.array(attempts, np.int8)
    left = np.full(len(ready), attempts_left)
    return planned_utility(replace(ready, attempts_left=left, attempts=tried, setback_logits=setback), BALANCED)


@pytest.mark.parametrize("objective", [BALANCED, COST_EFFICIENT, PERFORMANCE, TASK_OPTIMIZED])
@given(chances, prices, st.floats(0.0, 10.0))
def test_for_one_attempt_there_is_nothing_to_plan(objective, success, cost, cost_weight) -> None:
    batch = route_batch([success], [cost], cost_weight=cost_weight)
    np.testing.assert_array_equal(planned_utility(batch, objective), objective_utility(batch, objective))


@given(chances, prices, st.floats(0.0, 3.0))
def test_independent_attempts_are_worth_what_the_best_order_that_begins_so_is_worth(success, cost, weight) -> None:
    found = planned(2, success=[success], cost_usd=[cost], cost_weight=weight)[0]
    alone = np.array(success) - weight * np.array(cost)
    best = [alone[one] for one in range(3)]
    for one, two in permutations(range(3), 2):
        best[one] = max(best[one], alone[one] + (1.0 - success[one]) * alone[two])
    np.testing.assert_allclose(found, best, atol=1e-3)


def test_who_may_come_back_tries_a_cheap_model_first() -> None:
    models = {"success": [[0.9, 0.6]], "cost_usd": [[0.5, 0.05]], "cost_weight": 0.5}
    assert planned(1, **models)[0].argmax() == 0
    assert planned(2, **models)[0].argmax() == 1


def test_where_failures_meet_a_cheap_attempt_buys_less() -> None:
    models = {"success": [[0.9, 0.6]], "cost_usd": [[0.5, 0.05]], "cost_weight": 0.5}
    apart, together = (planned(2, setback=setback, **models)[0] for setback in (0.0, 3.0))
    assert together[1] < apart[1] - 0.1


def test_a_failure_lowers_all_chances_and_an_attempt_without_an_answer_lowers_none() -> None:
    models = {"success": [[0.9, 0.6, 0.5]]}
    fresh, failed, silent = (
        planned(1, setback=2.0, attempts=[[0, tried, 0]], **models)[0] for tried in (0, REJECTED, UNANSWERED)
    )
    assert (failed[[0, 2]] < fresh[[0, 2]]).all()
    np.testing.assert_array_equal(silent, fresh)


def test_a_model_that_was_tried_is_not_planned_with() -> None:
    models = {"success": [[0.5, 0.9]]}
    both, one = (planned(2, attempts=[[0, tried]], **models)[0, 0] for tried in (0, UNANSWERED))
    assert both == pytest.approx(0.95)
    assert one == pytest.approx(0.5)
