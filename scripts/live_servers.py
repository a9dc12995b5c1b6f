"""Real servers for measurements: `monkey-coder serve` processes on one store, and a Redis server if asked for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx

READY_WITHIN_S = 120.0


@contextmanager
def live_servers(
    folder: Path, count: int, store: str = "sqlite", settings: Mapping[str, str] | None = None, workers: int = 1
) -> Iterator[list[httpx.Client]]:
    """Serve with several processes that share a store, each on its own port, until the block ends.

    Args:
        folder: Scratch.
        count: How many processes.
        store: ``sqlite`` or ``redis`` (durable: its log is written before it answers).
        settings: Further environment variables.
        workers: Web processes of each.

    Yields:
        A client for each process.
    """
    given = {"MONKEY_CODER_STATE_DIR": str(folder / "state"), "OMP_NUM_THREADS": "1", **(settings or {})}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONKEY_CODER_")}
    with ExitStack() as stack:
        if store == "redis":
            given["MONKEY_CODER_REDIS_URL"] = stack.enter_context(_redis(folder))
        clients = []
        for number in range(count):
            port = free_port()
            command = [str(Path(sys.executable).parent / "monkey-coder"), "serve", "--port", str(port)]
            command += ["--workers", str(workers)] if workers > 1 else []
            with (folder / f"{number}.log").open("wb") as log:
                process = subprocess.Popen(command, env=kept | given, cwd=folder, stdout=log, stderr=log)  # noqa: S603
            stack.callback(end_process, process)
            clients.append(stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0)))
        for client in clients:
            wait_until(lambda client=client: client.get("/readyz").status_code == 200)
        yield clients


def machine() -> str:
    """What it was measured on, in a few words."""
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    program, port = shutil.which("redis-server"), free_port()
    if program is None:
        raise SystemExit("redis-server is missing: scripts/system_packages redis-server installs it")
    options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([program, *options, *durable], stdout=log, stderr=log)  # noqa: S603
    try:
        wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1.0).close() is None)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        end_process(process)


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait until something holds; a connection that is refused is a no."""
    give_up_at = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_at:
        with suppress(httpx.TransportError, OSError):
            if ready():
                return
        time.sleep(0.05)
    raise SystemExit(f"a server was not ready within {READY_WITHIN_S:.0f} s; its log is in the scratch folder")


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process gently, then for good."""
    process.terminate()
    try:
        process.wait(20.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
