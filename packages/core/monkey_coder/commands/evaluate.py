"""`monkey-coder evaluate`: compare routers on outcome tables, by rules that are the same for every router."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand
from typing_extensions import override

from monkey_coder.commands.complaining import complaining
from monkey_coder.errors import SettingsError
from monkey_coder.evaluation.analysis import analyse
from monkey_coder.evaluation.compare import Played, check_names, play_routers
from monkey_coder.evaluation.decisions import read_decisions, write_decisions
from monkey_coder.evaluation.learned import Learned, learned_routers
from monkey_coder.evaluation.preparation import Plan, Prepared, prepare
from monkey_coder.evaluation.protocol import ORACLE, RouterContext, Routers, TrainingView
from monkey_coder.evaluation.registry import builtin_routers
from monkey_coder.evaluation.report import print_report, write_json
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.training_data import OutcomeData

EXAMPLES: Final = """
Examples:

  monkey-coder evaluate --train outcomes.jsonl.gz --holdout 0.3

  monkey-coder evaluate --train a.jsonl b.jsonl --test c.jsonl --routers knn,ladder --attempts 3 --verifier-noise 0.1 --seeds 5 --json result.json --plot result.png

  monkey-coder evaluate --train outcomes.jsonl.gz --split 5 --placebo

Which figures are computed, and how: docs/reference/evaluation.md. Exit code: 0 good, 1 the work failed, 2 bad usage.
"""  # noqa: E501 - one command, one line


SMALL_DATA: Final = 600
"""Training rows below which learned routers train with the preset for little data."""


class EvaluateCommand(TyperCommand):
    """Lets ``--train`` and ``--prior`` take several values each: ``--train a b`` means ``--train a --train b``."""

    SEVERAL: ClassVar = ("--train", "--prior")

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option's name before each of its values first."""
        return super().parse_args(ctx, repeat_options(args, self.SEVERAL))


def repeat_options(args: list[str], several: tuple[str, ...]) -> list[str]:
    """Put the option's name before every further value that follows it."""
    out: list[str] = []
    current, values = "", 0
    for arg in args:
        if arg.startswith("--"):
            name, given, _ = arg.partition("=")
            current, values = (name if name in several else ""), int(bool(given))
        elif current:
            if values:
                out.append(current)
            values += 1
        out.append(arg)
    return out


def all_routers() -> Routers:
    """Every router that can be named, but for the oracle; what is slow to import is imported by its factory."""
    return {**builtin_routers(), **learned_routers(_train)}


def _train(data: OutcomeData, view: TrainingView) -> Learned:
    from monkey_coder.quantum.training_pipeline import preset, train  # loads torch: only when a learned router competes

    size = "small_data" if len(data) < SMALL_DATA else "balanced"
    trained = train(data, preset(size, attempts=view.attempts, noise=view.noise))
    return Learned(trained.parts, trained.memory, trained.reliability)


def register(app: typer.Typer) -> None:
    """Mount the command on an application."""
    app.command("evaluate", cls=EvaluateCommand, epilog=EXAMPLES)(evaluate)


def evaluate(
    train: Annotated[
        list[Path], typer.Option(help="Tables to learn from; several may follow.", exists=True, dir_okay=False)
    ],
    test: Annotated[Path | None, typer.Option(help="The table to measure on.", exists=True, dir_okay=False)] = None,
    split: Annotated[
        int | None, typer.Option(metavar="K", help="Instead of --test: cross-validate one table over K folds.")
    ] = None,
    holdout: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Instead of --test: hold out this share of one table.")
    ] = None,
    routers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help=f"Which routers; default: all, {ORACLE} included; quantum:COLLAPSE names a collapse.",
        ),
    ] = None,
    attempts: Annotated[int, typer.Option(metavar="K", help="Most attempts of an episode.")] = 1,
    verifier_noise: Annotated[
        float, typer.Option(metavar="P", help="Probability that a verdict of the verifier is wrong.")
    ] = 0.0,
    seeds: Annotated[int, typer.Option(metavar="N", help="Repetitions: seeds 0 to N - 1.")] = 1,
    prior: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=P", help="Prior success of a model without training rows; lets it take part."),
    ] = None,
    json: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all figures here, as JSON.")] = None,
    decisions: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write all attempts here, as JSON lines (.gz: compressed).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Draw the frontiers here, as PNG.")] = None,
    rescore: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Route nothing: score the attempts of such a file again."),
    ] = None,
    placebo: Annotated[
        bool, typer.Option("--placebo", help="Shuffle which model got which test outcome: no router may then win.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count and leave out bad lines of the tables.")] = False,
) -> None:
    """Compare routers on outcome tables, by rules that are the same for every router."""
    errors = Console(stderr=True)
    with complaining():
        plan = Plan(
            train=tuple(train),
            test=test,
            folds=split,
            holdout=holdout,
            attempts=attempts,
            noise=verifier_noise,
            seeds=seeds,
            priors=parse_priors(prior or ()),
            placebo=placebo,
            skip_bad=skip_bad,
        )
        if rescore is not None:
            _check_rescore(routers, decisions)
        check_targets(json, decisions, plot)
        names = _names(routers)
        prepared = prepare(plan)
        played = read_decisions(rescore, prepared) if rescore is not None else _play(prepared, names, errors)
        with errors.status("computing intervals"):
            comparison = analyse(prepared, played)
        print_report(Console(), comparison)
        if json is not None:
            write_json(json, comparison)
        if decisions is not None:
            write_decisions(decisions, prepared, played)
        if plot is not None:
            from monkey_coder.evaluation.plot import write_plot  # slow to import, and rarely asked for

            write_plot(plot, comparison)


def parse_priors(texts: Iterable[str]) -> dict[str, float]:
    """Read ``MODEL=0.6``; a model name may itself hold an equals sign.

    Raises:
        SettingsError: One is not of that form.
    """
    priors: dict[str, float] = {}
    for text in texts:
        model, _, value = text.rpartition("=")
        try:
            priors[model] = float(value)
        except ValueError as error:
            raise SettingsError(f"--prior takes MODEL=0.6, not {text!r}") from error
        if not model:
            raise SettingsError(f"--prior takes MODEL=0.6, not {text!r}")
    return priors


def _names(routers: str | None) -> tuple[str, ...]:
    known = all_routers()
    names = (
        (*(name for name in known if ":" not in name), ORACLE)
        if routers is None
        else tuple(n.strip() for n in routers.split(",") if n.strip())
    )
    check_names(names, known)
    return names


def _check_rescore(routers: str | None, decisions: Path | None) -> None:
    if routers is not None or decisions is not None:
        raise SettingsError("--rescore reads the attempts: leave out --routers and --decisions")


def check_targets(*paths: Path | None) -> None:
    """Refuse files that cannot be written before the long work, not after it.

    Args:
        paths: Files that are going to be written; None for those that are not asked for.

    Raises:
        SettingsError: The folder of one does not exist.
    """
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise SettingsError(f"{path}: there is no folder {path.parent}; make it first")


def _play(prepared: Prepared, names: Sequence[str], errors: Console) -> dict[str, Played]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        return play_routers(
            prepared,
            names,
            all_routers(),
            RouterContext(StaticEmbedder.load),
            lambda what, done, steps: bar.update(task, description=what, completed=done, total=steps),
        )
