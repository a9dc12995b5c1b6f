"""From lives to figures with intervals: what each router achieved day by day, and how far regret fell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student_t

from monkey_coder.simulation.run import ENGINE, ORACLE, Days, Life
from monkey_coder.simulation.world import Floats

LEVEL: Final = 0.95
EDGE_DAYS: Final = 3
"""Days at the beginning and at the end that are also put together, for one day is a small sample."""
RESAMPLES: Final = 2_000
FEWEST_SEEDS: Final = 3
"""Below this a spread between seeds says nothing."""

FIGURES: Final = ("success", "usd_per_task", "success_per_usd", "utility", "regret")


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval over seeds; the ends are None where there are too few seeds.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """As JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Report:
    """What several lives have in common; S seeds and D days.

    Attributes:
        lives: One per seed.
    """

    lives: tuple[Life, ...]

    @property
    def routers(self) -> tuple[str, ...]:
        """Names, the engine first."""
        return tuple(self.lives[0].routers)

    @property
    def days(self) -> int:
        """How many days each life had."""
        return self.lives[0].world.days

    def figure(self, router: str, name: str) -> Floats:
        """(S, D) one of `FIGURES`, per task where it is not a ratio."""
        return np.array([_figure(life.routers[router], name) for life in self.lives])

    def daily(self, router: str, name: str) -> tuple[Floats, Floats | None]:
        """(D,) the mean over seeds, and half the width of its interval (Student's t); None with too few seeds."""
        values = self.figure(router, name)
        mean = values.mean(axis=0)
        if len(values) < FEWEST_SEEDS:
            return mean, None
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        return mean, error * float(student_t.ppf(0.5 + LEVEL / 2.0, len(values) - 1))

    def change(self, router: str, name: str, edge: int = 1) -> Interval:
        """The ratio of a figure in the last days to the first, less 1; -0.5: it has halved.

        Args:
            router: Whose.
            name: One of `FIGURES`.
            edge: Days at either end that are put together.
        """
        values = self.figure(router, name)
        first, last = values[:, :edge].mean(axis=1), values[:, -edge:].mean(axis=1)
        value = _ratio(first.mean(), last.mean())
        if len(values) < FEWEST_SEEDS:
            return Interval(value, None, None)
        drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
        resampled = [_ratio(first[rows].mean(), last[rows].mean()) for rows in drawn]
        low, high = np.quantile(resampled, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
        return Interval(value, float(low), float(high))

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        world = self.lives[0].world
        return {
            "days": self.days,
            "tasks_per_day": world.tasks_per_day,
            "seeds": [life.world.seed for life in self.lives],
            "worlds": [life.world.described() for life in self.lives],
            "change": {
                f"{name}_over_{edge}_days": {r: self.change(r, name, edge).as_json() for r in self._with_regret(name)}
                for name in ("success_per_usd", "regret")
                for edge in (1, self._edge)
            },
            "routers": {
                router: {name: _daily_json(*self.daily(router, name)) for name in FIGURES} for router in self.routers
            },
        }

    @property
    def _edge(self) -> int:
        return min(EDGE_DAYS, max(1, self.days // 2))

    def _with_regret(self, name: str) -> tuple[str, ...]:
        return tuple(router for router in self.routers if name != "regret" or router != ORACLE)

    def print(self, console: Console, *, daily: bool) -> None:
        """Say it in tables.

        Args:
            console: Where to.
            daily: Whether to add a row for each day.
        """
        world, edge = self.lives[0].world, self._edge
        seeds = ", ".join(str(life.world.seed) for life in self.lives)
        console.print(f"{self.days} days, about {world.tasks_per_day} tasks a day; seeds {seeds}")
        table = Table(title=f"first {edge} → last {edge} days")
        table.add_column("router", no_wrap=True)
        for head in ("success", "USD a task", "success/USD", "regret"):
            table.add_column(head, justify="right", no_wrap=True)
        for router in self.routers:
            cells = []
            for name, digits in (("success", 3), ("usd_per_task", 3), ("success_per_usd", 1), ("regret", 3)):
                mean, _ = self.daily(router, name)
                cells.append(f"{mean[:edge].mean():.{digits}f}→{mean[-edge:].mean():.{digits}f}")
            table.add_row(router, *cells)
        console.print(table)
        for name, words in (("success_per_usd", "success per USD"), ("regret", "regret a task")):
            for days in (1, edge):
                console.print(f"{ENGINE}: {words} {_told(self.change(ENGINE, name, days))} ({_edges(days, self.days)})")
        if daily:
            console.print(self._daily_table())

    def _daily_table(self) -> Table:
        table = Table(title=f"{ENGINE}, day by day (95% intervals over seeds)")
        table.add_column("day", justify="right")
        for head in ("success", "USD a task", "success/USD", "regret"):
            table.add_column(head, justify="right", no_wrap=True)
        columns = [self.daily(ENGINE, name) for name in FIGURES if name != "utility"]
        for day in range(self.days):
            row = [f"{m[day]:.3f}" + (f"±{half[day]:.3f}" if half is not None else "") for m, half in columns]
            table.add_row(str(day + 1), *row)
        return table


def write_json(path: Path, report: Report) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")


def _figure(days: Days, name: str) -> Floats:
    tasks, solved = np.array(days.tasks, np.float64), np.array(days.solved, np.float64)
    spent = np.array(days.spent_usd)
    each = np.maximum(tasks, 1.0)
    figures = {
        "success": solved / each,
        "usd_per_task": spent / each,
        "success_per_usd": solved / np.maximum(spent, 1e-12),
        "utility": np.array(days.utility) / each,
        "regret": np.array(days.regret) / each,
    }
    return np.asarray(figures[name], np.float64)


def _ratio(first: float, last: float) -> float:
    return float(last / first - 1.0) if first != 0.0 else float("nan")


def _told(change: Interval) -> str:
    said = f"{change.value:+.0%}"
    return said if change.low is None else f"{said} [{change.low:+.0%}, {change.high:+.0%}]"


def _edges(edge: int, days: int) -> str:
    return f"day {days} against day 1" if edge == 1 else f"the last {edge} days against the first {edge}"


def _daily_json(mean: Floats, half: Floats | None) -> dict[str, list[float] | None]:
    low, high = (None, None) if half is None else ((mean - half).tolist(), (mean + half).tolist())
    return {"mean": mean.tolist(), "low": low, "high": high}


def seeds_from(first: int, count: int) -> Sequence[int]:
    """So many seeds, from the first on."""
    return range(first, first + count)
