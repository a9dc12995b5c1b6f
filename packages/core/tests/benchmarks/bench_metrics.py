"""What metrics cost: CPU time per decision and per outcome, in one process and shared between several.

Run it as a script; it starts itself once per way of keeping metrics, because prometheus_client decides for one when it
is imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from monkey_coder.ports import DecisionEvent, OutcomeEvent
from monkey_coder.quantum.metrics_collector import MetricsCollector
from monkey_coder.quantum.metrics_exposition import DIRECTORY_VARIABLE, Exposition

STRATEGIES = ("dqn", "memory", "task_optimized", "cost_efficient", "performance", "balanced")
MODELS = tuple((f"provider{number % 5}", f"model-{number}") for number in range(25))
BATCHES = (1, 8, 64)
SETTLED = 50
"""Batches between two times that the series are brought up to date; a busy server decides more of them."""


def answer(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """An answer as far as metrics look at it."""
    provider, model = MODELS[rng.integers(len(MODELS))]
    return {
        "provider": provider,
        "model": model,
        "collapse_strategy": "weighted",
        "cache": "miss" if number % 4 else "local",
        "degraded": [] if number % 50 else ["deadline"],
        "experiment": {"id": "prices", "arm": "ab"[number % 2]} if number % 10 == 0 else None,
        "thread_results": [{"strategy": name, "status": "SUCCESS", "execution_time_ms": 0.4} for name in STRATEGIES],
    }


def say(row: str) -> None:
    """Print a row of the table at once: the next one comes from another process."""
    sys.stdout.write(row + "\n")
    sys.stdout.flush()


def microseconds(call: Callable[[int], object], units: int, rounds: int) -> float:
    """CPU time per unit: the median over repetitions of `rounds` calls of `units` each."""
    spent = []
    for _ in range(7):
        started = time.process_time()
        for number in range(rounds):
            call(number)
        spent.append((time.process_time() - started) / (rounds * units))
    return float(np.median(spent)) * 1e6


def measure(way: str) -> None:
    """Measure in this process, and say the rows of the table."""
    rng = np.random.default_rng(1)
    registry = CollectorRegistry()
    metrics = MetricsCollector(registry)
    for size in BATCHES:
        batches = [
            [
                DecisionEvent(answer(row, rng), None, row, np.ones(1, np.float32), 0.0005 * (1 + number % 20))
                for row in range(size)
            ]
            for number in range(32)
        ]

        def decided(number: int, batches: list[list[DecisionEvent]] = batches, size: int = size) -> None:
            metrics.on_decided(batches[number % len(batches)])
            metrics.on_batch(size, 0)
            for _ in range(size):
                metrics.on_finished("decided")
            if number % SETTLED == 0:
                metrics.settle()

        rounds = 6_400 // size
        say(f"{way:<10} decision, {size:>2} a batch   {microseconds(decided, size, rounds):8.2f}")

    def learned(number: int) -> None:
        metrics.expect([str(number)])
        metrics.on_outcomes([OutcomeEvent(str(number), f"{MODELS[0][0]}/{MODELS[0][1]}", 1.0, 0.01)])

    say(f"{way:<10} outcome, alone          {microseconds(learned, 1, 5_000):8.2f}")
    directory = os.environ.get(DIRECTORY_VARIABLE)
    exposition = Exposition(registry, Path(directory) if directory else None)
    say(f"{way:<10} answering /metrics      {microseconds(lambda _: exposition.render(), 1, 5):8.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--way", help="measure here, under this name", default=None)
    way = parser.parse_args().way
    if way is not None:
        measure(way)
        return 0
    say(f"{'metrics':<10} {'what':<22} CPU microseconds")
    alone = {name: value for name, value in os.environ.items() if name != DIRECTORY_VARIABLE}
    with TemporaryDirectory() as directory:
        for way, environment in (("in memory", alone), ("shared", alone | {DIRECTORY_VARIABLE: directory})):
            subprocess.run([sys.executable, __file__, "--way", way], env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
