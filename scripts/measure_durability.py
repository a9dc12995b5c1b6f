"""Kills processes under load and counts what is left: python scripts/measure_durability.py --store redis --rounds 3.

One client reports outcomes, each until it is acknowledged, and another asks for decisions, while the learner, the web
process and Redis are killed (SIGKILL) in turn and started again. Afterwards the store is read: every acknowledged
outcome must be in it once, and the learner must account for each once (one whose decision died with the web process
before it was logged, which may happen in its last second, can only wait). Decisions fail for a dead web process alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from live_servers import end_process, free_port, machine, wait_until

from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import START

PAUSE_S = 4.0
"""Between a kill and the next."""


@dataclass
class Deployment:
    """One web process with its learner, and Redis if asked for; each can be killed and started again."""

    folder: Path
    redis: bool
    port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the web process listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str | None:
        """Address of Redis, if there is one."""
        return f"redis://127.0.0.1:{self.redis_port}/0" if self.redis else None

    @property
    def state_dir(self) -> Path:
        """Of the deployment."""
        return self.folder / "state"

    def start_redis(self) -> None:
        """Start Redis, durable: its log is written before it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit("redis-server is missing: scripts/system_packages redis-server installs it")
        command = [program, "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self.processes["redis"] = self._start("redis", command, os.environ)

    def start_web(self) -> None:
        """Serve, and wait until that answers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MONKEY_CODER_")}
        given = {"MONKEY_CODER_STATE_DIR": str(self.state_dir), "OMP_NUM_THREADS": "1"}
        if self.redis_url:
            given["MONKEY_CODER_REDIS_URL"] = self.redis_url
        command = [str(Path(sys.executable).parent / "monkey-coder"), "serve", "--port", str(self.port)]
        self.processes["web"] = self._start("web", command, kept | given)
        wait_until(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)

    def kill_learner(self) -> None:
        """Kill the learner that the web process started; it starts another."""
        wait_until(lambda: bool(self._learners()))
        for pid in self._learners():
            os.kill(pid, signal.SIGKILL)

    def kill_web(self) -> None:
        """Kill the web process, and start another. Its learner ends, or lives on until it notices."""
        self._kill("web")
        self.start_web()

    def kill_redis(self) -> None:
        """Kill Redis, and start it again over its data."""
        self._kill("redis")
        time.sleep(1.0)
        self.start_redis()

    def end(self) -> None:
        """End everything that runs."""
        for process in reversed(self.processes.values()):
            end_process(process)

    def _learners(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                here = f"MONKEY_CODER_STATE_DIR={self.state_dir}".encode()
                if b"learn" in words and here in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def _start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=dict(environment), cwd=self.folder, stdout=log, stderr=log)  # noqa: S603

    def _kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes.pop(name).wait()


class Reporter(threading.Thread):
    """Asks for decisions and reports on them; an outcome is sent until it is acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.stop = threading.Event()
        self.acknowledged: list[str] = []
        self.sent_again = 0

    def run(self) -> None:
        """Go on until told to stop."""
        number = 0
        with httpx.Client(base_url=self._url, timeout=30.0) as client:
            while not self.stop.is_set():
                made = self._asked(
                    client, "/v1/quantum/route", {"request": {"prompt": f"Task {number}: fix the cache"}}
                )
                report = {"decision_id": made["decision_id"], "outcome_id": f"r{number}", "success": number % 3 > 0}
                self._asked(client, "/v1/quantum/feedback", report)
                self.acknowledged.append(report["outcome_id"])
                number += 1

    def _asked(self, client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        while True:
            with suppress(httpx.TransportError):
                answer = client.post(path, json=body)
                if answer.is_success:
                    found: dict[str, Any] = answer.json()
                    return found
            self.sent_again += 1
            time.sleep(0.05)


class Asker(threading.Thread):
    """Asks for decisions at a steady pace, and counts what came."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.stop = threading.Event()
        self.during = "nothing"
        self.came: dict[str, Counter[str]] = {}

    def run(self) -> None:
        """Go on until told to stop."""
        number = 0
        with httpx.Client(base_url=self._url, timeout=30.0) as client:
            while not self.stop.is_set():
                number += 1
                came = self.came.setdefault(self.during, Counter())
                try:
                    answer = client.post("/v1/quantum/route", json={"request": {"prompt": f"Ask {number}: why?"}})
                    came[str(answer.status_code)] += 1
                    if answer.is_success:
                        came.update(f"degraded: {reason}" for reason in answer.json()["degraded"])
                except httpx.TransportError:
                    came["no answer"] += 1
                time.sleep(0.01)


def stored(deployment: Deployment) -> Counter[str]:
    """How often each outcome is in the store."""
    found: Counter[str] = Counter()
    position = START
    with closing(open_store(deployment.state_dir, deployment.redis_url, time.time)) as store:
        while rows := store.read_outcomes(position, 10_000):
            found.update((row.row.outcome_id or "").rpartition("/")[2].rpartition(":")[2] for row in rows)
            position = rows[-1].position
    return found


def learned(deployment: Deployment, wanted: int, within_s: float = 90.0) -> dict[str, int]:
    """What the learner says it has made of the outcomes, once it has had time to look at all of them."""
    give_up_at = time.monotonic() + within_s
    while True:
        told = httpx.get(f"{deployment.url}/v1/quantum/training", timeout=30.0).json()
        counts: dict[str, int] = (told.get("learner") or {}).get("counts") or {}
        seen = sum(counts.get(name, 0) for name in ("outcomes", "waiting", "orphans"))
        if seen >= wanted or time.monotonic() > give_up_at:
            return counts
        time.sleep(0.5)


def measure(folder: Path, redis: bool, rounds: int) -> dict[str, Any]:
    """Kill everything in turn, so many times, and count."""
    deployment = Deployment(folder, redis)
    kills: dict[str, Callable[[], None]] = {"learner": deployment.kill_learner, "web": deployment.kill_web}
    if redis:
        kills["redis"] = deployment.kill_redis
        deployment.start_redis()
    try:
        deployment.start_web()
        reporter, asker = Reporter(deployment.url), Asker(deployment.url)
        reporter.start()
        asker.start()
        time.sleep(PAUSE_S)
        for turn in range(rounds):
            for name, kill in kills.items():
                print(
                    f"round {turn + 1}: {name} is killed; {len(reporter.acknowledged)} acknowledged so far", flush=True
                )
                asker.during = name
                kill()
                time.sleep(PAUSE_S)
        reporter.stop.set()
        asker.stop.set()
        reporter.join(60.0)
        asker.join(60.0)
        acknowledged = set(reporter.acknowledged)
        counted = learned(deployment, len(acknowledged))
        kept = stored(deployment)
    finally:
        deployment.end()
    return {
        "kills": dict.fromkeys(kills, rounds),
        "acknowledged": len(acknowledged),
        "sent_again": reporter.sent_again,
        "lost": len(acknowledged - kept.keys()),
        "twice": sum(count > 1 for count in kept.values()),
        "stored": sum(kept.values()),
        "learned": {name: counted.get(name, 0) for name in ("outcomes", "waiting", "orphans")},
        "decisions": {name: dict(came) for name, came in asker.came.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=("sqlite", "redis"), default="redis")
    parser.add_argument("--rounds", type=int, default=3, help="how often each process is killed")
    given = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), given.store == "redis", given.rounds)
    print(f"{given.store}, {machine()}")
    print(json.dumps(found, indent=2))
    return 1 if found["lost"] or found["twice"] or sum(found["learned"].values()) != found["stored"] else 0


if __name__ == "__main__":
    sys.exit(main())
