"""`monkey-coder policy`: look at trained policies, choose the one that is served, and steer a training run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from monkey_coder.commands.complaining import complain
from monkey_coder.errors import PolicyError
from monkey_coder.policies import open_shelf
from monkey_coder.quantum.model_card import summary, to_markdown
from monkey_coder.quantum.policy_shelf import Said, Shelf, StoreShelf
from monkey_coder.quantum.training_monitor import Overrides
from monkey_coder.quantum.training_wishes import write_wishes
from monkey_coder.settings import Settings

app = typer.Typer(
    help="Look at trained policies, choose the one that is served, and steer a training run.", no_args_is_help=True
)

Out = Annotated[
    Path | None, typer.Option("--out", file_okay=False, help="A directory of policies; default: the deployment's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_policies(out: Out = None, as_json: AsJson = False) -> None:
    """Show all policies, and which one is served; exit code 1 where one is damaged."""
    with open_shelf(_settings(), out) as (_, shelf):
        current, where = shelf.current(), shelf.where
        rows = [_row(shelf, number, current) for number in shelf.numbers()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        Console().print(_table(rows))
    else:
        typer.echo(f"no policy in {where}: make one with `monkey-coder train`")
    damaged = [PolicyError(row["problem"]) for row in rows if "problem" in row]
    if damaged:
        raise typer.Exit(max(map(complain, damaged)))


@app.command()
def show(
    number: Annotated[int | None, typer.Argument(help="Which; default: the one that is served.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Show a policy's model card, after checking all its files."""
    with open_shelf(_settings(), out) as (_, shelf):
        number = shelf.current() if number is None else number
        if number is None:
            raise PolicyError(
                f"no policy is served from {shelf.where}: name one, or make one with `monkey-coder train`"
            )
        card = shelf.load(number).card
    if as_json:
        typer.echo(json.dumps(card, indent=2))
    else:
        Console().print(Markdown(to_markdown(card, number)))


@app.command("set")
def set_policy(number: Annotated[int, typer.Argument(help="Which.")], out: Out = None, as_json: AsJson = False) -> None:
    """Serve another policy, after checking all its files."""
    with open_shelf(_settings(), out) as (_, shelf):
        shelf.load(number)
        shelf.set_current(number, Said("operator", "chosen by hand"))
    _served(number, as_json)


class Back(StrEnum):
    """Where `rollback` may go, but to the policy before."""

    NONE = "none"


@app.command()
def rollback(
    to: Annotated[Back | None, typer.Option("--to", help="`none`: serve without a policy.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Go back to the policy that was served before, or to none."""
    said, number = Said("operator", "rolled back by hand"), None
    if to is not None and out is not None:
        raise typer.BadParameter("nothing is served from a directory: leave out --to, or --out")
    with open_shelf(_settings(), out) as (store, shelf):
        if to is None:
            number = shelf.rollback(said)
        else:
            StoreShelf(store, time.time).withdraw(said)
    _served(number, as_json)


@app.command()
def export(
    number: Annotated[int, typer.Argument(help="Which.")],
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made if it is missing.")],
    out: Out = None,
) -> None:
    """Write all files of a policy into a folder, with the plots of its card."""
    with open_shelf(_settings(), out) as (_, shelf):
        files = {**_plots(shelf, number), **shelf.files(number)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    typer.echo(f"policy {number}: {len(files)} files in {folder}")


@app.command()
def pause(as_json: AsJson = False) -> None:
    """Hold the learner, and every training run, at the next step."""
    _tell(as_json, paused=True)


@app.command()
def resume(as_json: AsJson = False) -> None:
    """Let the learner and paused training runs go on."""
    _tell(as_json, paused=False)


@app.command()
def stop(as_json: AsJson = False) -> None:
    """End a training run at its next step, with the best weights so far."""
    _tell(as_json, stopped=True)


@app.command()
def tune(
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the schedule's, up to 1.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Share of random choices instead of the schedule's.")] = None,
    schedule: Annotated[bool, typer.Option("--schedule", help="Both by the schedule again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Override the learning rate or the exploration of a training run."""
    if schedule == (learning_rate is not None or epsilon is not None):
        raise typer.BadParameter("give --learning-rate, --epsilon or both; or --schedule alone")
    given = {"learning_rate": learning_rate, "epsilon": epsilon}
    _tell(as_json, **(given if schedule else {name: value for name, value in given.items() if value is not None}))


def _settings() -> Settings:
    return Settings.from_environment(os.environ)


def _row(shelf: Shelf, number: int, current: int | None) -> dict[str, Any]:
    """What a list says of a policy; one with a damaged card must not hide the others."""
    try:
        return summary(shelf.card(number), number, current)
    except PolicyError as error:
        return {"policy": number, "current": number == current, "problem": str(error)}


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("", "policy", "created", "tasks", "models", "attempts", "over best single")
    for row in rows:
        gain = row.get("gain_over_best_single")
        table.add_row(
            "*" if row["current"] else "",
            str(row["policy"]),
            *(str(row.get(name, "damaged")) for name in ("created", "tasks", "models", "attempts")),
            "" if gain is None else f"{gain:+.4f}",
        )
    return table


def _plots(shelf: Shelf, number: int) -> dict[str, bytes]:
    from monkey_coder.quantum.training_plots import draw_card  # here: matplotlib is heavy

    return draw_card(shelf.load(number).card)


def _served(number: int | None, as_json: bool) -> None:
    words = "no policy is served" if number is None else f"policy {number} is served"
    typer.echo(json.dumps({"current": number}) if as_json else words)


def _tell(as_json: bool, **changes: Any) -> None:  # noqa: ANN401 - fields of Overrides
    with open_shelf(_settings(), None) as (store, _):
        wishes = write_wishes(store, **changes)
    typer.echo(json.dumps(asdict(wishes)) if as_json else _in_words(wishes))


def _in_words(wishes: Overrides) -> str:
    state = "stopped" if wishes.stopped else "paused" if wishes.paused else "going on"
    knobs = {"learning rate": wishes.learning_rate, "epsilon": wishes.epsilon}
    said = [f"{name} {'by schedule' if value is None else f'{value:g}'}" for name, value in knobs.items()]
    return f"training: {state}, {', '.join(said)}"
