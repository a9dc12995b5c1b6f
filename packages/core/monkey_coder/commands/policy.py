"""`monkey-coder policy`: look at trained policies, choose the one that is served, and steer a training run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from monkey_coder.errors import PolicyError
from monkey_coder.policies import POLICIES
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.model_card import to_markdown
from monkey_coder.quantum.training_control_file import CONTROL_FILE, write_wishes
from monkey_coder.quantum.training_monitor import Overrides
from monkey_coder.settings import Settings

app = typer.Typer(
    help="Look at trained policies, choose the one that is served, and steer a training run.", no_args_is_help=True
)

Out = Annotated[
    Path | None, typer.Option("--out", file_okay=False, help="Directory of policies; default: in the state dir.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_policies(out: Out = None, as_json: AsJson = False) -> None:
    """Show all policies, and which one is served."""
    root = _root(out)
    current = bundles.current(root)
    rows = [_summary(root, number, current) for number in bundles.numbers(root)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"no policy in {root}: make one with `monkey-coder train`")
        return
    table = Table("", "policy", "created", "tasks", "models", "attempts", "over best single")
    for row in rows:
        gain = row["gain_over_best_single"]
        table.add_row(
            "*" if row["current"] else "",
            str(row["policy"]),
            str(row["created"]),
            str(row["tasks"]),
            str(row["models"]),
            str(row["attempts"]),
            "" if gain is None else f"{gain:+.4f}",
        )
    Console().print(table)


@app.command()
def show(
    number: Annotated[int | None, typer.Argument(help="Which; default: the one that is served.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Show a policy's model card, after checking all its files."""
    root = _root(out)
    number = bundles.current(root) if number is None else number
    if number is None:
        raise PolicyError(f"no policy is served from {root}: name one, or make one with `monkey-coder train`")
    card = bundles.load_policy(root, number).card
    if as_json:
        typer.echo(json.dumps(card, indent=2))
    else:
        Console().print(Markdown(to_markdown(card, number)))


@app.command("set")
def set_policy(number: Annotated[int, typer.Argument(help="Which.")], out: Out = None) -> None:
    """Serve another policy, after checking all its files."""
    root = _root(out)
    bundles.load_policy(root, number)
    bundles.set_current(root, number)
    typer.echo(f"policy {number} is served")


@app.command()
def rollback(out: Out = None) -> None:
    """Go back to the policy that was served before."""
    typer.echo(f"policy {bundles.rollback(_root(out))} is served")


@app.command()
def pause() -> None:
    """Hold a training run at its next step."""
    _tell(paused=True)


@app.command()
def resume() -> None:
    """Let a paused training run go on."""
    _tell(paused=False)


@app.command()
def stop() -> None:
    """End a training run at its next step, with the best weights so far."""
    _tell(stopped=True)


@app.command()
def tune(
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the schedule's, up to 1.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Share of random choices instead of the schedule's.")] = None,
    schedule: Annotated[bool, typer.Option("--schedule", help="Both by the schedule again.")] = False,
) -> None:
    """Override the learning rate or the exploration of a training run."""
    if schedule == (learning_rate is not None or epsilon is not None):
        raise typer.BadParameter("give --learning-rate, --epsilon or both; or --schedule alone")
    given = {"learning_rate": learning_rate, "epsilon": epsilon}
    _tell(**(given if schedule else {name: value for name, value in given.items() if value is not None}))


def _root(out: Path | None) -> Path:
    return Settings.from_environment(os.environ).state_dir / POLICIES if out is None else out


def _tell(**changes: Any) -> None:  # noqa: ANN401 - fields of Overrides
    wishes = write_wishes(Settings.from_environment(os.environ).state_dir / CONTROL_FILE, **changes)
    typer.echo(_in_words(wishes))


def _in_words(wishes: Overrides) -> str:
    state = "stopped" if wishes.stopped else "paused" if wishes.paused else "going on"
    knobs = {"learning rate": wishes.learning_rate, "epsilon": wishes.epsilon}
    said = [f"{name} {'by schedule' if value is None else f'{value:g}'}" for name, value in knobs.items()]
    return f"training: {state}, {', '.join(said)}"


def _summary(root: Path, number: int, current: int | None) -> dict[str, Any]:
    path = bundles.directory_of(root, number) / "card.json"
    try:
        card = json.loads(path.read_bytes())
        return {
            "policy": number,
            "current": number == current,
            "created": card.get("created"),
            "tasks": card["data"]["tasks"],
            "models": len(card["data"]["models"]),
            "attempts": card["options"]["attempts"],
            "gain_over_best_single": card["validation"]["gain_over_best_single"]["mean"],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PolicyError(f"{path} cannot be read ({error!r}): restore it, or delete the policy") from error
