"""`monkey-coder keys`, as a person and as a program uses it, on a file and on Redis."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders import ask, engine
from redis_process import RedisProcess, running_redis
from typer.testing import CliRunner

from monkey_coder.api_keys import ApiKey, KeyTable
from monkey_coder.commands.keys import app
from monkey_coder.errors import UnknownKeyError
from monkey_coder.key_ring import stored_keys
from monkey_coder.models import FeedbackRequest, Preferences
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.storage.opening import open_store


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def kept(state_dir: Path, url: str | None = None) -> list[ApiKey]:
    with closing(open_store(state_dir, url, time.time)) as store:
        return list(stored_keys(store))


def test_a_key_is_shown_once_and_good_at_once(state_dir: Path) -> None:
    code, out, err = run("create", "--role", "client", "--name", "CI")
    assert code == 0
    assert re.fullmatch(r"mk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}\n", out)  # nothing else: a script may take it as it is
    assert "only now" in err
    (key,) = kept(state_dir)
    caller = KeyTable.of([key]).find(out.strip().encode())
    assert caller is not None
    assert (caller.id, key.role, key.name) == (key.id, "client", "CI")
    secret = out.strip().split("_", 2)[-1]
    for shown in (run("list")[1], run("list", "--json")[1]):
        assert secret not in shown
        assert key.digest not in shown
        assert "CI" in shown


def test_ids_are_shown_whole_also_where_there_is_little_room(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    run("create", "--role", "operator", "--name", "somebody with a rather long name", "--quality", "0.5", "--cost", "1")
    (key,) = kept(state_dir)
    assert key.id in run("list")[1]


def test_programs_get_json(state_dir: Path) -> None:
    _, out, _ = run("create", "--role", "operator", "--name", "deploy", "--value-usd", "0.2", "--json")
    made = json.loads(out)
    assert (made["role"], made["name"], made["preferences"]) == ("operator", "deploy", {"value_usd": 0.2})
    assert made["key"].startswith(f"mk_{made['id']}_")
    (listed,) = json.loads(run("list", "--json")[1])
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_revoking_is_by_id_or_by_a_name_that_is_clear(state_dir: Path) -> None:
    for name in ("one", "two", "two"):
        run("create", "--role", "viewer", "--name", name)
    with pytest.raises(UnknownKeyError, match="2 API keys are named 'two'") as unclear:
        run("revoke", "two")
    assert all(key.id in str(unclear.value) for key in kept(state_dir) if key.name == "two")
    with pytest.raises(UnknownKeyError, match=r"'three'.*keys list"):
        run("revoke", "three")
    assert run("revoke", "one")[0] == 0
    first_two = next(key for key in kept(state_dir) if key.name == "two")
    assert run("revoke", first_two.id)[0] == 0
    assert run("revoke", "two")[0] == 0  # now only one of them is left
    at = [key.revoked_at for key in kept(state_dir)]
    assert None not in at
    assert run("revoke", first_two.id)[0] == 0
    assert [key.revoked_at for key in kept(state_dir)] == at  # once is once


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--role", "root", "--name", "x"),
        ("create", "--role", "client"),
        ("create", "--role", "client", "--name", ""),
        ("create", "--role", "client", "--name", "x", "--quality", "0"),
        ("create", "--role", "client", "--name", "x", "--value-usd", "1", "--cost", "1"),
        ("create", "--role", "client", "--name", "x", "--quality-floor", "2"),
        ("prefer", "x"),
        ("prefer", "x", "--clear", "--quality", "1"),
    ],
)
def test_bad_usage_is_refused_and_nothing_is_kept(state_dir: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2
    assert not state_dir.exists() or kept(state_dir) == []


def test_preferences_are_replaced_whole_cleared_and_shown(state_dir: Path) -> None:
    run("create", "--role", "client", "--name", "x", "--quality", "0.5", "--quality-floor", "0.7")
    assert kept(state_dir)[0].preferences == Preferences(quality=0.5, quality_floor=0.7)
    assert "quality 0.5, quality_floor 0.7" in run("list")[1]
    run("prefer", "x", "--value-usd", "2", "--max-cost-usd", "1.5")
    assert kept(state_dir)[0].preferences == Preferences(value_usd=2.0, max_cost_usd=1.5)
    run("prefer", "x", "--use-learned")
    assert kept(state_dir)[0].use_learned
    assert kept(state_dir)[0].preferences is not None
    run("prefer", "x", "--clear", "--no-use-learned")
    assert (kept(state_dir)[0].preferences, kept(state_dir)[0].use_learned) == (None, False)


def test_an_empty_list_says_how_to_begin() -> None:
    assert "keys create" in run("list")[1]
    assert run("list", "--json")[1].strip() == "[]"
    assert "nothing was learned" in run("learn")[1]


def test_it_works_on_redis_as_well(redis: RedisProcess, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONKEY_CODER_REDIS_URL", redis.url)
    run("create", "--role", "client", "--name", "on redis")
    assert run("revoke", "on redis")[0] == 0
    (key,) = kept(state_dir, redis.url)
    assert (key.name, key.revoked_at is None) == ("on redis", False)
    assert not state_dir.exists()


# What is learned of preferences


def test_it_learns_what_a_task_is_worth_from_models_used_instead_of_the_decided_ones(state_dir: Path) -> None:
    for name in ("lavish", "content", "escalating"):
        run("create", "--role", "client", "--name", name, "--value-usd", "0.01")
    ids = {key.name: key.id for key in kept(state_dir)}
    with (
        closing(open_store(state_dir, None, time.time)) as store,
        engine(listeners=[DecisionLog(lambda make: store.append_decisions([make()]), time.time)]) as manager,
    ):
        for number in range(60):
            answer = manager.decide([ask(preferences={"value_usd": 0.01})])[0]
            assert isinstance(answer, dict)
            decided = f"{answer['provider']}/{answer['model']}"
            best = max(answer["alternatives"], key=lambda other: other["expected"]["success"])
            dearest = f"{best['provider']}/{best['model']}"
            assert best["expected"]["success"] > answer["expected"]["success"]
            name = ("lavish", "content", "escalating")[number % 3]
            tried = {"lavish": [dearest], "content": [decided], "escalating": [decided, dearest]}[name]
            for model in tried:
                said = FeedbackRequest(decision_id=answer["decision_id"], model=model, success=True)
                store.append_outcomes([outcome_row(said, Reporter(ids[name], time.time()))])
    code, out, _ = run("learn", "--json")
    assert code == 0
    learned = json.loads(out)
    assert set(learned) == {ids["lavish"]}  # keeping to decisions, and escalating after a failure, say nothing
    told = learned[ids["lavish"]]
    assert told["value_usd"] > 0.01  # worth more than the requests said
    assert told["low"] <= told["value_usd"] <= told["high"]
    assert (told["choices"], told["upgrades"]) == (20, 20)
    by_name = {key.name: key for key in kept(state_dir)}
    assert by_name["lavish"].defaults == Preferences(value_usd=0.01)  # shown, and not applied
    run("prefer", "lavish", "--clear", "--use-learned")
    assert {key.name: key for key in kept(state_dir)}["lavish"].defaults == Preferences(value_usd=told["value_usd"])
    assert ids["lavish"] in run("learn")[1]
    assert "applied" in run("list")[1]
