"""`monkey-coder serve`: the web process."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Annotated, Final

import typer
import uvicorn
from typing_extensions import override
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from monkey_coder.bootstrap import plugged_in_strategies
from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.deployment import local_secret
from monkey_coder.errors import SettingsError
from monkey_coder.key_ring import FILE_NAME, KeyRing
from monkey_coder.learner_child import learning_beside
from monkey_coder.listening import CAN_SHARE, SharedPort
from monkey_coder.quantum.metrics_exposition import DIRECTORY_VARIABLE
from monkey_coder.settings import Settings
from monkey_coder.storage.absence import open_or_do_without

KEEP_ALIVE_S: Final = 75
"""How long a connection may be idle: longer than those who keep pools of them (5 s in many HTTP clients, 60 s in many
load balancers), for who closes one that the other side is about to use makes a request fail."""


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
    learn: Annotated[
        bool | None,
        typer.Option("--learn/--no-learn", help="Start a learner beside; default: as MONKEY_CODER_LEARN says."),
    ] = None,
) -> None:
    """Answer routing requests over HTTP until interrupted; requests in flight are finished first."""
    given: dict[str, object] = {} if host is None else {"host": host}
    if learn is not None:
        given["learn"] = learn
    settings = Settings.from_environment(os.environ).model_copy(update=given)
    require_known_host(settings.host)
    if not settings.on_loopback:
        settings.require_safe_address(keyed=has_keys(settings))
    require_free_port(settings.host, port)
    require_what_processes_open(settings)
    os.environ.update(settings.to_environment())  # worker processes read their settings there
    try:
        with sharing_metrics(workers), learning_beside(time.monotonic) if settings.learn else nullcontext():
            run(settings, port, workers, log_level)
    except SystemExit as end:  # uvicorn's own codes for a failed start
        raise typer.Exit(1 if end.code else 0) from end


def run(settings: Settings, port: int, workers: int, log_level: LogLevel) -> None:
    """Serve until interrupted.

    Raises:
        SystemExit: The server could not start.
    """
    config = uvicorn.Config(
        "monkey_coder.app.main:create_app_from_environment",
        factory=True,
        host=settings.host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="monkey_coder.app.http_protocol:RoutingProtocol",
        proxy_headers=False,
        log_level=log_level.value,
        access_log=False,
        backlog=4096,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=10,
        server_header=False,
        date_header=False,
    )
    if workers > 1:
        bound = config.bind_socket()
        supervisor = Multiprocess(config, sockets=[SharedPort.keeping(bound) if CAN_SHARE else bound])
        supervisor.run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    else:
        server = ImpatientServer(config)
        with suppress(KeyboardInterrupt):  # raised once more after all requests were answered
            server.run()
        failed = not server.started
    if failed:
        raise SystemExit(STARTUP_FAILURE)


class ImpatientServer(uvicorn.Server):
    """Ends at once when it is interrupted a second time, without a word about every request that this cuts off."""

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal: the first one asks to finish what was begun."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


@contextmanager
def sharing_metrics(workers: int) -> Iterator[None]:
    """Give several processes a directory to add up their metrics in; one alone keeps them in memory.

    A directory that the environment names already is used as it is, without what was left there.

    Raises:
        SettingsError: That directory cannot be used.
    """
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        try:
            Path(given).mkdir(parents=True, exist_ok=True)
            for left in Path(given).glob("*.db"):
                left.unlink()
        except OSError as error:
            raise SettingsError(
                f"{DIRECTORY_VARIABLE}={given} cannot be used ({error.strerror}); name another directory, or unset it"
            ) from error
        yield
    elif workers == 1:
        yield
    else:
        with TemporaryDirectory(prefix="monkey-coder-metrics-", ignore_cleanup_errors=True) as directory:
            os.environ[DIRECTORY_VARIABLE] = directory  # worker processes import prometheus_client after this
            try:
                yield
            finally:
                del os.environ[DIRECTORY_VARIABLE]


def has_keys(settings: Settings) -> bool:
    """Whether there are API keys: in the store or, while it is away, as this host knew them last.

    Raises:
        StoreFormatError: The store shows none, and the file of those known last is damaged.
    """
    with closing(open_or_do_without(settings.state_dir, settings.redis_url, time.time)) as store:
        keys = KeyRing(store, settings.state_dir / FILE_NAME)
        keys.begin()
        return keys.table.required


def require_what_processes_open(settings: Settings) -> None:
    """Find out what the web processes would fail on, where it can still be said in one line.

    Raises:
        CatalogError: The catalog cannot be used.
        SettingsError: The state directory or an installed strategy cannot be used.
    """
    load_catalog(settings.catalog)
    local_secret(settings.state_dir)
    plugged_in_strategies()


def require_known_host(host: str) -> None:
    """Find out before anything else whether there is such an address at all.

    Raises:
        SettingsError: There is none.
    """
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"there is no address {host!r} to listen on; name one of this machine, such as 127.0.0.1 or 0.0.0.0, with "
            "--host"
        ) from error


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
            mend = (
                "name an address of this machine with --host"
                if error.errno == errno.EADDRNOTAVAIL
                else "stop what listens there, or choose another --port"
            )
            raise SettingsError(f"cannot listen on {host}:{port} ({error.strerror}); {mend}") from error
