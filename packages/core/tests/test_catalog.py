"""The catalog as its users meet it: the default file, an operator's own, and the arrays made from it."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from own_catalog import OWN, write

from monkey_coder.catalog.catalog import Catalog, load_catalog, parse_catalog
from monkey_coder.catalog.schema import ModelSpec, PriceSpec, Sources
from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.errors import UnknownModelError
from monkey_coder.models import TASK_TYPES

DAY = date(2026, 11, 1)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def default() -> Catalog:
    return load_catalog(on=DAY)


# The default catalog


def test_the_default_catalog_offers_a_choice(default: Catalog) -> None:
    providers = {model.provider for model in default.models}
    tiers = {model.price_tier for model in default.models}
    assert 20 <= len(default) <= 25
    assert len(providers) >= 6
    assert tiers == {"cheap", "middle", "dear"}
    assert {"anthropic/claude-haiku-4-5", "deepseek/deepseek-chat"} <= set(default.refs)
    assert sum(ref.startswith("openai/") for ref in default.refs) >= 3


def test_every_default_model_names_where_its_numbers_come_from(default: Catalog) -> None:
    for model in default.models:
        assert model.spec.sources.quality, model.ref
        assert model.spec.sources.limits, model.ref
        assert model.spec.sources.latency, model.ref
        assert model.prices.source.startswith("genai-prices"), model.ref
        assert 0 < model.prices.input_usd < model.prices.output_usd, model.ref
        assert model.prices.cached_input_usd <= model.prices.input_usd, model.ref


def test_default_quality_follows_the_documented_rule(default: Catalog) -> None:
    shifts = {
        "documentation": 0.6,
        "general": 0.3,
        "debugging": -0.3,
        "architecture": -0.3,
        "performance": -0.4,
        "security": -0.5,
    }
    for model in default.models:
        base = model.spec.quality.default
        assert f"score {base * 100:.1f}" in model.spec.sources.quality
        for task, quality in model.spec.quality.by_task().items():
            odds = math.log(base / (1 - base)) + shifts.get(task, 0.0)
            assert quality == pytest.approx(1 / (1 + math.exp(-odds)), abs=6e-4), (model.ref, task)


def test_haiku_costs_what_the_vendor_lists(default: Catalog) -> None:
    prices = default.get("anthropic/claude-haiku-4-5").prices  # 1 / 5 / 0.10 USD per Mtok since its launch
    assert (prices.input_usd, prices.output_usd, prices.cached_input_usd) == pytest.approx((1e-6, 5e-6, 1e-7))
    assert prices.request_usd == 0


def test_the_table_has_one_column_per_model(default: Catalog) -> None:
    table = default.table()
    column = table.index["deepseek/deepseek-chat"]
    model = default.get("deepseek/deepseek-chat")
    assert table.refs == default.refs
    assert table.input_usd[column] == model.prices.input_usd
    assert table.cached_input_usd[column] == model.prices.cached_input_usd < table.input_usd[column]
    assert dict(zip(CAPABILITIES, table.capabilities[column], strict=True)) == {
        "tools": True,
        "vision": False,
        "json_mode": True,
        "reasoning": False,
    }
    assert "cn" in table.regions[column]
    assert table.available.all()
    for row, task in enumerate(TASK_TYPES):
        assert table.success[row, column] == pytest.approx(model.spec.quality.by_task()[task])
    assert (table.evidence == 10).all()


def test_loading_touches_no_network_and_nothing_heavy(tmp_path: Path) -> None:
    program = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from monkey_coder.catalog.catalog import load_catalog
print(len(load_catalog()) > 0)
print(*sorted({"torch", "scipy", "wordllama", "fastapi"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.split() == ["True"]


def test_the_default_file_is_read_from_the_package_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_catalog(on=DAY).origin == "default catalog"


def test_the_version_changes_with_content_alone(default: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    same = load_catalog(write(file, extends="default"), on=DAY)
    words = load_catalog(
        write(file, extends="default", models={"openai/gpt-6-luna": {"note": "our favourite"}}), on=DAY
    )
    cheaper = load_catalog(
        write(file, extends="default", models={"openai/gpt-6-luna": {"prices": {"input_mtok": 0.05}}}), on=DAY
    )
    assert default.version == same.version == words.version
    assert cheaper.version != default.version


def test_an_unknown_ref_gets_a_suggestion(default: Catalog) -> None:
    with pytest.raises(UnknownModelError, match=r"request\.excluded_models: .*did you mean anthropic/claude-haiku-4-5"):
        default.get("anthropic/claude-haiku-4.5", "request.excluded_models")


# An operator's own file


def test_an_own_file_replaces_the_default(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", extends="none", models={"me/local/model": OWN})
    catalog = load_catalog(file, on=DAY)
    (model,) = catalog.models
    assert (model.ref, model.provider) == ("me/local/model", "me")
    assert model.prices.output_usd == pytest.approx(4e-6)
    assert model.prices.cached_input_usd == model.prices.input_usd
    assert model.prices.source == "catalog file"
    quality = model.spec.quality.by_task()
    assert (quality["debugging"], quality["testing"]) == (0.4, 0.5)


def test_an_own_file_overrides_field_by_field(default: Catalog, tmp_path: Path) -> None:
    changes = {
        "quality": {"debugging": 0.99},
        "regions": ["eu", "zero_retention"],
        "prices": {"output_mtok": 7.0},
    }
    file = write(tmp_path / "own.yaml", extends="default", models={"anthropic/claude-haiku-4-5": changes})
    before, after = (
        default.get("anthropic/claude-haiku-4-5"),
        load_catalog(file, on=DAY).get("anthropic/claude-haiku-4-5"),
    )
    assert after.spec.quality == before.spec.quality.model_copy(update={"debugging": 0.99})
    assert after.spec.regions == ("eu", "zero_retention")
    assert after.spec.context_window == before.spec.context_window
    assert after.prices.output_usd == pytest.approx(7e-6)
    assert after.prices.input_usd == before.prices.input_usd
    assert after.prices.cached_input_usd == before.prices.cached_input_usd
    assert after.prices.source.startswith("catalog file over genai-prices")


def test_an_own_file_adds_and_removes(default: Catalog, tmp_path: Path) -> None:
    file = write(
        tmp_path / "own.yaml",
        extends="default",
        remove=["deepseek/deepseek-chat"],
        models={"me/local": OWN},
    )
    refs = load_catalog(file, on=DAY).refs
    assert set(refs) == set(default.refs) - {"deepseek/deepseek-chat"} | {"me/local"}


def test_null_takes_an_override_back(tmp_path: Path) -> None:
    file = write(
        tmp_path / "own.yaml",
        extends="default",
        models={"anthropic/claude-haiku-4-5": {"quality": {"debugging": None}}},
    )
    quality = load_catalog(file, on=DAY).get("anthropic/claude-haiku-4-5").spec.quality
    assert quality.by_task()["debugging"] == quality.default


def test_yaml_anchors_may_share_fields() -> None:
    text = """
extends: none
models:
  me/small: &base
    context_window: 1_000
    max_output: 100
    quality: {default: 0.5}
    latency_s: 2
    sources: {quality: ours}
    prices: {input_mtok: 1, output_mtok: 2}
  me/large:
    <<: *base
    context_window: 2_000
"""
    catalog = parse_catalog(text, "own.yaml", DAY, {})
    assert [model.spec.context_window for model in catalog.models] == [1000, 2000]


prices = st.floats(0, 1e5)


@given(
    default=st.floats(0, 1),
    window=st.integers(1, 10**9),
    price=st.tuples(prices, prices, prices, prices),
    evidence=st.floats(1e-6, 1e6),
)
def test_what_the_file_says_is_what_the_table_holds(
    default: float, window: int, price: tuple[float, float, float, float], evidence: float
) -> None:
    names = ("input_mtok", "output_mtok", "cached_input_mtok", "request")
    spec = OWN | {
        "quality": {"default": default},
        "context_window": window,
        "max_output": window,
        "evidence": evidence,
        "prices": dict(zip(names, price, strict=True)),
    }
    table = parse_catalog(yaml.safe_dump({"extends": "none", "models": {"me/x": spec}}), "own", DAY, {}).table()
    assert np.allclose(table.success, default, atol=1e-6)
    assert np.allclose(table.evidence, evidence)
    assert table.context_window.tolist() == table.max_output.tolist() == [window]
    per_token = [table.input_usd[0], table.output_usd[0], table.cached_input_usd[0]]
    assert per_token == pytest.approx([value / 1e6 for value in price[:3]])
    assert table.request_usd[0] == price[3]


# The table on its own


def small_table(refs: tuple[str, ...] = ("a/b",), prices: int = 1) -> ModelTable:
    column = np.ones(1)
    return ModelTable(
        refs=refs,
        input_usd=np.ones(prices),
        output_usd=column,
        request_usd=column,
        context_window=np.ones(1, dtype=np.int64),
        max_output=np.ones(1, dtype=np.int64),
        capabilities=np.ones((1, len(CAPABILITIES)), dtype=np.bool_),
        regions=(frozenset(),),
        success=np.ones((len(TASK_TYPES), 1), dtype=np.float32),
        evidence=np.ones((len(TASK_TYPES), 1), dtype=np.float32),
        latency_s=np.ones(1, dtype=np.float32),
        available=np.ones(1, dtype=np.bool_),
    )


def test_a_table_without_cache_prices_has_no_discount() -> None:
    table = small_table()
    assert len(table) == 1
    assert table.cached_input_usd.tolist() == table.input_usd.tolist()


def test_a_table_refuses_columns_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="must be unique"):
        small_table(refs=("a/b", "a/b"))
    with pytest.raises(ValueError, match=r"input_usd has shape \(2,\), expected \(1,\)"):
        small_table(prices=2)


# The page


def test_the_page_describes_every_field_and_its_example_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "catalog.md").read_text()
    for field in (*ModelSpec.model_fields, *PriceSpec.model_fields, *Sources.model_fields, "extends", "remove"):
        assert f"`{field}`" in page, field
    examples = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert len(load_catalog(file, on=DAY)) >= 1
