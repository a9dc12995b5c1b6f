"""All subcommands under one name, and one way to end: exit 0 good, 1 the work failed, 2 bad usage."""

from __future__ import annotations

from collections.abc import Sequence

import click
import typer
from rich.console import Console

from monkey_coder import __version__
from monkey_coder.commands import catalog, evaluate, route, serve
from monkey_coder.errors import InvalidRequestError, RouterError, SettingsError

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
app.command()(evaluate.evaluate)


@app.callback(invoke_without_command=True)
def about(version: bool = typer.Option(False, "--version", help="Say the version and end.")) -> None:
    """Which language model should take this task next?"""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors of ours become one line on standard error."""
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="monkey-coder", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except (SettingsError, InvalidRequestError) as error:
        return _complain(error, 2)
    except RouterError as error:
        return _complain(error, 1)
    return code if isinstance(code, int) else 0


def _complain(error: RouterError, code: int) -> int:
    Console(stderr=True).print(f"[red]error[/red] ({error.code}): {error}", highlight=False, soft_wrap=True)
    return code
