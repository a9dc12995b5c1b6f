"""`monkey-coder train`: learn a policy from outcome tables, and publish it with its model card."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperCommand
from typing_extensions import override

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.commands.evaluate import repeat_options
from monkey_coder.errors import PolicyError, SettingsError
from monkey_coder.policies import open_shelf
from monkey_coder.publishing import AGENT_FILE, as_policy
from monkey_coder.quantum.policy_shelf import Said, Shelf
from monkey_coder.settings import Settings
from monkey_coder.storage.port import Store

if TYPE_CHECKING:  # torch takes seconds to import, and most commands do without it
    from monkey_coder.quantum.training_pipeline import Start, TrainedPolicy, TrainOptions
    from monkey_coder.quantum.value_training import Progress as Told

EXAMPLES: Final = """
Examples:

  monkey-coder train --train outcomes.jsonl.gz

  monkey-coder train --train a.jsonl b.jsonl --attempts 3 --verifier-noise 0.1 --preset small_data --no-publish

  monkey-coder train --train outcomes.jsonl.gz --model gpt-4o=openai/gpt-4o

Pause, resume and steer a run from another terminal with `monkey-coder policy`. What is written, and what the card
says: docs/reference/policies.md. Exit code: 0 good, 1 the work failed, 2 bad usage.
"""


class TrainCommand(TyperCommand):
    """Lets ``--train`` and ``--model`` take several values each."""

    SEVERAL: ClassVar = ("--train", "--model")

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option's name before each of its values first."""
        return super().parse_args(ctx, repeat_options(args, self.SEVERAL))


def train(
    train: Annotated[
        list[Path], typer.Option(help="Outcome tables to learn from; several may follow.", exists=True, dir_okay=False)
    ],
    attempts: Annotated[int, typer.Option(metavar="K", help="Most attempts of an episode.")] = 4,
    verifier_noise: Annotated[
        float, typer.Option(metavar="P", help="Probability that a verdict of the verifier is wrong, below 0.5.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    preset: Annotated[str, typer.Option(help="small_data, balanced or fast_online.")] = "balanced",
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=REF", help="Which catalog model a name of the tables is; several may follow."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="A directory of policies; default: the deployment's own, which serve."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Serve the new policy, or only keep it beside the others.")
    ] = True,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Go on from the value network of the current policy.")
    ] = False,
    catalog: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A catalog file of your own.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count and leave out bad lines of the tables.")] = False,
) -> None:
    """Learn a policy from outcome tables, and publish it with its model card."""
    settings = Settings.from_environment(os.environ)
    read = (catalog or settings.catalog, parse_models(model or ()), skip_bad)
    options = _options(preset, attempts, verifier_noise, seed)
    with open_shelf(settings, out) as (store, shelf):
        _run(train, read, options, store, shelf, publish=publish, go_on=go_on)


def _run(
    tables: Sequence[Path],
    read: tuple[Path | None, Mapping[str, str], bool],
    options: TrainOptions,
    store: Store,
    shelf: Shelf,
    *,
    publish: bool,
    go_on: bool,
) -> None:
    """Train on tables, read with a catalog, the names of its models in them, and patience with bad lines."""
    from monkey_coder.evaluation.training_tables import read_outcomes
    from monkey_coder.quantum.embedding import StaticEmbedder
    from monkey_coder.quantum.training_pipeline import train as train_policy
    from monkey_coder.quantum.training_wishes import WishControl, write_wishes

    told = Console(stderr=True, highlight=False, soft_wrap=True)
    catalog, models, skip_bad = read
    start = _start(shelf) if go_on else None
    with told.status("reading"):
        table = load_catalog(catalog).table()
        data = read_outcomes(tables, table, models, StaticEmbedder.load(), skip_bad=skip_bad)
    unlisted = sum(ref not in table.index for ref in data.table.refs)
    if unlisted == len(data.table):
        told.print(
            "warning: no model of the tables is in the catalog, so the policy would know none of the models it serves; "
            "say which is which with --model NAME=REF",
            markup=False,
        )
    write_wishes(store, stopped=False)
    control = WishControl(store, time.monotonic, time.sleep, lambda text: told.print(text, markup=False))
    with _bars(told) as progress:
        trained = train_policy(data, options, progress, control, start)
    number = shelf.put(*as_policy(trained, datetime.now(UTC)))
    if publish:
        shelf.set_current(number, Said("train", f"trained on {len(data):,} tasks"))
    _summary(Console(), trained, shelf, number, published=publish)


def parse_models(texts: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=provider/model``; a name may itself hold an equals sign.

    Raises:
        SettingsError: One is not of that form.
    """
    models = {}
    for text in texts:
        name, _, ref = text.rpartition("=")
        if not name or "/" not in ref:
            raise SettingsError(f"--model takes NAME=provider/model, not {text!r}")
        models[name] = ref
    return models


def _options(preset: str, attempts: int, noise: float, seed: int) -> TrainOptions:
    from monkey_coder.quantum.training_pipeline import preset as options_of

    try:
        return options_of(preset, attempts=attempts, noise=noise, seed=seed)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _start(shelf: Shelf) -> Start:
    """The agent of the current policy."""
    from monkey_coder.quantum.dqn_agent import DQNAgent
    from monkey_coder.quantum.training_pipeline import Start

    number = shelf.current()
    if number is None:
        raise PolicyError(f"there is no policy in {shelf.where} to go on from: train without --continue first")
    network, agent = shelf.load(number).parts.network, shelf.files(number).get(AGENT_FILE)
    if agent is None:
        raise PolicyError(f"policy {number} has no {AGENT_FILE} to go on from: train without --continue")
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / AGENT_FILE
        path.write_bytes(agent)
        return Start(DQNAgent.load(path), () if network is None else network.header.models)


@contextmanager
def _bars(console: Console) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        rows: dict[str, Any] = {}

        def told(what: str, done: int, steps: int, note: str) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what, note=note)
            bars.update(rows[what], completed=done, total=steps, note=note)

        yield told


def _summary(console: Console, trained: TrainedPolicy, shelf: Shelf, number: int, *, published: bool) -> None:
    card = trained.card
    gain = card["validation"]["gain_over_best_single"]
    table = Table(title=f"policy {number}", title_justify="left", show_header=False)
    for name, value in (
        ("tasks, models", f"{card['data']['tasks']:,}, {len(card['data']['models'])}"),
        ("held-out tasks", f"{card['validation']['tasks']:,}"),
        ("utility over the best single model", f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"),
        ("distance of foretold from seen success", f"{card['calibration']['calibration_error']:.3f}"),
        ("trust", ", ".join(f"{name} {value:.2f}" for name, value in trained.reliability.items())),
        ("value network", card["training"]["verdict"]),
        ("kept in", shelf.where),
        ("served", "yes: it is the current policy" if published else f"no: `monkey-coder policy set {number}` does"),
    ):
        table.add_row(name, value)
    console.print(table)
