"""Real `monkey-coder` processes for tests: started on a free port, awaited, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE_S = 180.0
"""What a loaded machine is given before a test fails; nothing waits so long when all is well."""

COMMAND = (sys.executable, "-m", "monkey_coder.cli")


@dataclass(frozen=True)
class Server:
    """One running `monkey-coder serve`."""

    process: subprocess.Popen[bytes]
    port: int
    state_dir: Path
    log: Path
    seconds_to_ready: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        return self.log.read_text()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return 1024 * int(found[1])

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process, and return its exit code once it has ended."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


_RESERVED: list[socket.socket] = []
"""Bound until this process ends. A server with `SO_REUSEADDR`, which all of ours set, may listen there all the same,
but nobody is given such a port by chance: neither another test process nor an outgoing connection."""


def free_port() -> int:
    """A port that is free, and stays so until somebody listens on it on purpose."""
    holder = socket.socket()
    _RESERVED.append(holder)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    return port


def eventually(holds: Callable[[], object], what: str | Callable[[], str] = "waited in vain") -> None:
    """Wait until a condition holds; what to say if it never does may be made then."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


def environment(state_dir: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of whoever runs the tests.

    There is no learner, which few of them need, and requests may wait for as long as a loaded machine makes them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONKEY_CODER_")}
    ours = {"STATE_DIR": str(state_dir), "LEARN": "false", "MAX_WAIT_S": str(PATIENCE_S)}
    return kept | {f"MONKEY_CODER_{k}": v for k, v in ours.items()} | {"COLUMNS": "120"} | dict(settings or {})


def command(
    state_dir: Path, *arguments: str | bytes, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command line to its end, which comes late where it trains."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(state_dir, settings),
        cwd=state_dir.parent,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
    )


@contextmanager
def serving(folder: Path, *options: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve from a folder of its own until the block ends."""
    port, state_dir, log = free_port(), folder / "state", folder / "log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), *options],
            env=environment(state_dir, settings),
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, port, log)
        yield Server(process, port, state_dir, log, time.monotonic() - started)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()}"
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code in (
                200,
                401,
            ):  # it may ask for a token
                return
        time.sleep(0.02)
    raise AssertionError(f"the server was not ready within {PATIENCE_S} s:\n{log.read_text()}")
