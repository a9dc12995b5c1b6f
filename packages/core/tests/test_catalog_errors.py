"""What a catalog file's mistakes are told: file, model, field, and the mend."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from own_catalog import OWN, own, write

from monkey_coder.catalog.catalog import load_catalog, parse_catalog
from monkey_coder.errors import CatalogError

DAY = date(2026, 11, 1)


def failure(path: Path, **content: object) -> str:
    with pytest.raises(CatalogError) as caught:
        load_catalog(write(path, **content), on=DAY)
    return str(caught.value)


def test_one_problem_is_one_line_with_file_model_field_and_mend(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    told = failure(file, extends="default", models={"openai/gpt-6-luna": {"context_windw": 5}})
    assert told == f"{file}: models.openai/gpt-6-luna.context_windw: is not a field; did you mean 'context_window'?"


@pytest.mark.parametrize(
    ("changes", "place", "told"),
    [
        ({"max_output": 2000}, "models.me/x", "max_output 2000 is larger than context_window 1000"),
        ({"context_window": -5}, "models.me/x.context_window", "greater than or equal to 1, not -5"),
        ({"context_window": "1e6"}, "models.me/x.context_window", "in digits, such as 200_000"),
        ({"quality": {"default": 1.5}}, "models.me/x.quality.default", "less than or equal to 1, not 1.5"),
        ({"quality": {"default": 0.5, "debuging": 1}}, "models.me/x.quality.debuging", "did you mean 'debugging'?"),
        ({"quality": {"default": float("nan")}}, "models.me/x.quality.default", "finite number"),
        ({"quality": 0.8}, "models.me/x.quality", "must be a mapping with the fields default,"),
        ({"quality": ...}, "models.me/x", "lacks quality; add it"),
        ({"latency_s": 0}, "models.me/x.latency_s", "greater than 0"),
        ({"evidence": 0}, "models.me/x.evidence", "greater than 0"),
        ({"prices": {"input_mtok": -1, "output_mtok": 1}}, "models.me/x.prices.input_mtok", "not -1"),
        ({"prices": {"input": 1}}, "models.me/x.prices.input", "did you mean 'input_mtok'?"),
        ({"prices": ...}, "models.me/x", "no known price: genai-prices knows no provider 'me'"),
        ({"prices": {"input_mtok": 1}}, "models.me/x", "set prices: {input_mtok: ..., output_mtok: ...}"),
        ({"capabilities": ["tool"]}, "models.me/x.capabilities.0", "did you mean 'tools'?"),
        ({"capabilities": "tools"}, "models.me/x.capabilities", "must be a list in brackets"),
        ({"regions": ["EU West"]}, "models.me/x.regions.0", "lower case letters"),
        ({"price_id": "gpt"}, "models.me/x.price_id", "write provider:model"),
        ({"price_id": "openai:gpt-6-lun"}, "models.me/x", "did you mean gpt-6-luna"),
        ({"sources": {"quality": ""}}, "models.me/x.sources.quality", "at least 1 character"),
        ({"colour": "blue"}, "models.me/x.colour", "known are context_window, max_output"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, object], place: str, told: str) -> None:
    message = failure(tmp_path / "own.yaml", extends="none", models={"me/x": own(**changes)})
    assert message.startswith(f"{tmp_path / 'own.yaml'}: {place}: ")
    assert told in message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    models = {
        "me/x": own(evidence=-1),
        "me/y": own(max_output="many"),
        "no slash": {},
        "anthropic/claude-haiku-45": {"evidence": 3},
    }
    message = failure(tmp_path / "own.yaml", extends="default", models=models)
    assert "4 problems" in message
    for part in (
        "models.me/x.evidence",
        "models.me/y.max_output",
        "'no slash' has the wrong form",
        "did you mean 'anthropic/claude-haiku-4-5'?",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"models": {}}, "extends: is missing; write 'extends: default'"),
        ({"extends": "base"}, "extends: is 'base'; write"),
        ({"extends": "none"}, "the catalog is empty"),
        ({"extends": "default", "model": {}}, "model: is not a field; did you mean 'models'?"),
        ({"extends": "default", "zzz": {}}, "known are extends, remove, models"),
        ({"extends": "default", "models": ["a/b"]}, "models: must be a mapping"),
        ({"extends": "default", "remove": "a/b"}, "remove: must be a list"),
        ({"extends": "default", "remove": ["openai/gpt-6-lun"]}, "did you mean 'openai/gpt-6-luna'?"),
        (
            {"extends": "default", "remove": ["openai/gpt-6-luna"], "models": {"openai/gpt-6-luna": {}}},
            "keep one of the two",
        ),
        ({"extends": "none", "remove": ["openai/gpt-6-luna"], "models": {"me/x": OWN}}, "nothing to remove from"),
        ({"extends": "default", "models": {"openai/gpt-6-luna": None}}, "must be a mapping with the fields"),
        ({"extends": "none", "models": {7: OWN}}, "models.7: must be a valid string"),
    ],
)
def test_a_bad_file_is_refused_with_its_mend(tmp_path: Path, content: dict[str, object], told: str) -> None:
    assert told in failure(tmp_path / "own.yaml", **content)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: none\nmodels: {a/b: [}\n", "line 2"),
        ("extends: none\nextends: default\n", "line 2, column 1: 'extends' is given twice"),
        ("extends: default\nmodels:\n  a/b: {evidence: 1}\n  a/b: {evidence: 2}\n", "line 4, column 3: 'a/b' is given"),
        ("", "not an empty file"),
        ("- a\n- b\n", "not a list"),
        ("extends: 2026-99-99\n", "a value cannot be read"),
        ("extends: \x00\n", "not valid YAML"),
        ("? [a]\n: b\n", "unhashable"),
    ],
)
def test_bad_yaml_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(CatalogError, match=r"^own\.yaml: ") as caught:
        parse_catalog(text, "own.yaml", DAY, {})
    assert told in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"missing\.yaml: cannot be read: No such file"):
        load_catalog(tmp_path / "missing.yaml")
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"extends: default # caf\xe9\n")
    with pytest.raises(CatalogError, match="save it as UTF-8"):
        load_catalog(tmp_path / "latin.yaml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*OWN, "capabilities", "regions", "evidence", "price_id", "note", "other"])


@given(st.sampled_from(["none", "default"]), st.dictionaries(fields, json_values, max_size=4), json_values)
def test_any_mistake_ends_in_a_catalog_error(extends: str, changes: dict[str, object], remove: object) -> None:
    content = {"extends": extends, "remove": remove, "models": {"me/x": OWN | changes}}
    told = ""
    try:
        (*_, model) = parse_catalog(yaml.safe_dump(content), "own.yaml", DAY, {"base/model": OWN}).models
        assert model.spec.max_output <= model.spec.context_window
    except CatalogError as error:
        told = str(error)
    assert not told or told.startswith("own.yaml: ")


@given(st.text(max_size=60))
def test_any_text_is_a_catalog_or_a_catalog_error(text: str) -> None:
    with pytest.raises(CatalogError, match=r"^own\.yaml: "):
        parse_catalog(text, "own.yaml", DAY, {})
