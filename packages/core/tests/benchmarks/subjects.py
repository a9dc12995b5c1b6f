"""What is measured: real servers, the yardstick beside them, and the files that they are started with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
READY_S = 120.0

SLOW_STRATEGY = '''
import time
import numpy as np
from monkey_coder.ports import Scores

class Slow:
    """Takes its time for every batch, then has no opinion."""

    name = "slow"

    def score(self, batch):
        time.sleep(SECONDS)
        return Scores(
            np.zeros(batch.candidates.shape, dtype=np.float32),
            np.zeros(len(batch), dtype=np.float32),
            np.ones(len(batch), dtype=np.bool_),
        )
'''


@dataclass(frozen=True)
class Subject:
    """A running server.

    Attributes:
        name: In tables.
        url: Where it listens.
        pid: Of its first process.
    """

    name: str
    url: str
    pid: int

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of all its processes: now, and at the most so far."""
        found = {"now": 0.0, "peak": 0.0}
        for pid in self._processes():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    for key, name in (("VmRSS:", "now"), ("VmHWM:", "peak")):
                        if line.startswith(key):
                            found[name] += int(line.split()[1]) / 1024
        return {name: round(value, 1) for name, value in found.items()}

    def cpu_seconds(self) -> float:
        """CPU time of all its processes since they began: other work on the machine does not count."""
        ticks = 0
        for pid in self._processes():
            with suppress(OSError):
                after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                ticks += int(after_name[11]) + int(after_name[12])  # utime and stime; see proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def _processes(self) -> list[int]:
        pids = [self.pid]
        with suppress(OSError):
            pids += map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        return pids


@contextmanager
def engine(
    name: str,
    *,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    source: Path | None = None,
    python_path: Sequence[Path] = (),
    cpu: int | None = None,
    learn: bool = False,
) -> Iterator[Subject]:
    """Serve the engine.

    Args:
        name: In tables.
        workers: Web processes.
        settings: Environment variables.
        source: Another checkout, whose code is to run; None: this one.
        python_path: Further places to import from.
        cpu: The one core it may use; None: any.
        learn: Whether a learner runs beside it.
    """
    paths = [(source or ROOT) / "packages" / "core", *python_path]
    command = ["-m", "monkey_coder.cli", "serve", "--workers", str(workers), "--port"]
    if not learn and (paths[0] / "monkey_coder" / "learner_child.py").exists():  # older code knows no learner
        command.insert(3, "--no-learn")
    with (
        TemporaryDirectory() as state,
        _serving(name, command, {"MONKEY_CODER_STATE_DIR": state, **(settings or {})}, paths, cpu, workers) as subject,
    ):
        yield subject


@contextmanager
def yardstick(workers: int = 1) -> Iterator[Subject]:
    """Serve the plain application, by the same server with the same options."""
    command = ["-m", "uvicorn", "plain_app:app", "--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--backlog", "4096", "--no-server-header"]
    command += ["--no-date-header", "--port"]
    with _serving("plain Starlette", command, {}, [ROOT / "packages" / "core", HERE], None, workers) as subject:
        yield subject


@contextmanager
def _serving(
    name: str, command: Sequence[str], settings: Mapping[str, str], paths: Sequence[Path], cpu: int | None, workers: int
) -> Iterator[Subject]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MONKEY_CODER_")}
    environment |= {**settings, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *command, str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
        )
        try:
            _wait_until_ready(process, log, workers)
            yield Subject(name, f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes], workers: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        said = os.pread(log.fileno(), 1_000_000, 0)
        if said.count(b"Application startup complete") >= workers:
            return
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode}:\n{said.decode()}")
        time.sleep(0.05)
    raise RuntimeError(f"a server was not ready within {READY_S:g} s")


def is_commit(revision: str) -> bool:
    """Whether this repository knows a commit."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--quiet", "--verify", revision + "^{commit}"]
    return subprocess.run(git, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Another commit of this repository, in a temporary worktree."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        stack.callback(subprocess.run, [*git, "remove", "--force", str(tree)], check=True)
        yield tree


def write_catalog(folder: Path, models: int) -> Path:
    """A catalog of so many made-up models, of twenty providers, from cheap and weak to dear and strong."""
    specs: dict[str, Any] = {}
    for number in range(models):
        share = (number * 7919 % models) / models
        specs[f"provider-{number % 20}/model-{number}"] = {
            "context_window": 128_000 if number % 3 else 400_000,
            "max_output": 16_000,
            "capabilities": ["tools", "json_mode"] + (["vision"] if number % 2 else []),
            "quality": {"default": round(0.35 + 0.5 * share, 4), "debugging": round(0.3 + 0.5 * share, 4)},
            "latency_s": round(2.0 + 20.0 * share, 2),
            "sources": {"quality": "made up for a benchmark"},
            "prices": {"input_mtok": round(0.05 + 5 * share**2, 4), "output_mtok": round(0.2 + 25 * share**2, 4)},
        }
    path = folder / f"catalog-{models}.yaml"
    path.write_text(json.dumps({"extends": "none", "models": specs}))  # JSON is YAML as well
    return path


def install_slow_strategy(folder: Path, seconds: float) -> Path:
    """Lay out a package with a strategy that takes so long for every batch, as an installer would."""
    info = folder / "slow_strategy-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "slow_strategy.py").write_text(SLOW_STRATEGY.replace("SECONDS", repr(seconds)))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-strategy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[monkey_coder.strategies]\nslow = slow_strategy:Slow\n")
    return folder
