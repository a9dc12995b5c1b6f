"""What sessions cost: process CPU time of batches with and without session ids, shared or each process its own.

Run as `python scripts/measure_sessions.py`; OMP_NUM_THREADS=1 keeps the numeric libraries to one core. Every batch has
new prompts and goes round the cache. Sessions that this process used within the last second are known; new ones are
looked up in every batch, which is the dearest case.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from monkey_coder.bootstrap import Engine, open_engine
from monkey_coder.models import ExecuteRequest, QuantumOptions, RouteRequest
from monkey_coder.quantum import shared_sessions
from monkey_coder.settings import Settings

BATCH = 64
ROUNDS = 60
WARM_UP = 10


def batch(number: int, session: Callable[[int], str | None]) -> list[RouteRequest]:
    """Requests with prompts of their own."""
    return [
        RouteRequest(
            request=ExecuteRequest(prompt=f"Fix the parser of module {number} {row}.", session_id=session(row)),
            quantum_config=QuantumOptions(cache="bypass"),
        )
        for row in range(BATCH)
    ]


def measured(engine: Engine, cases: dict[str, Callable[[int, int], str | None]]) -> dict[str, list[float]]:
    """CPU microseconds a request of this whole process, one a batch; cases take turns.

    Pauses let writers write, and count as well.
    """
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(WARM_UP + ROUNDS):
        for name, session in cases.items():
            requests = batch(number, partial(session, number))
            started = time.process_time()
            engine.caching.cache.decide(requests)
            time.sleep(2 * shared_sessions.GATHER_S)
            figures[name].append((time.process_time() - started) * 1e6 / BATCH)
    return {name: each[WARM_UP:] for name, each in figures.items()}


async def run(**settings: float) -> dict[str, list[float]]:
    """Measure one deployment."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_engine(settings_of(Path(folder), **settings)) as engine:
            cases: dict[str, Callable[[int, int], str | None]] = {
                "no session": lambda _, __: None,
                "sessions known": lambda _, row: f"known {row}",
                "sessions new": lambda number, row: f"new {number} {row}",
            }
            return await asyncio.to_thread(measured, engine, cases)


def settings_of(folder: Path, **settings: float) -> Settings:
    """Settings of a process alone."""
    return Settings.model_validate({"state_dir": folder, "learn": False, **settings})


def main() -> None:
    """Print a table."""
    print(f"{'sessions':<12}{'batches of ' + str(BATCH):<18}{'CPU us a request, median':>26}{'p10':>8}{'p90':>8}")
    for name, ttl_s in (("own", 0.0), ("shared", 86_400.0)):
        for case, figures in asyncio.run(run(session_ttl_s=ttl_s)).items():
            tenths = statistics.quantiles(figures, n=10)
            print(f"{name:<12}{case:<18}{statistics.median(figures):>26.1f}{tenths[0]:>8.1f}{tenths[-1]:>8.1f}")


if __name__ == "__main__":
    main()
