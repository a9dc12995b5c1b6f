"""What a decision costs, stage by stage: OMP_NUM_THREADS=1 python packages/core/tests/benchmarks/bench_stages.py.

Every stage is timed alone, on batches of 1 and of 64 prompts that all differ, with the default catalog: CPU time of the
process, in microseconds per decision, median over the repeats. The whole is timed as well, over the manager with all
its threads; what it takes beyond the stages is the handing over between them. `--json` prints it for programs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: what is measured is one core

import numpy as np
import orjson
from open_loop import route_requests
from prometheus_client import CollectorRegistry

from monkey_coder.app.hot_path import parse
from monkey_coder.bootstrap import Core, open_core
from monkey_coder.core.complexity import analyse, estimate_tokens
from monkey_coder.models import RouteRequest
from monkey_coder.ports import REJECTED, DecisionEvent, RouteBatch
from monkey_coder.quantum.answers import Decided, write_answers
from monkey_coder.quantum.collapse_strategies import COLLAPSES
from monkey_coder.quantum.exploration import explore
from monkey_coder.quantum.gates import apply_gates
from monkey_coder.quantum.metrics_collector import MetricsCollector
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.polling import collect_ballots, estimate
from monkey_coder.quantum.preparation import check_names, prepare
from monkey_coder.quantum.provider_bonus import provider_bonus
from monkey_coder.quantum.quality_floor import apply_quality_floor
from monkey_coder.quantum.text_marks import text_marks
from monkey_coder.settings import Settings

Stages = list[tuple[str, Callable[[], object]]]
SIZES = (1, 64)


def cpu_us(call: Callable[[], object], repeats: int, size: int) -> float:
    """Median CPU time of the process for one decision of a batch, in microseconds."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        started = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - started)
    return float(median(times)) / 1e3 / size


def stages_of(core: Core, bodies: Sequence[bytes]) -> Stages:
    """Every stage of one batch, with what the stages before it would hand it."""
    manager = core.manager
    snapshot, table, rng = manager.snapshot(), manager.snapshot().table, np.random.default_rng(0)
    requests = [parse(body) for body in bodies]
    prompts = [request.request.prompt for request in requests]
    analyses = [analyse(request.request) for request in requests]
    tokens = np.array([estimate_tokens(r.request, a) for r, a in zip(requests, analyses, strict=True)], dtype=np.int64)
    prepared = prepare(requests, snapshot, manager.embedder)
    batch = prepared.batch
    rejected = batch.attempts == REJECTED
    strategies = list(snapshot.strategies.values())
    bonus = provider_bonus(requests, table, snapshot.preferred_bonus)

    def fresh() -> RouteBatch:
        """The same batch without what strategies share, which is worked out once a batch."""
        return replace(batch)

    def one_after_the_other() -> Any:
        shared = fresh()
        return [strategy.score(shared) for strategy in strategies]

    def fan_out() -> Any:
        return manager.threads.run(strategies, fresh(), 1.0)

    outcomes = fan_out()
    ballots = collect_ballots(batch, outcomes, None, bonus, snapshot.reliability)
    estimates = estimate(batch, ballots, outcomes)
    ranking, reaching = apply_quality_floor(COLLAPSES[snapshot.collapse](ballots), ballots, estimates, batch)
    epsilon = np.full(len(batch), 0.02, dtype=np.float32)
    served = explore(ranking.order[:, 0], ranking.utility, batch.candidates, epsilon, rng)
    decided = Decided(snapshot.collapse, ballots, ranking, served, estimates, reaching, np.zeros(len(batch), np.bool_))
    ids = [(made, made) for made in manager.ids.make(len(batch))]
    answers = [a | {"execution_time_ms": 1.0} for a in write_answers(prepared, decided, outcomes, snapshot, ids)]
    events = [DecisionEvent(answer, batch, row, served.distribution[row], 0.001) for row, answer in enumerate(answers)]
    listeners = (MetricsCollector(CollectorRegistry()), PerformanceMonitor())

    def gates() -> Any:
        return apply_gates(requests, table, tokens[:, 0], tokens[:, 1], rejected)

    return [
        ("parse", lambda: [parse(body) for body in bodies]),
        ("names", lambda: [check_names(request, snapshot) for request in requests]),
        ("analyse", lambda: [estimate_tokens(r.request, analyse(r.request)) for r in requests]),
        ("embed", lambda: manager.embedder.embed(prompts)),
        ("marks", lambda: text_marks(prompts)),
        ("gates", gates),
        ("prepare, the whole from analyse to encode", lambda: prepare(requests, snapshot, manager.embedder)),
        ("strategies, one after the other", one_after_the_other),
        ("fan-out, strategies included", fan_out),
        ("collect ballots", lambda: collect_ballots(batch, outcomes, None, bonus, snapshot.reliability)),
        ("estimate", lambda: estimate(batch, ballots, outcomes)),
        *((f"collapse: {name}", lambda c=collapse: c(replace(ballots))) for name, collapse in COLLAPSES.items()),
        ("explore", lambda: explore(ranking.order[:, 0], ranking.utility, batch.candidates, epsilon, rng)),
        ("ids", lambda: manager.ids.make(len(batch))),
        ("answer", lambda: write_answers(prepared, decided, outcomes, snapshot, ids)),
        ("listeners", lambda: [listener.on_decided(events) for listener in listeners]),
        ("serialise", lambda: [orjson.dumps(answer) for answer in answers]),
        ("whole, from bytes to bytes", lambda: whole(core, bodies)),
    ]


def whole(core: Core, bodies: Sequence[bytes]) -> list[bytes]:
    """One batch as the web process decides it, without the web."""
    requests: list[RouteRequest] = [parse(body) for body in bodies]
    return [orjson.dumps(answer) for answer in core.manager.decide(requests)]


def encode(by_name: dict[str, float]) -> float:
    """What encoding takes: the whole preparation without the stages that are timed alone."""
    parts = ("analyse", "embed", "marks", "gates")
    return max(0.0, by_name["prepare, the whole from analyse to encode"] - sum(by_name[name] for name in parts))


def measure(repeats: int) -> list[dict[str, Any]]:
    """Rows of the table: stage, and microseconds a decision for each size of batch."""
    columns: list[dict[str, float]] = []
    with TemporaryDirectory() as folder, open_core(Settings(state_dir=Path(folder))) as core:
        gc.collect()
        gc.freeze()  # as the web process does
        for size in SIZES:
            bodies = [request.partition(b"\r\n\r\n")[2] for request in route_requests(size, "bench", seed=size)]
            turns = max(5, repeats // size)
            found = {name: cpu_us(call, turns, size) for name, call in stages_of(core, bodies)}
            found["encode, and weights"] = encode(found)
            columns.append(found)
    names = list(columns[0])
    names.insert(names.index("prepare, the whole from analyse to encode"), names.pop())
    return [
        {"stage": name, **{f"batch_{size}_us": round(c[name], 2) for size, c in zip(SIZES, columns, strict=True)}}
        for name in names
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    given = parser.parse_args(arguments)
    rows = measure(200 if given.quick else 4000)
    if given.json:
        print(json.dumps(rows))  # noqa: T201 - what it is for
        return 0
    for row in rows:
        print(f"{row['stage']:45s} {row['batch_1_us']:10.1f} {row['batch_64_us']:10.1f}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
