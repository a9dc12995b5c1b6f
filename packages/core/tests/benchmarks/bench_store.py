"""Times both stores: python packages/core/tests/benchmarks/bench_store.py [DIRECTORY for the files].

Redis runs with the durable setting of the docs. Run it with `packages/core/tests` on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from redis_process import running_redis

from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.storage.background_writer import BackgroundWriter
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import BEGINNING, START, DecisionRow, OutcomeRow, Retention, Store

PAYLOAD = os.urandom(1_000)
DECISIONS, BULK = 50_000, 2_000
OUTCOMES = 20_000
SINGLE = 1_000


def decisions(count: int, name: str) -> list[DecisionRow]:
    times = [1.76e9 + number for number in range(count)]
    clock = iter(times)
    ids = SignedIds(b"not a secret at all", lambda: next(clock), os.urandom)
    return [DecisionRow(ids.make(1)[0] + name, time_s, PAYLOAD) for time_s in times]


def outcomes(count: int, name: str) -> list[OutcomeRow]:
    return [OutcomeRow(f"{name}-{number}", "provider/model", 1.76e9, PAYLOAD[:300]) for number in range(count)]


def rate(count: int, call: Callable[[], object]) -> int:
    """How many a second."""
    start = time.perf_counter()
    call()
    return round(count / (time.perf_counter() - start))


def in_bulks(rows: list[DecisionRow] | list[OutcomeRow], size: int, write: Callable[[list], object]) -> None:
    for start in range(0, len(rows), size):
        write(rows[start : start + size])


def through_writer(store: Store, rows: list[OutcomeRow]) -> None:
    with closing(BackgroundWriter(store, lambda _: None, time.time)) as writer:
        futures = [writer.put_outcomes([row]) for row in rows]
        for future in futures:
            future.result()


def read_all(store: Store) -> None:
    position = START
    while got := store.read_outcomes(position, 500):
        position = got[-1].position


def iterate(store: Store) -> None:
    place = BEGINNING
    while got := store.decisions(place, 1_000):
        place = got[-1].place


def put_cost(store: Store) -> dict[str, float]:
    rows = decisions(20_000, "put")
    with closing(BackgroundWriter(store, lambda _: None, time.time)) as writer:
        times = []
        for row in rows:
            start = time.perf_counter_ns()
            writer.put(row)
            times.append(time.perf_counter_ns() - start)
    times.sort()
    share = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return {f"{name}_us": times[int(at * len(times))] / 1e3 for name, at in share.items()}


def measure(store: Store) -> dict[str, object]:
    logged, reports, single = decisions(DECISIONS, ""), outcomes(OUTCOMES, "bulk"), outcomes(SINGLE, "single")
    grouped = outcomes(OUTCOMES, "grouped")
    result: dict[str, object] = {
        "writer_put": put_cost(store),
        "decisions_per_s_in_bulks_of_2000": rate(DECISIONS, lambda: in_bulks(logged, BULK, store.append_decisions)),
        "durable_outcomes_per_s_one_at_a_time": rate(SINGLE, lambda: in_bulks(single, 1, store.append_outcomes)),
        "durable_outcomes_per_s_in_bulks_of_100": rate(OUTCOMES, lambda: in_bulks(reports, 100, store.append_outcomes)),
        "durable_outcomes_per_s_through_the_writer": rate(OUTCOMES, lambda: through_writer(store, grouped)),
        "decisions_read_per_s_by_id": rate(2_000, lambda: [store.decision(row.id) for row in logged[:2_000]]),
        "decisions_read_per_s_in_order": rate(DECISIONS, lambda: iterate(store)),
        "outcomes_read_per_s": rate(2 * OUTCOMES, lambda: read_all(store)),
    }
    now = 1.76e9 + 31 * 86_400.0
    start, removed, longest = time.perf_counter(), 0, 0.0
    while True:
        step = time.perf_counter()
        gone = store.trim(now)
        longest = max(longest, time.perf_counter() - step)
        if not gone:
            break
        removed += gone
    result["rows_trimmed_per_s"] = round(removed / (time.perf_counter() - start))
    result["longest_trim_step_ms"] = round(1e3 * longest, 1)
    return result


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else None
    report: dict[str, object] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "payload_bytes": 1_000}
    with TemporaryDirectory(dir=where) as name:
        directory = Path(name)
        with closing(open_store(directory, None, time.time, Retention())) as store:
            report["sqlite"] = measure(store)
        with running_redis(directory) as server, closing(open_store(directory, server.url, time.time)) as store:
            report["redis"] = measure(store)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
