"""`monkey-coder route --why`: the explanation as a person and as a program get it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from monkey_coder.commands.app import run
from monkey_coder.models import RoutingDecision
from monkey_coder.quantum.explanation import Explanation

PROMPT = "Fix the race condition in our LRU cache"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in [name for name in os.environ if name.startswith("MONKEY_CODER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MONKEY_CODER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")

    def called(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return called


def test_a_program_gets_answer_and_explanation_in_one_document(cli: Run) -> None:
    code, out, err = cli("route", PROMPT, "--why", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    told = Explanation.model_validate(document.pop("explanation"), strict=False)
    decision = RoutingDecision.model_validate(document, strict=False)
    assert (told.decision_id, told.served, told.instead) == (decision.decision_id, decision.ref, None)
    assert any(flip for axis in told.flips for flip in (axis.lower, axis.higher))


def test_a_person_reads_why_what_each_strategy_thinks_and_where_it_flips(cli: Run) -> None:
    _, plain, _ = cli("route", PROMPT)
    code, out, err = cli("route", PROMPT, "--why")
    assert (code, err) == (0, "")
    assert "Where it would flip" not in plain
    for heading in ("Why\n", "What each strategy thinks, in utility\n", "Where it would flip\n"):
        assert f"\n{heading}" in out
    assert "Why not" not in out
    assert "would have been chosen instead of" in out
    assert "cost_efficient" in out


def test_why_not_that_one(cli: Run) -> None:
    document = json.loads(cli("route", PROMPT, "--json")[1])
    other = f"{document['alternatives'][4]['provider']}/{document['alternatives'][4]['model']}"
    code, out, _ = cli("route", PROMPT, "--instead", other)
    assert code == 0
    assert f"\nWhy not {other}\nIts weighted utility is " in out
    code, out, _ = cli("route", PROMPT, "--instead", other, "--exclude", other)
    assert "It was excluded by the gate excluded_model: named in request.excluded_models." in out
    assert f"Moving the price of {other} could not change the choice." in out


def test_what_cannot_flip_is_told_with_the_range_that_was_tried(cli: Run) -> None:
    document = json.loads(cli("route", PROMPT, "--json")[1])
    only = f"{document['provider']}/{document['model']}"
    _, out, _ = cli("route", PROMPT, "--why", "--allow", only)
    assert "It is the only candidate." in out
    assert "Nothing flips with the quality floor between 0 and 1 (it is 0)." in out
    assert f"Nothing flips with the price of {only} between 0 and " in out


def test_an_unknown_model_is_bad_usage(cli: Run) -> None:
    code, out, err = cli("route", PROMPT, "--instead", "no/such")
    assert (code, out) == (2, "")
    assert "--instead: 'no/such' is not in the catalog" in err
