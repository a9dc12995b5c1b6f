"""Measures the service under load, and writes docs/results/throughput.md.

    make bench                                                     everything, some ten minutes
    python packages/core/tests/benchmarks/bench_http.py --quick    seconds each, prints, writes nothing
    python packages/core/tests/benchmarks/bench_http.py --against HEAD~1

All subjects of a scenario run at the same time and are driven in turn, round by round: a machine whose speed varies
then slows all of them, and what is compared are ratios within a round. Every prompt is different, and no answer may
come from a cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from load import Result, allow_many_connections, closed_loop, open_loop
from subjects import (
    HERE,
    ROOT,
    Subject,
    checkout,
    engine,
    install_slow_strategy,
    is_commit,
    write_catalog,
    yardstick,
)
from throughput_report import Report, Row, machine, median_of

COLLAPSES: Final = ("weighted", "best_score", "consensus", "first_success", "combined")
CATALOGS: Final = (20, 200, 2000)
SLOWED_S: Final = 0.02
QUEUE: Final = 200


def many(count: int, thing: str) -> str:
    """1 worker, 2 workers."""
    return f"{count:,} {thing}{'s' * (count > 1)}"


@dataclass
class Bench:
    """How much is measured, and what came out.

    Attributes:
        seconds: Length of one measurement.
        rounds: Measurements of each subject.
        connections: Of the loads with many.
        against: Another checkout to compare with.
        report: What came out so far.
    """

    seconds: float
    rounds: int
    connections: int = 1000
    against: Path | None = None
    report: Report = field(default_factory=Report)

    def compare(self, title: str, subjects: Sequence[Subject], drive: Callable[[Subject, int], Result]) -> list[Result]:
        """Drive all subjects in turn; the first one is compared with each of the others."""
        for subject in subjects:
            closed_loop(subject, 8, 1.0)  # caches of the interpreter and of the processor
        found: dict[str, list[Result]] = {subject.name: [] for subject in subjects}
        for turn in range(self.rounds):
            for subject in subjects[:: -1 if turn % 2 else 1]:
                before = subject.cpu_seconds()
                result = drive(subject, turn)
                answers = max(1, result["requests"] - result["errors"])
                result["cpu_us"] = 1e6 * (subject.cpu_seconds() - before) / answers
                found[subject.name].append(result)
        first = found[subjects[0].name]
        for subject in subjects:
            results = found[subject.name]
            ratios = [a["rate"] / b["rate"] for a, b in zip(first, results, strict=True) if b["rate"]]
            row = Row(title, subject.name, results, ratios if subject is not subjects[0] else [])
            self.report.rows.append(row)
            print(row.line(), flush=True)  # noqa: T201 - long work shows how far it is
        return first

    def closed(self) -> None:
        """One and many connections, one and two workers, beside the yardstick and, if told, another commit."""
        for workers in (1, 2):
            with ExitStack() as stack:
                subjects = [stack.enter_context(engine("engine", workers=workers))]
                subjects.append(stack.enter_context(yardstick(workers)))
                if self.against is not None:
                    other = engine("engine at the other commit", workers=workers, source=self.against)
                    subjects.append(stack.enter_context(other))
                for count in (1, self.connections):
                    title = f"closed loop, {many(workers, 'worker')}, {many(count, 'connection')}"
                    results = self.compare(title, subjects, lambda s, _, c=count: closed_loop(s, c, self.seconds))
                    self._judge_closed(workers, count, results)

    def _judge_closed(self, workers: int, count: int, results: list[Result]) -> None:
        rate, p50, p95, p99 = (median_of(results, name) for name in ("rate", "p50_ms", "p95_ms", "p99_ms"))
        judge = self.report.judge
        if count == 1 and workers == 1:
            judge("one connection: p50 under 1.2 ms", f"{p50:.2f} ms", p50 < 1.2)
            judge("one connection: p99 under 10 ms", f"{p99:.2f} ms", p99 < 10.0)
        if count > 1 and workers == 2:
            plain = self.report.rows[-1 if self.against is None else -2]
            share = median_of([{"ratio": ratio} for ratio in plain.ratios], "ratio")
            errors = sum(result["errors"] + result["refused"] for result in results)
            judge("many connections: no errors", f"{errors}", errors == 0)
            met = rate >= 5000 or share >= 0.35
            judge("many connections, 2 workers: 5,000/s, or 0.35 of plain", f"{rate:,.0f}/s, {share:.2f} of plain", met)
            judge("many connections: p95 under 100 ms", f"{p95:.0f} ms, {p95 / 100:.1f} times that", p95 < 100.0)

    def open(self) -> None:
        """A constant rate that one machine should bear with ease."""
        for workers in (1, 2):
            with engine("engine", workers=workers) as subject:
                title = f"open loop, {many(workers, 'worker')}, 1,500/s, {many(self.connections, 'connection')}"
                results = self.compare(
                    title, [subject], lambda s, turn: open_loop(s, 1500.0, self.connections, self.seconds, turn)
                )
            p95, p99 = median_of(results, "p95_ms"), median_of(results, "p99_ms")
            errors = sum(result["errors"] + result["refused"] for result in results)
            good = p95 < 100.0 and p99 < 200.0 and errors == 0
            said = f"{p95:.1f} ms, {p99:.1f} ms, {errors}"
            self.report.judge(f"{title}: p95 under 100 ms, p99 under 200 ms, no errors", said, good)

    def overload(self) -> None:
        """One worker on one core, a slowed strategy, a short queue, and three times the load that it sustains."""
        cores = sorted(os.sched_getaffinity(0))
        here, there = cores[0], cores[-1]
        with TemporaryDirectory() as folder:
            place = install_slow_strategy(Path(folder) / "site", SLOWED_S)
            settings = {"MONKEY_CODER_MAX_QUEUE": str(QUEUE)}
            with engine("engine", settings=settings, python_path=[place], cpu=here) as subject:
                closed_loop(subject, 8, 1.0)
                sustained = closed_loop(subject, 100, self.seconds, cpu=there)["rate"]
                before = subject.memory_mb()["now"]
                results = []
                for turn in range(self.rounds):
                    result = open_loop(subject, 3 * sustained, self.connections, self.seconds, turn, there)
                    after = open_loop(subject, 100.0, 10, 6.0, turn, there)
                    results.append({**result, "recovered_s": after["last_bad_s"]})
                memory = subject.memory_mb()
        row = Row(f"overload: {3 * sustained:,.0f}/s where {sustained:,.0f}/s are sustained", "engine", results)
        self.report.rows.append(row)
        print(row.line(), flush=True)  # noqa: T201
        self._judge_overload(results, before, memory)

    def _judge_overload(self, results: list[Result], before: float, memory: dict[str, float]) -> None:
        def of(name: str) -> float:
            return median_of(results, name)

        judge = self.report.judge
        judge("overload: accepted p95 under 500 ms", f"{of('p95_ms'):.0f} ms", of("p95_ms") < 500.0)
        refused = sum(result["refused"] for result in results)
        told = sum(result["refused_with_retry_after"] for result in results)
        share, p95, lag = of("refused_in_50_ms"), of("refused_p95_ms"), of("lag_p95_ms")
        said = f"{share:.1%} (p95 {p95:.0f} ms, {lag:.0f} ms of which is the generator's)"
        judge("overload: the rest get 503 within 50 ms", said, share >= 0.95)
        judge("overload: each 503 says when to try again", f"{told:,} of {refused:,}", 0 < refused == told)
        errors = sum(result["errors"] for result in results)
        judge("overload: nobody without an answer", f"{errors}", errors == 0)
        judge("overload: recovers within 5 s", f"{of('recovered_s'):.1f} s", of("recovered_s") <= 5.0)
        said = f"{before:.0f} MB before, {memory['now']:.0f} MB after, {memory['peak']:.0f} MB at most"
        judge("overload: memory stays bounded", said, memory["peak"] < before + 200.0)

    def collapses(self) -> None:
        """All five in turn, on one server."""
        with engine("engine") as subject:
            subjects = [Subject(name, subject.url, subject.pid) for name in COLLAPSES]
            drive = lambda s, _: closed_loop(s, 64, self.seconds, s.name)  # noqa: E731
            self.compare("collapses: closed loop, 1 worker, 64 connections", subjects, drive)
        rates = [median_of(row.results, "rate") for row in self.report.rows[-len(COLLAPSES) :]]
        spread = max(rates) / min(rates) - 1.0
        self.report.judge("all collapses within 10% of each other", f"{spread:.1%}", spread <= 0.1)

    def catalogs(self) -> None:
        """Made-up catalogs of growing size."""
        with TemporaryDirectory() as folder, ExitStack() as stack:
            subjects = []
            for size in CATALOGS:
                settings = {"MONKEY_CODER_CATALOG": str(write_catalog(Path(folder), size))}
                subjects.append(stack.enter_context(engine(f"{size:,} models", settings=settings)))
            for count in (1, 64):
                title = f"catalogs: closed loop, 1 worker, {many(count, 'connection')}"
                self.compare(title, subjects, lambda s, _, c=count: closed_loop(s, c, self.seconds))
                few, more, most = self.report.rows[-len(CATALOGS) :]
                times = [1e3 / median_of(row.results, "rate") for row in (few, more, most)]
                said = f"{times[1] / times[0]:.2f} times ({times[0]:.2f} ms, {times[1]:.2f} ms)"
                goal = f"200 models instead of 20 less than double the time ({title})"
                self.report.judge(goal, said, times[1] < 2 * times[0])
                errors = sum(result["errors"] + result["refused"] for result in most.results)
                self.report.judge(f"2,000 models still answer ({title})", f"{times[2]:.2f} ms a decision", errors == 0)


SCENARIOS: Final[tuple[str, ...]] = ("closed", "open", "overload", "collapses", "catalogs")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two seconds and one round each; writes nothing")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 10)")
    parser.add_argument("--rounds", type=int, help="measurements of each (default 3)")
    parser.add_argument("--connections", type=int, default=1000, help="of the loads with many (default 1000)")
    parser.add_argument("--only", choices=[*SCENARIOS, "stages"], action="append", help="may be repeated")
    parser.add_argument("--against", metavar="REV", help="compare with another commit, in the same run")
    parser.add_argument("--out", type=Path, help="page to write (default docs/results/throughput.md)")
    given = parser.parse_args(arguments)
    if given.against and not is_commit(given.against):
        parser.error(f"--against: there is no commit {given.against!r} in this repository")
    allow_many_connections()
    chosen = given.only or [*SCENARIOS, "stages"]
    with ExitStack() as stack:
        bench = Bench(
            seconds=given.seconds or (2.0 if given.quick else 10.0),
            rounds=given.rounds or (1 if given.quick else 3),
            connections=given.connections,
            against=stack.enter_context(checkout(given.against)) if given.against else None,
        )
        for name in SCENARIOS:
            if name in chosen:
                getattr(bench, name)()
    if "stages" in chosen:
        bench.report.stages = stages(given.quick)
    bench.report.show()
    out = given.out or (None if given.quick or given.only else ROOT / "docs" / "results" / "throughput.md")
    if out is not None:
        said = " ".join(sys.argv[1:] if arguments is None else arguments)
        words = said.replace(f"--out {given.out}", "").split()  # where it was written is of no interest
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(bench.report.page(machine(ROOT), words, bench.seconds, bench.rounds, given.against))
        print(f"written: {out}")  # noqa: T201
    return 0


def stages(quick: bool) -> list[dict[str, Any]]:
    """The cost of a decision by stage, from `bench_stages.py` in a process of its own."""
    command = [sys.executable, str(HERE / "bench_stages.py"), "--json", *(["--quick"] if quick else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "packages" / "core")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
