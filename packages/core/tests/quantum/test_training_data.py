"""Outcomes as arrays, from tables and from logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colours import MODELS, ColourEmbedder, colour_tasks
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.training_data import (
    MOST_WEIGHT,
    LoggedDecisions,
    columns_of,
    held_out,
    joined,
    outcomes_of_log,
    outcomes_of_prompts,
)


def log_of(rows: list[dict]) -> LoggedDecisions:
    """Decisions from dicts of what differs."""
    whole = colour_tasks(len(rows), seed=9)
    default = {"episode": None, "attempt": 0, "chosen": 0, "score": 1.0, "cost": 0.1, "propensity": 1.0}
    values = {key: np.array([row.get(key, value) for row in rows]) for key, value in default.items()}
    values["episode"] = np.array([row.get("episode", place) for place, row in enumerate(rows)])
    return LoggedDecisions(
        states=whole.states,
        embedding=whole.embedding,
        task=whole.task,
        complexity=whole.complexity,
        families=whole.families,
        expected_cost=whole.expected_cost,
        **values,
    )


def test_prompts_are_read_as_the_router_would_read_them() -> None:
    data = colour_tasks(6)
    assert np.array_equal(data.states[:, : data.embedding.shape[1]], data.embedding)
    assert data.marks.shape[0] == 6
    assert (data.marks != 0).any()


def test_equal_prompts_stay_on_one_side_of_a_split() -> None:
    prompts = ["red one", "blue two", " red one ", "green three"] * 5
    scores = np.ones((20, 4))
    data = outcomes_of_prompts(prompts, [None] * 20, ["x"] * 20, scores, None, MODELS, ColourEmbedder())
    assert len(set(data.groups)) == 3
    for seed in range(10):
        side = held_out(data.groups, 0.34, np.random.default_rng(seed))
        assert side.any()
        for group in range(3):
            assert len(set(side[data.groups == group])) == 1


def test_unavailable_models_are_learned_from_all_the_same() -> None:
    away = replace(MODELS, available=np.array([False, True, True, True]))
    data = outcomes_of_prompts(["red"], [None], ["x"], np.ones((1, 4)), None, away, ColourEmbedder())
    assert np.isfinite(data.expected_cost).all()
    assert data.observed.all()


def test_without_costs_what_is_expected_counts() -> None:
    data = colour_tasks(4)
    assert data.costs is not None
    data.costs[0, 0] = np.nan
    assert data.paid()[0, 0] == pytest.approx(0.02)
    assert data.paid()[1, 1] == data.costs[1, 1]
    assert np.array_equal(replace(data, costs=None).paid(), data.expected_cost.astype(np.float64))
    assert data.cost_ref == pytest.approx(0.2)
    assert data.priced


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.full((4, 4), 2.0)}, "0..1"),
        ({"scores": np.ones((4, 3))}, "scores has shape"),
        ({"families": ("a",)}, "families"),
        ({"weight": np.ones((4, 2), np.float32)}, "weight has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(colour_tasks(4), **change)


def test_no_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="no task"):
        outcomes_of_prompts([], [], [], np.empty((0, 4)), None, MODELS, ColourEmbedder())


def test_rows_and_models_can_be_picked() -> None:
    data = colour_tasks(5)
    part = data.rows(np.array([3, 1])).models(np.array([2, 0]))
    assert part.table.refs == (MODELS.refs[2], MODELS.refs[0])
    assert np.array_equal(part.scores, data.scores[[3, 1]][:, [2, 0]])
    assert columns_of(MODELS, np.array([1])).request_usd.tolist() == [MODELS.request_usd[1]]


def test_a_log_gives_one_row_an_episode_and_only_what_was_chosen() -> None:
    rows = [
        {"episode": 7, "attempt": 1, "chosen": 3, "score": 1.0},
        {"episode": 7, "attempt": 0, "chosen": 0, "score": 0.0},
        {"episode": 8, "attempt": 0, "chosen": 2, "score": 0.5, "cost": np.nan},
    ]
    data = outcomes_of_log(log_of(rows), MODELS)
    assert len(data) == 2
    assert data.observed.tolist() == [[True, False, False, True], [False, False, True, False]]
    assert data.scores[0, 0] == 0.0
    assert data.costs is not None
    assert np.isnan(data.costs[1, 2])


def test_only_first_attempts_speak_for_the_chances_of_a_model() -> None:
    rows = [
        {"episode": 1, "attempt": 0, "chosen": 0, "score": 0.0},
        {"episode": 1, "attempt": 1, "chosen": 1, "score": 0.0},
        {"episode": 2, "attempt": 0, "chosen": 1, "score": 1.0},
    ]
    weight = outcomes_of_log(log_of(rows), MODELS).weight
    assert weight is not None
    assert weight[0, 1] == 0.0
    assert weight[0, 0] > 0.0
    assert weight[1, 1] > 0.0


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30), st.integers(0, 2**31))
def test_weights_grow_with_rarity_are_bounded_and_average_to_one(propensities: list[float], seed: int) -> None:
    chosen = np.random.default_rng(seed).integers(0, 4, len(propensities))
    rows = [{"chosen": int(c), "propensity": p} for c, p in zip(chosen, propensities, strict=True)]
    weight = outcomes_of_log(log_of(rows), MODELS).weight
    assert weight is not None
    for model in set(chosen.tolist()):
        of_model = weight[np.flatnonzero(chosen == model), model]
        assert of_model.mean() == pytest.approx(1.0, rel=1e-4)
        assert of_model.max() <= of_model.min() * MOST_WEIGHT * (1 + 1e-5)
        order = np.argsort(np.array(propensities)[chosen == model], kind="stable")
        assert (np.diff(of_model[order]) <= 1e-6).all()


def test_propensities_that_nothing_was_drawn_with_are_refused() -> None:
    with pytest.raises(ValueError, match="propensities"):
        outcomes_of_log(log_of([{"propensity": 0.0}]), MODELS)


def test_sources_are_joined_and_old_outcomes_count_like_new_ones() -> None:
    table, log = colour_tasks(5), outcomes_of_log(log_of([{"propensity": 0.5}, {"propensity": 0.25}]), MODELS)
    both = joined([table, log])
    assert len(both) == 7
    assert both.weight is not None
    assert (both.weight[:5] == 1.0).all()
    assert both.costs is not None
    assert joined([table]) is table
    assert joined([replace(table, costs=None), table]).costs is not None


def test_joining_needs_the_same_models() -> None:
    with pytest.raises(ValueError, match="different models"):
        joined([colour_tasks(2), colour_tasks(2).models(np.array([0, 1]))])
    with pytest.raises(ValueError, match="nothing"):
        joined([])
