"""All subcommands under one name, and one way to end: exit 0 good, 1 the work failed, 2 bad usage."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from monkey_coder import __version__
from monkey_coder.commands import cache, catalog, evaluate, keys, learn, policy, route, serve, simulate, train
from monkey_coder.commands.complaining import complain
from monkey_coder.errors import RouterError

app = typer.Typer(
    name="monkey-coder",
    help="Which language model should take this task next?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(catalog.app, name="catalog")
app.command()(serve.serve)
app.command()(route.route)
app.command()(learn.learn)
evaluate.register(app)
app.command(cls=train.TrainCommand, epilog=train.EXAMPLES)(train.train)
app.command(epilog=simulate.EXAMPLES)(simulate.simulate)
app.add_typer(policy.app, name="policy")
app.add_typer(keys.app, name="keys")
app.add_typer(cache.app, name="cache")


@app.callback(invoke_without_command=True)
def about(version: bool = typer.Option(False, "--version", help="Say the version and end.")) -> None:
    """Which language model should take this task next?"""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors of ours become one line on standard error."""
    try:
        typer.main.get_command(app).main(list(arguments), prog_name="monkey-coder")
    except SystemExit as end:  # how typer ends every command, after it has told what was wrong with the usage
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except RouterError as error:
        return complain(error)
    return 0
