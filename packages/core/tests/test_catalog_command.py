"""`monkey-coder catalog`, as a person and as a program uses it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from typer.testing import CliRunner

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.commands.catalog import app

OWN = {
    "context_window": 1000,
    "max_output": 100,
    "quality": {"default": 0.5, "debugging": 0.4},
    "latency_s": 2.0,
    "sources": {"quality": "our own measurement"},
    "prices": {"input_mtok": 1.0, "output_mtok": 4.0},
}


def write(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def own(**changes: object) -> dict[str, object]:
    return {name: value for name, value in (OWN | changes).items() if value is not ...}


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_every_model_with_price_and_limits() -> None:
    code, out, _ = run("list")
    assert code == 0
    for ref in load_catalog().refs:
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
