"""Outcome tables as training reads them: which catalog model a name is, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import Model, table

from monkey_coder.errors import SettingsError
from monkey_coder.evaluation.training_tables import match_models, read_outcomes
from monkey_coder.ports import TextEmbedder

CATALOG = table(
    Model("acme/small-1", success=0.3, latency_s=7.0), Model("acme/big-2"), Model("other/big-2"), Model("other/odd")
)


def test_names_are_found_by_ref_by_model_or_as_told() -> None:
    names = ("acme/small-1", "ODD", "giant", "big-2")
    matched = match_models(names, CATALOG, {"giant": "acme/big-2"})
    assert matched.refs == ("acme/small-1", "other/odd", "acme/big-2", "table/big-2")  # two providers have a big-2
    assert matched.listed == {"acme/small-1", "other/odd", "acme/big-2"}


def test_the_same_model_from_another_provider_is_found() -> None:
    assert match_models(("hub/small-1",), CATALOG, {}).refs == ("acme/small-1",)


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (("a",), {"b": "other/odd"}, "no model 'b'"),
        (("a",), {"a": "other/gone"}, "not in the catalog"),
        (("odd", "Odd"), {}, "odd and Odd are both other/odd"),
        (("a", "b"), {"a": "other/odd", "b": "other/odd"}, "both other/odd"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(names: tuple[str, ...], given: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        match_models(names, CATALOG, given)


def test_listed_models_keep_their_facts_and_cost_what_they_cost_there(
    row: Callable[..., dict[str, Any]], write: Callable[..., Path], embedder: TextEmbedder
) -> None:
    lines = [
        row(1, {"small-1": 1.0, "home": 0.0}, {"small-1": 0.2, "home": 0.01}),
        row(2, {"small-1": 0.0}, {"small-1": 0.4}, prompt="blue prompt"),
    ]
    path = write(lines)
    data = read_outcomes([path], CATALOG, {}, embedder, skip_bad=False)
    assert data.table.refs == ("acme/small-1", "table/home")
    assert data.table.success[:, 0] == pytest.approx(0.3)
    assert data.table.latency_s.tolist() == [7.0, 0.0]
    assert data.expected_cost == pytest.approx(np.array([[0.3, 0.01]] * 2))
    assert np.isnan(data.scores[1, 1])
    assert data.families == ("generation", "generation")
    assert data.about["files"] == [{"name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}]
    assert data.about["names"] == {"small-1": "acme/small-1", "home": "table/home"}


def test_several_tables_are_learned_from_together(
    random_rows: Callable[..., list[dict[str, Any]]], write: Callable[..., Path], embedder: TextEmbedder
) -> None:
    paths = [write(random_rows(5, seed=seed, costs=seed == 0), f"{seed}.jsonl") for seed in range(2)]
    data = read_outcomes(paths, CATALOG, {}, embedder, skip_bad=False)
    assert len(data) == 10
    assert data.costs is not None
    assert np.isnan(data.costs[5:]).all()
    assert np.isfinite(data.paid()).all()
