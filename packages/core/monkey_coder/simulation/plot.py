"""A report as one picture: regret, and success per dollar, day by day."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monkey_coder.simulation.report import Report
from monkey_coder.simulation.run import ENGINE, GARY8D, LADDER, ORACLE, SINGLE, UNTOLD
from monkey_coder.simulation.world import World

COLOURS: Final = {
    ENGINE: "#d62728",
    UNTOLD: "#ff9896",
    ORACLE: "black",
    SINGLE: "#7f7f7f",
    LADDER: "#1f77b4",
    GARY8D: "#2ca02c",
}


def write_plot(path: Path, report: Report) -> None:
    """Draw a report as a PNG (or what the ending of the name says)."""
    figure = Figure(figsize=(9.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw(upper, report, "regret", "regret a task, in successes")
    _draw(lower, report, "success_per_usd", "successes per USD")
    lower.set_xlabel("day")
    world = report.lives[0].world
    _mark(upper, world)
    seeds = len(report.lives)
    upper.set_title(f"{report.days} days, about {world.tasks_per_day} tasks a day, mean of {seeds} worlds", fontsize=10)
    lower.legend(loc="upper left", frameon=False, fontsize=8, ncols=3)
    figure.savefig(path, dpi=90)


def _draw(axes: Axes, report: Report, name: str, label: str) -> None:
    days = np.arange(1, report.days + 1)
    for router in report.routers:
        if name == "regret" and router == ORACLE:
            continue
        mean, half = report.daily(router, name)
        colour = COLOURS.get(router, "#9467bd")
        style = "--" if router == ORACLE else "-"
        axes.plot(days, mean, color=colour, linestyle=style, linewidth=2.0 if router == ENGINE else 1.2, label=router)
        if half is not None and router == ENGINE:
            axes.fill_between(days, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.25)


def _mark(axes: Axes, world: World) -> None:
    events = (
        (world.cut[1], "a price falls"),
        (world.newcomer_day, "new model"),
        (world.drift[1], "the favourite gets worse"),
        (world.rise[1], "a price rises"),
    )
    for day, words in events:
        axes.axvline(day + 0.5, color="black", alpha=0.3, linewidth=0.8)
        axes.annotate(
            words, (day + 0.6, 0.98), xycoords=("data", "axes fraction"), rotation=90, va="top", fontsize=7, alpha=0.7
        )
