"""The catalog as its users meet it: the default file, an operator's own, prices, and the commands."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, TimeOfDateConstraint
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from monkey_coder.catalog import prices as price_module
from monkey_coder.catalog.catalog import Catalog, load_catalog, parse_catalog
from monkey_coder.catalog.prices import UnknownPriceError, resolve_prices
from monkey_coder.catalog.schema import PriceSpec
from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.commands.catalog import app
from monkey_coder.errors import CatalogError, UnknownModelError
from monkey_coder.models import TASK_TYPES

DAY = date(2026, 11, 1)
ROOT = Path(__file__).resolve().parents[3]
OWN = {
    "context_window": 1000,
    "max_output": 100,
    "quality": {"default": 0.5, "debugging": 0.4},
    "latency_s": 2.0,
    "sources": {"quality": "our own measurement"},
    "prices": {"input_mtok": 1.0, "output_mtok": 4.0},
}


@pytest.fixture(scope="module")
def default() -> Catalog:
    return load_catalog(on=DAY)


def write(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def own(**changes: object) -> dict[str, object]:
    return {name: value for name, value in (OWN | changes).items() if value is not ...}


def failure(path: Path, **content: object) -> str:
    with pytest.raises(CatalogError) as caught:
        load_catalog(write(path, **content), on=DAY)
    return str(caught.value)


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


def test_loading_is_quick_and_touches_no_network(tmp_path: Path) -> None:
    program = """
import socket, sys, time
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import numpy, pydantic
start = time.perf_counter()
from monkey_coder.catalog.catalog import load_catalog
load_catalog()
print(time.perf_counter() - start)
assert "torch" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(run.stdout) < 2.0  # 0.2 s on a quiet machine; the bound only catches a change of kind


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
    file = write(tmp_path / "own.yaml", extends="none", models={"me/local/model": own()})
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
        models={"me/local": own()},
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


# Prices


def resolve(ref: str, on: date = DAY, price_id: str | None = None, **prices: float) -> price_module.Prices:
    return resolve_prices(ref, price_id, PriceSpec(**prices), on)


def test_a_dated_price_counts_from_its_day() -> None:
    # Google listed this model at 2 / 10 USD per Mtok until the end of November 2026, and at twice that afterwards.
    before, after = (
        resolve("google/gemini-4-argon", date(2026, 11, 30)),
        resolve("google/gemini-4-argon", date(2026, 12, 1)),
    )
    assert after.input_usd == pytest.approx(2 * before.input_usd)
    assert after.output_usd == pytest.approx(2 * before.output_usd)


def test_of_hourly_prices_the_dearest_counts() -> None:
    prices = resolve("deepseek/deepseek-chat")  # half of it from 16:30 to 00:30 UTC
    assert (prices.input_usd, prices.output_usd) == pytest.approx((0.27e-6, 1.1e-6))


def test_of_size_tiers_the_first_counts() -> None:
    prices = resolve("x-ai/grok-4.7")  # 4 / 12 from 200,000 prompt tokens on
    assert (prices.input_usd, prices.output_usd) == pytest.approx((2e-6, 6e-6))


def test_a_price_per_request_is_in_usd_per_call() -> None:
    assert resolve("perplexity/sonar-pro").request_usd == pytest.approx(0.014)  # 14 USD per thousand


def test_a_price_id_points_elsewhere() -> None:
    prices = resolve("proxy/fast", price_id="anthropic:claude-haiku-4-5")
    assert prices.input_usd == pytest.approx(1e-6)
    assert "anthropic:claude-haiku-4-5" in prices.source


def test_a_model_with_further_slashes_is_looked_up_whole() -> None:
    assert resolve("groq/openai/gpt-oss-120b").output_usd == pytest.approx(0.6e-6)


def test_an_own_input_price_has_no_borrowed_cache_discount() -> None:
    prices = resolve("anthropic/claude-haiku-4-5", input_mtok=0.5)
    assert prices.cached_input_usd == prices.input_usd == pytest.approx(0.5e-6)


def test_free_models_are_allowed() -> None:
    prices = resolve("ollama/anything", input_mtok=0, output_mtok=0)
    assert prices.input_usd == prices.output_usd == prices.cached_input_usd == 0


@pytest.mark.parametrize(
    ("ref", "price_id", "told"),
    [
        ("opnai/gpt-6-luna", None, "no provider 'opnai' (did you mean openai?)"),
        ("zzzz/model", None, "no provider 'zzzz'"),
        ("anthropic/claude-haiku-9", None, "no model 'claude-haiku-9' of 'anthropic'"),
        ("me/embedder", "voyageai:voyage-code-3", "has no output price"),
    ],
)
def test_an_unknown_price_says_where_was_looked(ref: str, price_id: str | None, told: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        resolve(ref, price_id=price_id)
    assert told in str(caught.value)


def test_a_later_price_for_the_whole_day_ends_the_hourly_ones() -> None:
    from datetime import UTC, time
    from decimal import Decimal

    def cost(amount: str) -> ModelPrice:
        return ModelPrice(input_mtok=Decimal(amount), output_mtok=Decimal(amount))

    hourly = TimeOfDateConstraint(start_time=time(1, tzinfo=UTC), end_time=time(4, tzinfo=UTC))
    prices = [
        ConditionalPrice(prices=cost("1")),
        ConditionalPrice(hourly, prices=cost("9")),
        ConditionalPrice(StartDateConstraint(date(2026, 10, 1)), prices=cost("2")),
    ]
    for day, expected in ((date(2026, 9, 30), 9), (date(2026, 10, 1), 2)):
        standing = price_module._standing_price(prices, day)
        assert standing.input_mtok == expected
    future = [ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=cost("3"))]
    assert price_module._standing_price(future, DAY).input_mtok == 3


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


# The commands


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_every_model_with_price_and_limits(default: Catalog) -> None:
    code, out, _ = run("list")
    assert code == 0
    for ref in default.refs:
        assert ref in out
    line = next(line for line in out.splitlines() if "claude-haiku-4-5" in line)
    for cell in ("middle", "200,000", "0.64", "tools, vision, json_mode, reasoning", "global"):
        assert cell in line


def test_list_as_json_is_what_the_catalog_holds() -> None:
    code, out, _ = run("list", "--json")
    shown, catalog = json.loads(out), load_catalog()
    assert code == 0
    assert shown["version"] == catalog.version
    assert shown["models"] == [model.as_json() for model in catalog.models]


def test_show_explains_one_model(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", extends="none", models={"me/x": own(prices=OWN["prices"] | {"request": 0.25})})
    code, out, _ = run("show", "me/x", "--catalog", file)
    assert code == 0
    for part in ("1 USD per million tokens", "0.25 USD per call", "our own measurement", "debugging 0.40", "2 s"):
        assert part in out
    code, out, _ = run("show", "me/x", "--catalog", file, "--json")
    assert (code, json.loads(out)["prices"]["output_mtok"]) == (0, 4.0)


def test_show_refuses_an_unknown_ref_as_bad_usage() -> None:
    code, _, err = run("show", "anthropic/claude-haiku-45")
    assert code == 2
    assert "anthropic/claude-haiku-4-5" in err


def test_check_tells_what_it_found(tmp_path: Path) -> None:
    code, out, _ = run("check")
    assert code == 0
    assert "default catalog: good. 22 models" in out
    file = write(tmp_path / "own.yaml", extends="none", models={"me/x": own()})
    code, out, _ = run("check", file, "--json")
    assert (code, json.loads(out)["providers"], json.loads(out)["count"]) == (0, ["me"], 1)


def test_check_fails_on_a_bad_file(tmp_path: Path) -> None:
    code, out, err = run("check", write(tmp_path / "own.yaml", extends="none", models={"me/x": own(evidence=-1)}))
    assert (code, out) == (1, "")
    assert "models.me/x.evidence" in err


def test_a_missing_file_is_bad_usage(tmp_path: Path) -> None:
    assert run("check", tmp_path / "missing.yaml")[0] == 2
    assert run("list", "--catalog", tmp_path)[0] == 2


# The page


def test_the_page_describes_every_field_and_its_example_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "catalog.md").read_text()
    from monkey_coder.catalog.schema import ModelSpec, Sources

    for field in (*ModelSpec.model_fields, *PriceSpec.model_fields, *Sources.model_fields, "extends", "remove"):
        assert f"`{field}`" in page, field
    examples = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert len(load_catalog(file, on=DAY)) >= 1
