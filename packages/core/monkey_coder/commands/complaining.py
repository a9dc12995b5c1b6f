"""How commands say what went wrong: one line on standard error, and exit code 1 (the work failed) or 2 (bad usage)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from monkey_coder.errors import (
    CatalogError,
    InvalidRequestError,
    NoEligibleModelError,
    RouterError,
    SettingsError,
    UnknownKeyError,
    UnknownModelError,
    UnknownPolicyError,
    UnknownStrategyError,
)

BAD_USAGE = (
    CatalogError,
    SettingsError,
    InvalidRequestError,
    UnknownKeyError,
    UnknownModelError,
    UnknownPolicyError,
    UnknownStrategyError,
)


class FileError(RouterError):
    """A file that cannot be read or written; the message is the system's and names it."""

    code = "unusable_file"


def complain(error: RouterError, subject: tuple[type[RouterError], ...] = ()) -> int:
    """Say what went wrong, and return the exit code.

    Args:
        error: What went wrong.
        subject: Errors that are the command's own findings, so that its work failed (1) and its usage was good.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[red]error[/red] ({error.code}): {escape(str(error))}")
    if isinstance(error, NoEligibleModelError):
        for exclusion in error.excluded:
            said = f"excluded {exclusion.model}: {exclusion.reason}, {exclusion.detail}"
            console.print(said, style="dim", markup=False)
    return 2 if isinstance(error, BAD_USAGE) and not isinstance(error, subject) else 1


@contextmanager
def complaining(*subject: type[RouterError]) -> Iterator[None]:
    """End a command whose block raises an error of ours, or of a file; `subject` as of `complain`."""
    try:
        yield
    except RouterError as error:
        raise typer.Exit(complain(error, subject)) from error
    except OSError as error:
        raise typer.Exit(complain(FileError(str(error)))) from error
