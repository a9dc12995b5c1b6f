"""`monkey-coder catalog`, as a person and as a program uses it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import ask, engine
from own_catalog import OWN, own, write
from redis_process import running_redis
from typer.testing import CliRunner

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.commands.app import app as commands
from monkey_coder.commands.catalog import app
from monkey_coder.models import FeedbackRequest
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.storage.opening import open_store


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own: `show` looks for outcomes there."""
    folder = tmp_path / "state"
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(folder))
    return folder


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


def test_models_are_added_removed_and_restored(tmp_path: Path) -> None:
    usual = load_catalog().refs
    code, out, _ = run("add", write(tmp_path / "more.yaml", extends="none", models={"me/x": own(deployment_of="x")}))
    assert (code, out) == (0, "me/x: in catalog version 2\n")
    assert re.search(r"deployment of +x, weight 1", run("show", "me/x")[1])
    assert run("remove", usual[0])[0] == 0
    listed = [model["ref"] for model in json.loads(run("list", "--json")[1])["models"]]
    assert listed == [*usual[1:], "me/x"]
    assert json.loads(run("check", "--json")[1])["count"] == len(usual)  # the file alone
    assert run("remove", usual[0])[0] == run("restore", usual[1])[0] == 2
    code, out, _ = run("restore", usual[0])
    assert (code, out) == (0, f"{usual[0]}: as in the catalog file from version 4 on\n")
    assert json.loads(run("list", "--json")[1])["count"] == len(usual) + 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"models": {"me/x": own(), "me/y": own(latency_s=-1)}}, "models.me/y.latency_s"),
        ({"extends": "default", "models": {"me/x": own()}}, "holds extends; to add models, leave out all but `models`"),
        ({"model": {"me/x": own()}}, "holds model;"),
        ({"extends": "none"}, "must hold `models`"),
    ],
)
def test_a_file_with_a_mistake_adds_nothing(tmp_path: Path, content: dict[str, object], said: str) -> None:
    code, _, err = run("add", write(tmp_path / "more.yaml", **content))
    assert code == 1
    assert said in err
    assert json.loads(run("list", "--json")[1])["count"] == len(load_catalog())


def test_a_file_that_is_no_text_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_bytes(b"models: \xff\xfe")
    code, _, err = run("add", tmp_path / "more.yaml")
    assert code == 1
    assert "is not UTF-8 text (byte 8)" in err


@pytest.fixture(params=["sqlite", "redis"])
def redis_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    """Address of a real server, or None where the state is in a file."""
    if request.param == "sqlite":
        yield None
        return
    with running_redis(tmp_path) as server:
        monkeypatch.setenv("MONKEY_CODER_REDIS_URL", server.url)
        yield server.url


def test_show_tells_what_outcomes_taught(state_dir: Path, redis_url: str | None) -> None:
    ref = load_catalog().refs[0]
    state_dir.mkdir()
    store, made = open_store(state_dir, redis_url, time.time), []
    with engine(models=load_catalog().table(), listeners=[DecisionLog(made.append, time.time)]) as manager:
        answers = manager.decide([ask(task_type="security") for _ in range(20)])
    store.append_decisions([make() for make in made])
    reports = [
        FeedbackRequest(
            decision_id=answer["decision_id"], model=ref, success=False, output_tokens=321, latency_ms=60_000.0
        )
        for answer in answers
    ]
    store.append_outcomes([outcome_row(report, Reporter("anonymous", time.time())) for report in reports])
    store.close()
    code, out, _ = run("show", ref, "--json")
    (learned,) = json.loads(out)["profile"]
    assert code == 0
    assert (learned["task"], round(learned["output_tokens"])) == ("security", 321)
    assert load_catalog().get(ref).spec.latency_s < json.loads(out)["learned_latency_s"] <= 60.0
    assert "latency learned from those outcomes" in run("show", ref)[1]
    assert learned["success"] < 0.5 * learned["prior"]
    assert learned["low"] <= learned["success"] <= learned["high"]
    assert re.search(r"security .* 0\.\d\d to 0\.\d\d .* 321", run("show", ref)[1])
    assert "profile" not in json.loads(run("show", load_catalog().refs[1], "--json")[1])


def test_a_prompt_is_routed_among_the_models_of_the_deployment(tmp_path: Path) -> None:
    best = own(quality={"default": 0.99}, prices={"input_mtok": 0.01, "output_mtok": 0.01})
    best |= {"context_window": 100_000, "max_output": 50_000}
    assert run("add", write(tmp_path / "more.yaml", models={"me/x": best}))[0] == 0
    result = CliRunner().invoke(commands, ["route", "Fix the failing test", "--json"])
    assert json.loads(result.stdout)["provider"] == "me"
