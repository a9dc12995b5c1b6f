"""From measurements to a table on the terminal, and to the page docs/results/throughput.md."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HEAD = (
    "Scenario",
    "Subject",
    "answers/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "CPU µs an answer",
    "errors",
    "rate of the first ÷ this",
)
STAGE_HEAD = ("Stage", "µs a decision, batch of 1", "µs a decision, batch of 64")


def median_of(results: Sequence[Mapping[str, Any]], name: str) -> float:
    """Median over the rounds; NaN where there is nothing."""
    values = [result[name] for result in results if result.get(name) is not None]
    return float(statistics.median(values)) if values else float("nan")


@dataclass
class Row:
    """One subject in one scenario.

    Attributes:
        title: The scenario.
        subject: What was driven.
        results: One per round.
        ratios: Rate of the scenario's first subject by this one's, per round; empty for the first.
    """

    title: str
    subject: str
    results: list[dict[str, Any]]
    ratios: list[float] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        def of(name: str, digits: int) -> str:
            value = median_of(self.results, name)
            return "-" if value != value else f"{value:,.{digits}f}"

        accepted = [result for result in self.results if "accepted" in result]
        rate = (
            f"{median_of(accepted, 'accepted') / median_of(accepted, 'requests') * median_of(accepted, 'rate'):,.0f}"
            if accepted
            else of("rate", 0)
        )
        errors = sum(result["errors"] for result in self.results)
        refused = sum(result["refused"] for result in self.results)
        ratio = "-"
        if self.ratios:
            low, high = min(self.ratios), max(self.ratios)
            ratio = f"{statistics.median(self.ratios):.2f} ({low:.2f} to {high:.2f})"
        said = f"{errors}" + (f", {refused:,} refused" if refused else "")
        return (
            self.title,
            self.subject,
            rate,
            of("p50_ms", 2),
            of("p95_ms", 2),
            of("p99_ms", 2),
            of("cpu_us", 0),
            said,
            ratio,
        )

    def line(self) -> str:
        return " | ".join(self.cells())


@dataclass
class Report:
    """All that was measured.

    Attributes:
        rows: Of the loads.
        goals: What should hold, what was found, and whether it holds.
        stages: See `bench_stages.py`.
    """

    rows: list[Row] = field(default_factory=list)
    goals: list[tuple[str, str, bool]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def judge(self, goal: str, found: str, met: bool) -> None:
        """Note whether a goal was met."""
        self.goals.append((goal, found, met))

    def tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """Title, head and lines of each table that has any."""
        goals = [(goal, found, "yes" if met else "no") for goal, found, met in self.goals]
        stages = [(s["stage"], f"{s['batch_1_us']:.1f}", f"{s['batch_64_us']:.1f}") for s in self.stages]
        found = [
            ("Under load", HEAD, [row.cells() for row in self.rows]),
            ("Goals", ("Goal", "Found", "Met"), goals),
            ("The cost of a decision by stage, in CPU time", STAGE_HEAD, stages),
        ]
        return [each for each in found if each[2]]

    def show(self) -> None:
        """Print all tables."""
        console = Console()
        console = console if console.is_terminal else Console(width=160)
        for title, head, lines in self.tables():
            table = Table(*head, title=title, title_justify="left")
            for line in lines:
                table.add_row(*line)
            console.print(table)

    def page(
        self, about: Mapping[str, str], words: Sequence[str], seconds: float, rounds: int, against: str | None
    ) -> str:
        """The page for docs/results."""
        lines = [
            "# Throughput",
            "",
            f"Medians of {rounds} rounds of {seconds:g} s each; ratios are taken within a round, with their range.",
            "Load generator and server share the machine. Every prompt is different; no answer comes from a cache.",
            "",
            f"- Command: `{' '.join(['python packages/core/tests/benchmarks/bench_http.py', *words])}`",
            *(f"- {name}: {value}" for name, value in about.items()),
            *([f"- The other commit: {against}"] if against else []),
            "",
            "Closed loops are driven by wrk. Open loops send at a constant rate, and measure each latency from the",
            "moment at which the request was due. The yardstick, *plain Starlette*, validates the same body with the",
            "same code, on the same server with the same options, and decides nothing. CPU time is that of all",
            "processes of the server; other work on the machine changes it less than it changes the rate.",
        ]
        for title, head, rows in self.tables():
            lines += ["", f"## {title}", "", _line(head), _line(["---"] * len(head)), *map(_line, rows)]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine(root: Path) -> dict[str, str]:
    """What was measured where, and when."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = " with changes that are not committed" if git("status", "--porcelain", "-uno") else ""
    cores = len(os.sched_getaffinity(0))
    load = Path("/proc/loadavg").read_text().split()[0]
    return {
        "Machine": f"{model}, {cores} cores, {platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Commit": git("rev-parse", "--short=12", "HEAD") + changed,
        "Load of the machine when it ended (1 minute)": load,
    }
