"""The rules of Gary8D on arrays: what must hold for any models, prices and preferences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from monkey_coder.core.ranking import (
    GIVEN_AWAY,
    PREFERRED_PREMIUM,
    heuristic_confidence,
    heuristic_ranking,
    required_share,
    required_shares,
)
from monkey_coder.models import COMPLEXITY_LEVELS, CONTEXT_TYPES, TaskAnalysis

EASY = required_shares(
    [TaskAnalysis(complexity=0.1, level="trivial", task_type="testing", context_type="testing", evidence=1.0)]
)


def rank(success, cost, weight=0.0, *, complexity=0.5, shares=EASY, **fields):
    """Rank one task whose cost weight is in successes per USD."""
    success, cost = np.array([success], dtype=np.float64), np.array([cost], dtype=np.float64)
    options = {name: np.array([value]) for name, value in fields.items() if name in {"rejected", "preferred", "floor"}}
    rest = {name: value for name, value in fields.items() if name not in {*options, "candidates"}}
    candidates = np.array([fields.get("candidates", np.ones(success.shape[1], bool))])
    order, required = heuristic_ranking(
        success, cost, success - weight * cost, candidates, np.array([complexity]), shares, **options, **rest
    )
    return order[0].tolist(), float(required[0])


@st.composite
def markets(draw):
    rows, models = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    shape = (rows, models)
    success = draw(npst.arrays(np.float64, shape, elements=st.floats(0.0, 1.0)))
    cost = draw(npst.arrays(np.float64, shape, elements=st.floats(0.0, 10.0)))
    weight = draw(st.sampled_from([0.0, 0.01, 0.3, 1.0, 30.0, 1e6]))
    candidates = draw(npst.arrays(np.bool_, shape))
    complexity = draw(npst.arrays(np.float64, (rows,), elements=st.floats(0.0, 1.0)))
    shares = draw(npst.arrays(np.float64, (rows, 3), elements=st.floats(0.0, 1.0)))
    return success, cost, success - weight * cost, candidates, complexity, shares


@given(markets(), st.integers(1, 6))
def test_every_candidate_is_ranked_once_and_nothing_else(market, attempts):
    candidates = market[3]
    order, _ = heuristic_ranking(*market, attempts=attempts)
    for row, eligible in zip(order, candidates, strict=True):
        count = eligible.sum()
        assert sorted(row[:count].tolist()) == np.flatnonzero(eligible).tolist()
        assert (row[count:] == -1).all()


@given(markets())
def test_the_first_choice_is_never_worth_less_than_the_cheapest_or_an_average_pick(market):
    success, cost, utility, candidates, _, _ = market
    order, _ = heuristic_ranking(*market)
    for row in np.flatnonzero(candidates.any(axis=1)):
        eligible = np.flatnonzero(candidates[row])
        first = utility[row, order[row, 0]]
        lowest = cost[row, eligible] == cost[row, eligible].min()
        cheapest = max(eligible[lowest], key=lambda model: success[row, model])
        slip = 1e-9 * (1.0 + np.abs(utility[row]).max())
        assert first >= utility[row, cheapest] - slip
        assert first >= utility[row, eligible].mean() - slip


@given(markets())
def test_the_first_choice_is_never_dearer_and_weaker_than_another(market):
    success, cost, _, candidates, _, _ = market
    order, _ = heuristic_ranking(*market)
    for row in np.flatnonzero(candidates.any(axis=1)):
        first = order[row, 0]
        beats = candidates[row] & (cost[row] < cost[row, first]) & (success[row] > success[row, first])
        assert not beats.any()


@given(markets())
def test_requests_of_a_batch_do_not_touch_each_other(market):
    together, _ = heuristic_ranking(*market)
    for row in range(len(together)):
        alone, _ = heuristic_ranking(*(array[row : row + 1] for array in market))
        assert alone[0].tolist() == together[row].tolist()


@given(markets())
def test_without_a_cost_weight_the_best_comes_first(market):
    success, cost, _, candidates, complexity, shares = market
    order, required = heuristic_ranking(success, cost, success, candidates, complexity, shares)
    for row in np.flatnonzero(candidates.any(axis=1)):
        best = success[row, candidates[row]].max()
        assert success[row, order[row, 0]] == best
        assert required[row] == pytest.approx(best, abs=1e-6)


SUCCESS, COST = [0.60, 0.80, 0.90], [0.001, 0.01, 0.1]


def test_a_huge_cost_weight_makes_it_the_cheapest():
    assert rank(SUCCESS, COST, 1e6)[0] == [0, 1, 2]


def test_easy_tasks_get_cheap_models_and_hard_ones_strong_models():
    def first(complexity, level):
        shares = np.array([[required_share(level, "debugging")]])
        return rank([0.70, 0.85, 0.50], [0.001, 0.1, 0.2], 1.2, complexity=complexity, shares=shares)[0][0]

    assert first(0.05, "trivial") == 0
    assert first(0.9, "critical") == 1


def test_matching_a_model_to_its_task_gives_little_away():
    cost = [0.001, 0.011, 0.5]  # at weight 1 the cheap model saves 0.01 successes
    assert rank([0.7, 0.7 + 0.01 + GIVEN_AWAY / 3, 0.4], cost, 1.0)[0][0] == 0
    assert rank([0.7, 0.7 + 0.01 + GIVEN_AWAY, 0.4], cost, 1.0)[0][0] == 1


def test_after_a_failure_comes_a_stronger_model_or_another_provider():
    success, cost, providers = [0.7, 0.65, 0.8, 0.6], [0.002, 0.001, 0.02, 0.001], np.array([0, 0, 0, 1])
    for weight in (0.0, 1.0, 100.0):
        order, _ = rank(success, cost, weight, providers=providers, rejected=[True, False, False, False],
                        candidates=[False, True, True, True])  # fmt: skip
        assert order[0] in {2, 3}


def test_when_only_weaker_models_of_the_failed_provider_are_left_they_are_still_tried():
    order, _ = rank(
        [0.9, 0.5], [0.1, 0.1], providers=np.array([0, 0]), rejected=[True, False], candidates=[False, True]
    )
    assert order == [1, -1]


def test_failures_make_dear_models_worth_less():
    # 0.9 for 0.25 successes is a fair deal, but not at a task that two strong models failed at.
    success, cost, left = [0.8, 0.85, 0.6, 0.9], [0.2, 0.2, 0.01, 0.25], [False, False, True, True]
    assert rank(success, cost, 1.0, candidates=left)[0][0] == 3
    assert rank(success, cost, 1.0, candidates=left, rejected=[True, True, False, False])[0][0] == 2


def test_a_preferred_provider_may_cost_a_little_more():
    def first(premium):
        return rank([0.8, 0.8], [0.1, 0.1 * (1 + premium)], 0.1, preferred=[False, True])[0][0]

    assert first(PREFERRED_PREMIUM * 0.9) == 1
    assert first(PREFERRED_PREMIUM * 1.5) == 0


def test_a_quality_floor_comes_before_the_price():
    assert rank(SUCCESS, COST, 1e6, floor=[False, False, True])[0][0] == 2
    assert rank(SUCCESS, COST, 1e6, floor=[False, False, False])[0][0] == 0


def test_planned_attempts_are_made_cheap_first():
    order, _ = rank(SUCCESS, COST, 0.3, attempts=3)
    assert order == [0, 1, 2]
    assert rank(SUCCESS, COST, 0.0, attempts=3)[0] == [2, 1, 0]


def test_required_shares_rise_with_level_stakes_and_failures():
    for context in CONTEXT_TYPES:
        shares = [required_share(level, context) for level in COMPLEXITY_LEVELS]
        assert all(low <= high for low, high in pairwise(shares))
        assert shares[-1] == 1.0
        assert required_share("trivial", context, rejections=2) == required_share("moderate", context)
        assert required_share("simple", context, rejections=99) == 1.0
    assert required_share("simple", "security") > required_share("simple", "documentation")


def test_confidence_follows_the_evidence():
    assert heuristic_confidence(0.8, 1000, 0.7, 1.0) > 0.99
    assert heuristic_confidence(0.8, 1000, 0.7, 1.0) > heuristic_confidence(0.8, 2, 0.7, 1.0)
    assert heuristic_confidence(0.8, 10, 0.7, 1.0) > heuristic_confidence(0.8, 10, 0.7, 0.1)
    assert heuristic_confidence(0.8, 10, 0.6, 1.0) > heuristic_confidence(0.8, 10, 0.8, 1.0)


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_confidence_is_a_probability(success, evidence, required, told):
    assert 0.0 <= heuristic_confidence(success, evidence, required, told) <= 1.0


def test_thousands_of_tasks_are_ranked_at_once():
    rng = np.random.default_rng(7)
    success, cost = rng.random((5000, 24)), rng.random((5000, 24))
    order, _ = heuristic_ranking(
        success, cost, success - cost, np.ones((5000, 24), bool), rng.random(5000), np.full((5000, 5), 0.8), attempts=4
    )
    assert order.shape == (5000, 24)
    assert (np.sort(order, axis=1) == np.arange(24)).all()
