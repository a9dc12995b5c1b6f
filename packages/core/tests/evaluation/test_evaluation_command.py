import json
import subprocess
import sys

import matplotlib.image
import pytest
import typer
from typer.testing import CliRunner

from monkey_coder.commands.evaluate import EvaluateCommand, parse_priors, register, repeat_options
from monkey_coder.errors import SettingsError


@pytest.fixture(scope="module")
def run():
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)  # so that the command keeps its name
    return lambda *args: CliRunner().invoke(app, ["evaluate", *map(str, args)])


def test_one_run_writes_all_that_was_asked_for(run, write, random_rows, tmp_path):
    path = write(random_rows(80))
    out = [tmp_path / name for name in ("a.json", "d.jsonl", "p.png", "b.json")]
    names = ("random", "cheapest", "best_single", "gary8d", "ladder", "knn", "oracle")
    settings = ("--train", path, "--split", 2, "--attempts", 2, "--verifier-noise", 0.1, "--seeds", 2)
    result = run(*settings, "--routers", ",".join(names), "--json", out[0], "--decisions", out[1], "--plot", out[2])
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in names)
    document = json.loads(out[0].read_text())
    assert (document["tasks"], document["split"], document["seeds"]) == (80, 2, 2)
    assert len(out[1].read_text().splitlines()) == 80 * 9 * 2 * len(names)
    assert matplotlib.image.imread(out[2]).shape[1] > 1000
    assert run(*settings, "--rescore", out[1], "--json", out[3]).exit_code == 0
    assert json.loads(out[3].read_text()) == document


def test_a_table_without_costs_two_models_and_the_placebo(run, write, random_rows, tmp_path):
    rows = random_rows(80, costs=False)
    for each in rows:
        del each["scores"]["dull"]
    result = run("--train", write(rows), "--holdout", 0.4, "--placebo", "--plot", tmp_path / "p.svg")
    assert result.exit_code == 0, result.output
    assert "Placebo" in result.stdout
    assert "APGR" in result.stdout
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_several_training_tables_after_one_option(run, write, random_rows):
    tables = [write(random_rows(30, seed=i), f"{i}.jsonl") for i in range(3)]
    one = run("--train", tables[0], tables[1], "--test", tables[2], "--routers", "cheapest,oracle")
    two = run("--train", tables[0], "--train", tables[1], "--test", tables[2], "--routers", "cheapest,oracle")
    assert (one.exit_code, one.stdout) == (0, two.stdout)


def test_values_are_repeated_only_after_options_that_take_several():
    several = EvaluateCommand.SEVERAL
    given = ["--train", "a", "b", "--test", "c", "--train=d", "e", "--prior", "m=1", "n=2", "--placebo"]
    expected = "--train a --train b --test c --train=d --train e --prior m=1 --prior n=2 --placebo"
    assert " ".join(repeat_options(given, several)) == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "in one way"),
        (("--split", 3, "--routers", "nobody"), "no router named nobody; there are random"),
        (("--split", 3, "--prior", "cheap"), "MODEL=0.6"),
        (("--split", 3, "--json", "/nowhere/at/all.json"), "there is no folder"),
        (("--split", "many"), "--split"),
        (("--test", "/nowhere.jsonl"), "nowhere"),
    ],
)
def test_bad_usage_is_exit_code_2_and_says_what_is_wrong(run, write, random_rows, args, message):
    result = run("--train", write(random_rows(20)), *args)
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ").replace("│", "")


def test_rescoring_chooses_no_routers(run, write, random_rows):
    path = write(random_rows(20))
    result = run("--train", path, "--split", 2, "--rescore", path, "--routers", "cheapest")
    assert (result.exit_code, "leave out --routers" in result.output) == (2, True)
    wrong = run("--train", path, "--split", 2, "--rescore", path)
    assert (wrong.exit_code, "line 1: lacks the key 'router'" in wrong.output) == (1, True)


def test_a_bad_table_is_exit_code_1_unless_bad_lines_are_skipped(run, write, random_rows):
    path = write(random_rows(40))
    path.write_bytes(path.read_bytes() + b"{broken\n")
    result = run("--train", path, "--split", 2, "--routers", "cheapest")
    assert (result.exit_code, "line 41" in result.output) == (1, True)
    result = run("--train", path, "--split", 2, "--routers", "cheapest", "--skip-bad")
    assert (result.exit_code, "1 bad lines" in result.output) == (0, True)


def test_help_shows_every_option_and_examples(run):
    result = run("--help")
    assert result.exit_code == 0
    for text in ("--train", "--verifier-noise", "--placebo", "--rescore", "Examples", "--holdout 0.3"):
        assert text in result.output


def test_priors_may_hold_an_equals_sign_in_the_name():
    assert parse_priors(["a=b=0.5", "c=1"]) == {"a=b": 0.5, "c": 1.0}
    with pytest.raises(SettingsError):
        parse_priors(["=0.5"])


def test_importing_the_command_does_not_import_torch():
    code = "import sys, monkey_coder.commands.evaluate; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
