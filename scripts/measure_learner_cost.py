"""Measures what a learner that trains costs the routing beside it: throughput with it over throughput without.

    python scripts/measure_learner_cost.py                         six pairs of 10 s each, one worker, 64 connections
    python scripts/measure_learner_cost.py --workers 2 --connections 1000 --json out.json

One server and its learner run all the time. In the one half of a pair the learner is in the middle of a training, in
the other it is paused in the middle of the same; which comes first alternates. Between pairs it gets new outcomes, so
that there is always something to train on. A pair counts if the learner trained to its end. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

BENCHMARKS = Path(__file__).resolve().parents[1] / "packages" / "core" / "tests" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from load import allow_many_connections, closed_loop  # noqa: E402 - they are no package
from subjects import Subject, engine  # noqa: E402

PATIENCE_S = 300.0
TRAINING = "/v1/quantum/training"


@dataclass(frozen=True)
class Pair:
    """Rates in answers a second, 95th percentiles in ms, and the CPU that the learner had of one core, 0..1."""

    without: float
    training: float
    p95_without: float
    p95_training: float
    learner_cpu: float

    @property
    def ratio(self) -> float:
        """Rate while training over rate without."""
        return self.training / self.without


class Bench:
    """Drives one server.

    Args:
        subject: The server.
        seconds: Length of each half of a pair.
        connections: Of the load.
    """

    def __init__(self, subject: Subject, seconds: float, connections: int) -> None:
        self._subject, self._seconds, self._connections = subject, seconds, connections
        self._client = httpx.Client(base_url=subject.url, timeout=60.0)
        self._refs = [model["ref"] for model in self._client.get("/v1/quantum/models").json()["models"][:6]]
        self._asked = 0

    def make_idle(self) -> None:
        """Let the learner run only where nothing else does, to compare with what it does by itself."""
        pid = self._learner_pid()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))

    def pair(self, turn: int) -> Pair | None:
        """Measure once with training and once without; None if the training ended on the way."""
        self._until_training()
        found: dict[bool, dict[str, Any]] = {}
        cpu = 0.0
        for training in (True, False) if turn % 2 else (False, True):
            self._tell("resume" if training else "pause")
            self._until_doing("training" if training else "paused")
            before = cpu_seconds(self._learner_pid())
            found[training] = closed_loop(self._subject, self._connections, self._seconds)
            if training:
                cpu = (cpu_seconds(self._learner_pid()) - before) / found[True]["seconds"]
                if self._doing() != "training":
                    return None
        self._tell("resume")
        off, on = found[False], found[True]
        return Pair(off["rate"], on["rate"], off["p95_ms"], on["p95_ms"], cpu)

    def _until_training(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        self._tell("resume")
        while self._doing() != "training":
            if time.monotonic() > deadline:
                raise RuntimeError(f"the learner does not train: {self._status()}")
            counts = (self._status() or {}).get("counts", {})
            if counts and counts["fresh"] < counts["needed"]:
                self._teach(counts["needed"])
            time.sleep(0.5)

    def _teach(self, count: int) -> None:
        """Have tasks decided, and report how they went."""
        reports = []
        while len(reports) < count:
            requests = []
            for _ in range(200):
                self._asked += 1
                request = {
                    "prompt": f"Write a parser for format {self._asked} that reports the line of each mistake",
                    "allowed_models": [self._refs[self._asked % len(self._refs)]],
                }
                requests.append({"request": request, "quantum_config": {"cache": "bypass"}})
            answer = self._client.post("/v1/quantum/route/batch", json={"requests": requests})
            answer.raise_for_status()
            for place, result in enumerate(answer.json()["results"]):
                decided = result.get("decision") or result
                said = {"decision_id": decided["decision_id"], "success": place % 3 > 0, "cost_usd": 0.001}
                reports.append(said)
        for start in range(0, len(reports), 1000):
            sent = self._client.post("/v1/quantum/feedback/batch", json={"reports": reports[start : start + 1000]})
            sent.raise_for_status()

    def _tell(self, what: str) -> None:
        self._client.post(f"{TRAINING}/{what}").raise_for_status()

    def _until_doing(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._doing() != what:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the learner is not {what}: {self._status()}")
            time.sleep(0.2)

    def _status(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._client.get(TRAINING).json()["learner"]
        return found

    def _doing(self) -> str:
        return (self._status() or {}).get("doing", "")

    def _learner_pid(self) -> int:
        return learner_of(self._subject.pid)


def learner_of(pid: int) -> int:
    """The process among the children of a server that learns."""
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in each.read_text().split():
            if b"learn" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return int(child)
    raise RuntimeError("the server has no learner")


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print a table, and return 0 if the goal is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each half of a pair")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--idle", action="store_true", help="put the learner into the system's idle class")
    parser.add_argument("--json", type=Path, help="write all figures there as well")
    given = parser.parse_args()
    allow_many_connections()
    pairs: list[Pair] = []
    with engine("engine with a learner", workers=given.workers, learn=True) as subject:
        bench = Bench(subject, given.seconds, given.connections)
        closed_loop(subject, 8, 2.0)
        if given.idle:
            bench.make_idle()
        print(
            f"{'pair':>4} {'without/s':>10} {'training/s':>10} {'ratio':>6} {'p95 ms':>8} {'p95 ms':>8} {'its CPU':>8}"
        )
        turn = 0
        while len(pairs) < given.pairs and turn < 3 * given.pairs:
            turn += 1
            pair = bench.pair(turn)
            if pair is None:
                print(f"{turn:>4} the training ended before its half did: not counted", flush=True)
                continue
            pairs.append(pair)
            print(
                f"{turn:>4} {pair.without:>10,.0f} {pair.training:>10,.0f} {pair.ratio:>6.3f} "
                f"{pair.p95_without:>8.1f} {pair.p95_training:>8.1f} {pair.learner_cpu:>8.1%}",
                flush=True,
            )
    if not pairs:
        print("no training lasted long enough: give shorter --seconds, or more --connections")
        return 1
    ratios = sorted(pair.ratio for pair in pairs)
    middle = statistics.median(ratios)
    print(
        f"\nthroughput while training over throughput without: median {middle:.3f} "
        f"(of {len(ratios)} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f}); goal: at least 0.9"
    )
    if given.json is not None:
        figures = {
            "command": " ".join(["python", "scripts/measure_learner_cost.py", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "median_ratio": middle,
            "pairs": [{**asdict(pair), "ratio": pair.ratio} for pair in pairs],
        }
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if middle >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
