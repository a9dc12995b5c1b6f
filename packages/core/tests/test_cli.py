"""The command line as a person and as a program meet it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn
import yaml
from servers import command, free_port

import monkey_coder
from monkey_coder.commands.app import run
from monkey_coder.models import RoutingDecision
from monkey_coder.storage.opening import open_store

Run = Callable[..., tuple[int, str, str]]
PROMPT = "Fix the race condition in our LRU cache"


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; returns exit code, standard output and standard error."""
    for name in [name for name in os.environ if name.startswith("MONKEY_CODER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "120")

    def called(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return called


def test_the_version_is_said(cli: Run) -> None:
    assert cli("--version") == (0, f"{monkey_coder.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [(), ("serve",), ("route",), ("evaluate",), ("catalog",), ("catalog", "list"), ("catalog", "check")],
    ids=" ".join,
)
def test_help_is_everywhere(cli: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = cli(*arguments, "--help")
    assert (code, err) == (0, "")
    assert "Usage: monkey-coder" in out


def test_every_command_is_listed_with_what_it_does(cli: Run) -> None:
    _, out, _ = cli("--help")
    for name in ("serve", "route", "evaluate", "catalog"):
        (line,) = [line for line in out.splitlines() if line.strip("│ ").startswith(name)]
        assert len(line.strip("│ ").split()) > 4


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("--nothing",),
        ("route",),
        ("route", "x", "y"),
        ("route", "x", "--quality", "high"),
        ("serve", "--port", "99999"),
        ("serve", "--port", "nine"),
        ("serve", "--workers", "0"),
        ("serve", "--log-level", "loud"),
        ("catalog",),
        ("catalog", "nothing"),
        ("evaluate",),
    ],
    ids=" ".join,
)
def test_misuse_ends_with_2_and_help(cli: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = cli(*arguments)
    assert code == 2
    assert "help" in (err or out).lower()


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("",), "request.prompt"),
        (("x", "--task-type", "gardening"), "request.task_type"),
        (("x", "--quality", "0"), "preferences.quality"),
        (("x", "--quality", "nan"), "preferences.quality"),
        (("x", "--cost", "inf"), "preferences.cost"),
        (("x", "--quality-floor", "2"), "preferences.quality_floor"),
        (("x", "--value-usd", "1", "--cost", "1"), "value_usd replaces the weights: leave out cost"),
        (("x", "--allow", "claude"), "request.allowed_models[0]"),
        (("x", "--allow", "no/such"), "request.allowed_models[0]: 'no/such' is not in the catalog"),
        (("x", "--failed", "no/such"), "episode.attempts[0].model"),
        (("x", "--strategy", "luck"), "'luck'"),
        (("x", "--collapse", "dice"), "quantum_config.collapse_strategy"),
    ],
)
def test_a_bad_option_ends_with_2_and_names_the_field(cli: Run, arguments: tuple[str, ...], place: str) -> None:
    code, out, err = cli("route", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error (")
    assert place in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("--host", "0.0.0.0"), {}, 2, "no API keys are configured"),
        ((), {"HOST": "::"}, 2, "no API keys are configured"),
        ((), {"WORKERS": "2"}, 2, "there is no setting MONKEY_CODER_WORKERS"),
        ((), {"EXPLOR": "0"}, 2, "did you mean MONKEY_CODER_EXPLORE?"),
        ((), {"MAX_BATCH": "0"}, 2, "MONKEY_CODER_MAX_BATCH"),
        ((), {"STATE_DIR": "/dev/null"}, 2, "MONKEY_CODER_STATE_DIR"),
        (("--host", "no.such.host.invalid"), {}, 2, "there is no address 'no.such.host.invalid' to listen on"),
        (("--host", "127.0.0.1.1"), {}, 2, "there is no address '127.0.0.1.1' to listen on"),
        ((), {"SECRET": "abc"}, 2, "MONKEY_CODER_SECRET: must be 16 to 64 bytes in hexadecimal digits"),
        ((), {"REDIS_URL": "localhost:6379"}, 2, "MONKEY_CODER_REDIS_URL: must be an address such as redis://"),
        ((), {"CATALOG": "/no/such.yaml"}, 2, "/no/such.yaml"),
        (("--workers", "2"), {"CATALOG": "/no/such.yaml"}, 2, "/no/such.yaml"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    cli: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    settings: dict[str, str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: pytest.fail("it started"))
    for name, value in settings.items():
        monkeypatch.setenv(f"MONKEY_CODER_{name}", value)
    ended, out, err = cli("serve", "--port", str(free_port()), *arguments)
    assert (ended, out) == (code, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("policy", "set", "7"), 2, "error (unknown_policy): there is no policy 7"),
        (("policy", "export", "7", "folder"), 2, "error (unknown_policy): there is no policy 7"),
        (("policy", "show"), 1, "error (invalid_policy): no policy is served"),
        (("policy", "rollback"), 1, "error (no_earlier_policy): there is no earlier policy"),
        (("route", PROMPT, "--catalog", "/no/such.yaml"), 2, "error (invalid_catalog): /no/such.yaml: cannot be read"),
        (("keys", "revoke", "nobody"), 2, "error (unknown_key): no API key is 'nobody'"),
        (("catalog", "show", "no/such"), 2, "error (unknown_model): REF: 'no/such' is not in the catalog"),
        (("catalog", "remove", "no/such"), 2, "error (unknown_model): ref: 'no/such' is not in the catalog"),
        (("route", PROMPT, "--exclude", "no/such"), 2, "error (unknown_model): request.excluded_models[0]: 'no/such'"),
        (("evaluate", "--train", __file__, "--test", __file__), 1, "error (invalid_outcome_table): "),
    ],
)
def test_all_commands_say_what_is_wrong_in_one_way(cli: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    ended, out, err = cli(*arguments)
    assert (ended, out) == (code, "")
    assert err.startswith(words)
    assert err.count("\n") == 1


def test_a_policy_with_a_damaged_card_hides_no_other_policy(cli: Run, tmp_path: Path) -> None:
    with closing(open_store(tmp_path / "state", None, time.time)) as store:
        for card in (b"{", b"{}"):
            store.put_policy(b"", card)
        assert store.set_current_policy(2, None)
    code, out, err = cli("policy", "list", "--json")
    rows = json.loads(out)
    assert (code, [(row["policy"], row["current"]) for row in rows]) == (1, [(1, False), (2, True)])
    assert all(f"policy {row['policy']}" in row["problem"] and row["problem"] in err for row in rows)
    code, out, err = cli("policy", "list")
    assert (code, out.count("damaged")) == (1, 8)
    assert all(row["problem"] in err for row in rows)


def test_a_port_that_is_taken_is_named(cli: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = cli("serve", "--port", str(port))
    assert (code, out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in err
    assert "choose another --port" in err


def test_route_shows_the_choice_the_reason_and_the_runners_up(cli: Run) -> None:
    code, out, err = cli("route", PROMPT, "--exclude", "anthropic/claude-haiku-4-5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    chosen = lines[0].split()[0]
    assert "as developer" in lines[0]
    assert chosen in lines[1]
    assert "debugging" in lines[2]
    table = [line for line in lines if line.count("..") == 1]
    assert table[0].split()[0] == chosen
    assert table[0].rstrip().endswith("chosen")
    assert len(table) > 5
    utilities = [float(line.split()[-1]) for line in table[1:]]
    assert max(utilities) <= 1
    for heading in ("P(success)", "90% interval", "cost USD", "latency s", "utility"):
        assert heading in out
    assert "excluded anthropic/claude-haiku-4-5: excluded_model" in out


def test_the_table_stays_whole_in_a_narrow_window(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = cli("route", PROMPT)
    for word in ("P(success)", "90% interval", "cost USD", "utility", "chosen"):
        assert word in out


def test_route_prints_the_answer_of_the_api_as_json(cli: Run) -> None:
    code, out, err = cli("route", PROMPT, "--json", "--value-usd", "5", "--collapse", "consensus")
    assert (code, err) == (0, "")
    decision = RoutingDecision.model_validate_json(out)
    assert decision.collapse_strategy == "consensus"
    assert (decision.explored, decision.propensity) == (False, 1.0)


def test_options_reach_the_decision(cli: Run) -> None:
    def decided(*options: str) -> RoutingDecision:
        return RoutingDecision.model_validate_json(cli("route", PROMPT, "--json", *options)[1])

    first = decided()
    assert decided("--exclude", first.ref).ref != first.ref
    assert decided("--failed", first.ref).ref != first.ref
    last = first.alternatives[-1]
    assert decided("--allow", f"{last.provider}/{last.model}").ref == f"{last.provider}/{last.model}"
    assert decided("--task-type", "security").context_type == "security"
    assert decided("--strategy", "performance").strategy_used == "performance"
    assert decided("--max-cost-usd", "0.001").expected.cost_usd <= 0.001


def test_without_a_candidate_the_work_failed_and_each_exclusion_is_shown(cli: Run) -> None:
    code, out, err = cli("route", PROMPT, "--max-cost-usd", "0")
    assert (code, out) == (1, "")
    assert "error (no_eligible_model)" in err
    assert "excluded anthropic/claude-haiku-4-5: budget, " in err


def test_markup_in_a_message_is_shown_as_it_is(cli: Run) -> None:
    _, _, err = cli("route", PROMPT, "--strategy", "[bold]x[/]")
    assert "[bold]x[/]" in err


def test_a_catalog_of_ones_own_is_used(cli: Run, tmp_path: Path) -> None:
    model = {
        "context_window": 100_000,
        "max_output": 10_000,
        "quality": {"default": 0.5},
        "latency_s": 2.0,
        "sources": {"quality": "our own measurement"},
        "prices": {"input_mtok": 1.0, "output_mtok": 4.0},
    }
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"extends": "default", "models": {"me/mine": model}}))
    code, out, err = cli("route", PROMPT, "--json", "--allow", "me/mine", "--catalog", str(path))
    assert (code, err) == (0, "")
    assert json.loads(out)["provider"] == "me"


@pytest.mark.parametrize("content", [None, "models: 7"])
def test_a_catalog_that_cannot_be_used_is_named(cli: Run, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "models.yaml"
    if content is not None:
        path.write_text(content)
    code, out, err = cli("route", PROMPT, "--catalog", str(path))
    assert (code, out) == (2, "")
    assert "error (invalid_catalog)" in err
    assert str(path) in err


def test_settings_are_read_and_misspelt_ones_refused(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONKEY_CODER_COLLAPSE", "combined")
    assert json.loads(cli("route", PROMPT, "--json")[1])["collapse_strategy"] == "combined"
    monkeypatch.setenv("MONKEY_CODER_COLAPSE", "combined")
    code, out, err = cli("route", PROMPT)
    assert (code, out) == (2, "")
    assert "did you mean MONKEY_CODER_COLLAPSE?" in err


def test_a_state_directory_that_cannot_be_used_is_named(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(tmp_path / "file"))
    code, _, err = cli("route", PROMPT)
    assert code == 2
    assert str(tmp_path / "file") in err
    assert "MONKEY_CODER_STATE_DIR" in err


def test_a_damaged_secret_is_named_with_the_mend(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "secret").write_bytes(b"")
    code, _, err = cli("route", PROMPT)
    assert code == 2
    assert str(tmp_path / "state" / "secret") in err
    assert "delete it" in err


def test_as_a_process_answers_go_to_one_stream_and_errors_to_the_other(tmp_path: Path) -> None:
    good = command(tmp_path / "state", "route", PROMPT, "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["provider"]
    bad = command(tmp_path / "state", "route", b"caf\xe9")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "request.prompt" in bad.stderr
