"""Costs that depend on the request are learned, in proportion to what is usual for each model."""

from __future__ import annotations

import numpy as np
import pytest

from monkey_coder.quantum.cost_model import LEAST_ROWS, CostModel, fit_cost_model
from monkey_coder.quantum.text_marks import MARKS

REFS = ("made/short", "made/long")


def requests(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(count, 8)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    marks = np.zeros((count, MARKS), np.float32)
    marks[:, 0] = rng.normal(size=count)
    # The second model writes more where the first mark is high; the first one does not care.
    costs = np.stack([np.full(count, 0.01), 0.02 * np.exp(0.5 * marks[:, 0])], axis=1)
    return embedding, marks, costs


def fitted(count: int = 2_000) -> CostModel | None:
    embedding, marks, costs = requests(count)
    return fit_cost_model(REFS, embedding, marks, costs, marks.mean(axis=0), np.ones(MARKS, np.float32))


def test_dear_requests_are_told_from_cheap_ones_for_the_model_that_cares() -> None:
    model = fitted()
    assert model is not None
    embedding, marks, costs = requests(500, seed=1)
    factors = model.factors(embedding, marks, REFS)
    assert factors[:, 0] == pytest.approx(1.0, abs=0.05)
    truth = costs[:, 1] / costs[:, 1].mean()
    assert np.abs(np.log(factors[:, 1]) - np.log(truth)).mean() < 0.5 * np.abs(np.log(truth)).mean()


def test_an_unknown_model_costs_what_its_price_says() -> None:
    model = fitted()
    assert model is not None
    embedding, marks, _ = requests(5, seed=2)
    assert (model.factors(embedding, marks, ("made/new",)) == 1.0).all()


def test_few_rows_or_free_models_teach_nothing() -> None:
    assert fitted(LEAST_ROWS - 1) is None
    embedding, marks, costs = requests(LEAST_ROWS)
    costs[:, 0] = 0.0
    assert fit_cost_model(REFS, embedding, marks, costs, marks.mean(axis=0), np.ones(MARKS, np.float32)) is None


def test_it_survives_being_written_down() -> None:
    model = fitted()
    assert model is not None
    again = CostModel.from_arrays(*model.to_arrays())
    embedding, marks, _ = requests(10, seed=3)
    assert (again.factors(embedding, marks, REFS) == model.factors(embedding, marks, REFS)).all()
