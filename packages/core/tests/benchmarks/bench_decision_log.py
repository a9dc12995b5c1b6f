"""Times what logging and explaining one decision costs, on the catalog that ships.

Run it with `packages/core/tests` on PYTHONPATH, and OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from builders import ask, engine
from deciding import Recorder

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.quantum.decision_log import DecisionLog, records_of
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.record_writing import payloads_of
from monkey_coder.quantum.replay import Replay

BATCH = 64


def best_s(work: Callable[[], Any], times: int = 200) -> float:
    """The shortest of many runs: what the work costs when nothing else is in its way."""
    shortest = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest


def main() -> None:
    table, recorder = load_catalog(None).table(), Recorder()
    with engine(models=table, listeners=[recorder], embedder=StaticEmbedder.load()) as manager:
        manager.decide([ask(f"Fix the failing test number {number}") for number in range(BATCH)])
        snapshot = manager.snapshot()
    events = recorder.events
    records = records_of(events, 0.0)
    payload = payloads_of(events, 0.0)[0]
    queue: list[Any] = []
    log = DecisionLog(queue.append, time.time)
    explained = partial(explain, records[0], Replay(records[0], snapshot), table.refs[3])
    rows = [
        ("on the request path", best_s(lambda: log.on_decided(events)) / BATCH),
        ("to bytes, in the writer's thread", best_s(lambda: payloads_of(events, 0.0)) / BATCH),
        ("from bytes", best_s(lambda: decode(payload))),
        ("to explain, flip points included", best_s(explained, 20)),
    ]
    voices = len(records[0].strategies)
    said = [f"{len(table)} models, {voices} strategies, batches of {BATCH}; {len(payload)} bytes a decision"]
    said += [f"{name:36} {seconds * 1e6:10.1f} µs" for name, seconds in rows]
    sys.stdout.write("\n".join(said) + "\n")


if __name__ == "__main__":
    main()
