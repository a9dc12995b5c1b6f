"""`monkey-coder train` and `policy`, as a person uses them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import orjson
import pytest

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.commands.app import run
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import StoreShelf
from monkey_coder.quantum.training_options import PRESETS, TrainOptions
from monkey_coder.quantum.training_wishes import read_wishes
from monkey_coder.storage.opening import FILE_NAME, open_store
from monkey_coder.storage.port import Store

REF = load_catalog().refs[0]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with closing(open_store(state, None, time.time)) as opened:
        yield opened


def served(store: Store) -> PolicyBundle:
    shelf = StoreShelf(store, time.time)
    number = shelf.current()
    assert number is not None
    return shelf.load(number)


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60):
        word = ("parser", "shader")[i % 2]
        chances = {"a": 0.9 if word == "parser" else 0.1, "b": 0.1 if word == "parser" else 0.9, "c": 0.6, "d": 0.5}
        lines.append(
            {
                "id": f"t/{i}",
                "domain": "coding",
                "task": "generation",
                "prompt": f"Write a {word} that handles case {i}",
                "scores": {model: float(rng.random() < p) for model, p in chances.items()},
                "cost_usd": {"a": 0.01, "b": 0.01, "c": 0.1, "d": 0.002},
            }
        )
    path = tmp_path / "outcomes.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of the same kind with fewer steps, so that tests take seconds."""
    brief = {
        name: TrainOptions(
            steps=16, round_states=16, check_steps=8, dqn=options.dqn, success=options.success, belief=options.belief
        )
        for name, options in PRESETS.items()
    }
    monkeypatch.setattr("monkey_coder.quantum.training_options.PRESETS", brief)


def test_a_trained_policy_is_served_with_its_card(
    outcomes: Path, tmp_path: Path, store: Store, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--train", str(outcomes), "--verifier-noise", "0.1", "--model", f"a={REF}"]) == 0
    said = capsys.readouterr()
    assert "policy 1" in said.out
    assert "over the best single model" in said.out.replace("\n", " ")
    bundle = served(store)
    assert bundle.parts.version == 1
    assert bundle.parts.noise == 0.1
    assert bundle.parts.success.models[0] == REF
    assert bundle.card["data"]["source"]["files"][0]["name"] == outcomes.name
    assert run(["policy", "export", "1", str(tmp_path / "files")]) == 0
    assert "files in" in capsys.readouterr().out
    files = {each.name for each in (tmp_path / "files").iterdir()}
    assert {"card.md", "card.json", "curves.png", "reliability.png", "frontier.png", "agent.pt"} <= files

    assert run(["train", "--train", str(outcomes), "--continue", "--no-publish", "--model", f"a={REF}"]) == 0
    assert store.current_policy() == 1
    assert "policy set 2" in capsys.readouterr().out.replace("\n", " ")

    assert run(["policy", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["policy"], row["current"]) for row in rows] == [(1, True), (2, False)]
    assert run(["policy", "list"]) == 0
    assert run(["policy", "show", "2"]) == 0
    assert "Calibration" in capsys.readouterr().out
    assert run(["policy", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["tasks"] == 60

    assert run(["policy", "set", "2"]) == 0
    assert store.current_policy() == 2
    capsys.readouterr()
    assert run(["policy", "rollback", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"current": 1}
    assert store.current_policy() == 1
    assert run(["policy", "rollback"]) == 1
    assert "no earlier policy" in capsys.readouterr().err
    assert run(["policy", "rollback", "--to", "none"]) == 0
    assert "no policy is served" in capsys.readouterr().out
    assert store.current_policy() is None
    assert run(["policy", "rollback", "--to", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"current": None}
    assert run(["policy", "rollback"]) == 0
    assert store.current_policy() == 1
    assert run(["policy", "rollback", "--to", "none", "--out", str(tmp_path)]) == 2
    assert run(["policy", "rollback", "--to", "2"]) == 2


def test_a_diverging_run_says_so_and_publishes_nothing(
    outcomes: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["policy", "tune", "--learning-rate", "1"]) == 0

    code = run(["train", "--train", str(outcomes)])
    said = capsys.readouterr()
    assert code == 1, said.out
    assert "training_diverged" in said.err
    assert "nothing was published" in said.err
    assert store.policies() == []


def test_a_person_steers_from_another_terminal(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "pause"]) == 0
    assert read_wishes(store).paused
    assert run(["policy", "tune", "--learning-rate", "0.001", "--epsilon", "0.3"]) == 0
    assert "paused, learning rate 0.001, epsilon 0.3" in capsys.readouterr().out
    assert run(["policy", "resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paused"] is False
    assert not read_wishes(store).paused
    assert run(["policy", "tune", "--schedule"]) == 0
    assert read_wishes(store).learning_rate is None
    assert run(["policy", "stop"]) == 0
    assert read_wishes(store).stopped
    assert run(["policy", "tune"]) == 2
    assert run(["policy", "tune", "--epsilon", "3"]) == 2


def test_an_earlier_stop_does_not_stop_the_next_run(outcomes: Path, store: Store, short: None) -> None:
    assert run(["policy", "stop"]) == 0
    assert run(["train", "--train", str(outcomes)]) == 0
    bundle = served(store)
    assert "by hand" not in bundle.card["training"]["verdict"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preset", "huge"], 2, "there is no preset"),
        (["--verifier-noise", "0.5"], 2, "noise is 0.5"),
        (["--attempts", "0"], 2, "attempts is 0"),
        (["--model", "a"], 2, "NAME=provider/model"),
        (["--model", f"z={REF}"], 2, "no model 'z'"),
        (["--model", "a=no/such"], 2, "not in the catalog"),
        (["--continue"], 1, "to go on from"),
    ],
)
def test_mistakes_are_told_with_their_mend(
    outcomes: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--train", str(outcomes), *arguments]) == code
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_too_few_tasks_are_told(outcomes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"\n".join(outcomes.read_bytes().splitlines()[:8]))
    assert run(["train", "--train", str(few)]) == 1
    assert "add outcomes" in capsys.readouterr().err.replace("\n", " ")


def test_without_policies_the_commands_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "list"]) == 0
    assert "monkey-coder train" in capsys.readouterr().out
    assert run(["policy", "show"]) == 1
    assert "monkey-coder train" in capsys.readouterr().err
    assert run(["policy", "set", "3"]) == 2
    assert "no policy 3" in capsys.readouterr().err


def test_several_tables_may_follow_one_option(outcomes: Path, tmp_path: Path, store: Store, short: None) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(outcomes.read_bytes().replace(b"case", b"thing"))
    assert run(["train", "--train", str(outcomes), str(other), "--attempts", "1", "--out", str(tmp_path / "own")]) == 0
    bundle = bundles.load_policy(tmp_path / "own", 1)
    assert bundle.card["data"]["tasks"] == 120
    assert store.policies() == []


def test_a_damaged_policy_is_named(
    outcomes: Path, state: Path, store: Store, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "--train", str(outcomes), "--attempts", "1"]) == 0
    with closing(sqlite3.connect(state / FILE_NAME)) as file, file:
        file.execute("UPDATE policies SET card = '{', blob = substr(blob, 1, length(blob) - 1)")
    assert run(["policy", "list"]) == 1
    assert "card of policy 1" in capsys.readouterr().err.replace("\n", " ")
    assert run(["policy", "set", "1"]) == 1
    assert "damaged" in capsys.readouterr().err.replace("\n", " ")


def test_the_same_commands_look_at_a_directory(
    outcomes: Path, tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    for _ in range(2):
        assert run(["train", "--train", str(outcomes), "--attempts", "1", "--out", str(own)]) == 0
    assert {"card.md", "agent.pt", "frontier.png"} <= {each.name for each in (own / "000002").iterdir()}
    assert run(["policy", "rollback", "--out", str(own)]) == 0
    capsys.readouterr()
    assert run(["policy", "list", "--json", "--out", str(own)]) == 0
    assert [row["current"] for row in json.loads(capsys.readouterr().out)] == [True, False]
    (own / "000001" / "card.json").write_text("{")
    assert run(["policy", "list", "--out", str(own)]) == 1
    assert "card.json" in capsys.readouterr().err.replace("\n", "")
