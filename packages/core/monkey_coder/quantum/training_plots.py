"""The pictures of a model card, drawn from its figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOURS: Final = ("#d62728", "#ff9896", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


def draw_card(card: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw `curves.png`, `reliability.png` and `frontier.png`."""
    return {
        "curves.png": _png(_curves(card["training"])),
        "reliability.png": _png(_calibration(card["calibration"])),
        "frontier.png": _png(_frontier(card)),
    }


def _curves(training: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    losses = training["success_losses"]
    left.plot(range(1, len(losses) + 1), losses, color=_COLOURS[2])
    _label(left, "success model", "epoch", "held-out loss, nats")
    points = training["points"]
    steps = [point["step"] for point in points]
    middle.plot(steps, [point["loss"] for point in points], color=_COLOURS[0])
    _label(middle, "value network", "gradient step", "mean loss")
    right.plot(steps, [point["validation_reward"] for point in points], color=_COLOURS[3])
    right.axhline(training["lookahead"], color="black", linewidth=0.8, linestyle="--", label="lookahead alone")
    right.legend(frameon=False, fontsize=8)
    if training["chosen_step"]:
        right.axvline(training["chosen_step"], color="black", linewidth=0.8, linestyle=":")
    _label(right, "value network", "gradient step", "utility on held-out tasks")
    return figure


def _calibration(calibration: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    bins = calibration["bins"]
    axes.plot([row["foretold"] for row in bins], [row["seen"] for row in bins], "o-", color=_COLOURS[2])
    title = f"{calibration['outcomes']:,} held-out outcomes, mean distance {calibration['calibration_error']:.3f}"
    _label(axes, title, "P(success) foretold", "share of successes seen")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def _frontier(card: Mapping[str, Any]) -> Figure:
    validation = card["validation"]
    figure = Figure(figsize=(6.2 * len(validation["attempts"]), 4.4), layout="constrained")
    plots = figure.subplots(1, len(validation["attempts"]), squeeze=False)[0]
    for axes, (attempts, played) in zip(plots, validation["attempts"].items(), strict=True):
        for place, (name, rows) in enumerate(played.items()):
            cost = [row["cost"]["mean"] for row in rows]
            success = [row["success"]["mean"] for row in rows]
            colour = _COLOURS[place % len(_COLOURS)]
            style = "o--" if name == "lookahead" else "o-"
            above = 3 if name == "dqn" else 2
            axes.plot(cost, success, style, color=colour, label=name, markersize=3.5, linewidth=1.3, zorder=above)
        plural = "s" if attempts != "1" else ""
        title = f"{validation['tasks']:,} held-out tasks, up to {attempts} attempt{plural}"
        _label(axes, title, "mean cost of a task, USD", "mean success")
        axes.legend(frameon=False, fontsize=8)
    return figure


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
