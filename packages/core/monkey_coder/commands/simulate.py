"""`monkey-coder simulate`: let the engine live through a simulated month, and say what it learned."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monkey_coder.commands.evaluate import check_targets

if TYPE_CHECKING:
    from monkey_coder.simulation.run import Nightly

EXAMPLES: Final = """
Examples:

  monkey-coder simulate --days 30

  monkey-coder simulate --seeds 1 --learn

  monkey-coder simulate --seed 7 --seeds 10 --plot month.png --json month.json --report

The simulated world is described in docs/reference/simulation.md. Exit code: 0 good, 1 the work failed, 2 bad usage.
"""


def simulate(
    days: Annotated[int, typer.Option(min=2, max=3650, help="Simulated days.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of the first world.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Worlds: this seed and those after it.")] = 3,
    tasks_per_day: Annotated[int, typer.Option(min=1, max=100_000, help="Tasks a day, on average.")] = 200,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn/--no-learn", help="Whether the learner, too, trains at night; minutes of computing per world."
        ),
    ] = False,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Write a picture here.")] = None,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures here.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Show every day.")] = False,
) -> None:
    """Let the engine live through simulated days with known truth, and compare it with what was possible."""
    check_targets(plot, json)
    from monkey_coder.simulation.report import Report, seeds_from, write_json
    from monkey_coder.simulation.run import build_world, live

    told = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    lives = []
    with Progress(*columns, console=told) as progress:
        bar = progress.add_task("days", total=2 * days * seeds)
        for number in seeds_from(seed, seeds):
            progress.update(bar, description=f"seed {number}")
            with TemporaryDirectory(prefix="monkey-coder-simulation-") as folder:
                world = build_world(number, days, tasks_per_day)
                nightly = _nightly(number, progress.console) if learn else None
                lives.append(live(world, Path(folder), lambda _: progress.advance(bar), nightly))
    result = Report(tuple(lives))
    result.print(Console(highlight=False, soft_wrap=True), daily=report)
    if json is not None:
        write_json(json, result)
    if plot is not None:
        from monkey_coder.simulation.plot import write_plot

        write_plot(plot, result)


def _nightly(seed: int, told: Console) -> Nightly:
    from monkey_coder.simulation.night import learning  # loads torch: only when the learner takes part

    return learning(seed, lambda line: told.print(f"seed {seed}, {line}", style="dim"))
