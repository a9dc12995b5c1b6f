"""`monkey-coder serve`: the web process."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer
import uvicorn

from monkey_coder.bootstrap import deployment_secret, plugged_in_strategies
from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.errors import SettingsError
from monkey_coder.settings import Settings


class LogLevel(StrEnum):
    """How much the server says."""

    critical = "critical"
    error = "error"
    warning = "warning"
    info = "info"
    debug = "debug"


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; a loopback address unless keys are set.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Web processes.")] = 1,
    log_level: Annotated[LogLevel, typer.Option(help="How much the server says.")] = LogLevel.info,
) -> None:
    """Answer routing requests over HTTP until interrupted; requests in flight are finished first."""
    given = {} if host is None else {"host": host}
    settings = Settings.from_environment(os.environ).model_copy(update=given)
    settings.require_safe_address()
    require_free_port(settings.host, port)
    require_what_processes_open(settings)
    os.environ.update(settings.to_environment())  # worker processes read their settings there
    try:
        uvicorn.run(
            "monkey_coder.app.main:create_app_from_environment",
            factory=True,
            host=settings.host,
            port=port,
            workers=workers,
            loop="uvloop",
            http="httptools",
            log_level=log_level.value,
            access_log=False,
            backlog=4096,
            timeout_graceful_shutdown=10,
            server_header=False,
            date_header=False,
        )
    except SystemExit as end:  # uvicorn's own codes for a failed start
        raise typer.Exit(1 if end.code else 0) from end


def require_what_processes_open(settings: Settings) -> None:
    """Find out what the web processes would fail on, where it can still be said in one line.

    Raises:
        CatalogError: The catalog cannot be used.
        SettingsError: The state directory or an installed strategy cannot be used.
    """
    load_catalog(settings.catalog)
    deployment_secret(settings.state_dir)
    plugged_in_strategies()


def require_free_port(host: str, port: int) -> None:
    """Find out before anything is loaded whether somebody else listens there.

    Raises:
        SettingsError: The port cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what listens there, or choose another --port"
            ) from error
