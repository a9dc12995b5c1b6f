"""CPU time that it takes a web process to learn from an outcome: python packages/core/tests/benchmarks/bench_follow.py.

Decides, logs and reports so many times with the real engine and a store of its own, and follows the reports twice: with
the decisions in memory, as when a report comes within two seconds to the process that decided, and with decisions read
from the log. Counts the CPU time of the calling thread, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded: threads of BLAS would not be counted

from open_loop import WORDS

from monkey_coder.bootstrap import open_core
from monkey_coder.following import follow
from monkey_coder.models import ExecuteRequest, FeedbackRequest, QuantumOptions, RouteRequest
from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store

BATCH = 16


class Kept:
    """Keeps all decisions."""

    def __init__(self) -> None:
        self.events: list[DecisionEvent] = []

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        self.events += events


def requests(count: int) -> list[RouteRequest]:
    """So many, with prompts that all differ."""
    rng = random.Random(0)
    return [
        RouteRequest(
            request=ExecuteRequest(prompt=f"Task {number}: {' '.join(rng.choices(WORDS, k=24))}"),
            quantum_config=QuantumOptions(cache="bypass"),
        )
        for number in range(count)
    ]


def microseconds(follower: Any) -> float:
    """Median CPU time per outcome of the steps in which a follower takes in all there is."""
    taken = []
    while True:
        began = time.thread_time_ns()
        read = follower.step()
        if not read:
            return median(taken)
        taken.append((time.thread_time_ns() - began) / read / 1e3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--outcomes", type=int, default=6_000)
    given = parser.parse_args(arguments)
    unwritten: list[Any] = []
    with TemporaryDirectory() as state, closing(open_store(Path(state), None, time.time)) as store:
        log = DecisionLog(unwritten.append, time.time)
        with open_core(Settings(state_dir=Path(state)), [log], store) as core:
            kept = Kept()
            core.manager.listeners = (*core.manager.listeners, kept)
            asked = requests(given.outcomes)
            for start in range(0, len(asked), BATCH):
                core.manager.decide(asked[start : start + BATCH])
            store.append_decisions([make() for make in unwritten])
            reporter = Reporter("anonymous", time.time())
            reports = [
                FeedbackRequest(decision_id=event.answer["decision_id"], success=number % 3 > 0, latency_ms=900.0)
                for number, event in enumerate(kept.events)
            ]
            store.append_outcomes([outcome_row(report, reporter) for report in reports])
            gc.collect()
            gc.freeze()
            for name, events in (("in memory", kept.events), ("from the log", [])):
                following = follow(
                    store, core.live, core.catalog, core.monitor, core.manager.ids.issued_at, core.policies.rebound
                )
                if events:
                    following.follower.recent._size = len(events)
                    following.follower.recent.on_decided(events)
                print(f"decisions {name:14s} {microseconds(following.follower):6.1f} us of CPU an outcome")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
