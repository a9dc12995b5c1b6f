"""Load as numbers: wrk for closed loops, `open_loop.py` for constant rates, each in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from subjects import HERE, Subject

Result = dict[str, Any]


def allow_many_connections() -> None:
    """Raise the limit of open files as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def closed_loop(
    subject: Subject, connections: int, seconds: float, collapse: str = "", cpu: int | None = None
) -> Result:
    """So many callers who ask again as soon as they are answered.

    Returns:
        requests, rate, p50_ms, p95_ms, p99_ms, max_ms, errors (connections and time-outs), refused (by status).
    """
    threads = min(connections, 2)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", str(HERE / "wrk_route.lua"), subject.url, "--", "/v1/quantum/route", collapse]
    said = _output([part for part in command if part], cpu)
    result: Result = json.loads(said.partition("\nJSON ")[2])
    result["rate"] = round(result["requests"] / result["seconds"], 1)
    return result


def open_loop(
    subject: Subject, rate: float, connections: int, seconds: float, seed: int = 0, cpu: int | None = None
) -> Result:
    """Requests at a constant rate; see `open_loop.summary` for what is returned."""
    command = [sys.executable, str(HERE / "open_loop.py"), subject.url, "--rate", str(rate), "--seed", str(seed)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    result: Result = json.loads(_output(command, cpu))
    return result


def _output(command: list[str], cpu: int | None) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {' '.join(command)}\n{done.stdout}")
    return done.stdout
