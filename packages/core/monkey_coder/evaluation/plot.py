"""The comparison as one picture: frontiers over cost, or success alone where there are no costs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from monkey_coder.evaluation.analysis import Comparison
from monkey_coder.evaluation.protocol import ORACLE
from monkey_coder.evaluation.statistics import frontier_band

COLOURS: Final = ("#7f7f7f", "#17becf", "#1f77b4", "#8c564b", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#e377c2")
STYLES: Final = ("-", (0, (5, 2)), (0, (2, 1.5)))
"""Line styles in turn, so that of routers that do the same none is hidden."""

GRID_POINTS: Final = 120
BAND_RESAMPLES: Final = 400
"""Resamples behind a shaded interval: enough for the eye."""

_LABEL_PLACES: Final = [(dx, dy) for dy in (-3, -12, 6, -22, 14, -32) for dx in (6, -6)]
"""Offsets of a label from its dot, in points, the best first."""
_LABEL_POINTS: Final = 7.5


def write_plot(path: Path, comparison: Comparison) -> None:
    """Draw the comparison as a PNG (or what the ending of the name says)."""
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if comparison.cost_ref is None:
        _draw_success(axes, comparison)
    else:
        _draw_frontiers(axes, comparison, canvas)
    figure.savefig(path, dpi=130)


def _title(comparison: Comparison) -> str:
    plan = comparison.prepared.plan
    placebo = "PLACEBO, " if plan.placebo else ""
    return (
        f"{placebo}{plan.test_source.name}: {len(comparison.prepared.test):,} tasks, up to {plan.attempts} "
        f"attempt{'s' if plan.attempts > 1 else ''}, verifier noise {plan.noise:g}"
    )


def _draw_frontiers(axes: Axes, comparison: Comparison, canvas: FigureCanvasAgg) -> None:
    costs = {model: single.cost or 0.0 for model, single in comparison.singles.items()}
    low, high = min(costs.values()), max(costs.values())
    grid = np.linspace(0.0, high * 1.06, GRID_POINTS)
    for i, (name, result) in enumerate(comparison.routers.items()):
        at = np.unique(np.concatenate([grid, result.cost[0].clip(0.0, grid[-1])]))  # its corners stay sharp
        drawn = slice(BAND_RESAMPLES + 1)
        middle, lower, upper = frontier_band(result.cost[drawn], result.success[drawn], at)
        label = name if result.aiq is None else f"{name} (aiq {result.aiq.value:.3f})"
        if name == ORACLE:
            axes.plot(at, middle, "k--", linewidth=1.2, label=label)
            continue
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(at, middle, color=colour, linewidth=1.9, linestyle=STYLES[i % len(STYLES)], label=label)
        axes.fill_between(at, lower, upper, color=colour, alpha=0.10, linewidth=0)
    axes.axvspan(low, high, color="black", alpha=0.02, linewidth=0)
    axes.set(
        title=_title(comparison),
        xlabel="mean cost of a task, USD",
        ylabel="mean success",
        xlim=(0.0, float(grid[-1])),
        ylim=(min(single.success for single in comparison.singles.values()) - 0.05, 1.0),
    )
    axes.grid(alpha=0.25)
    points = np.array([(costs[model], single.success) for model, single in comparison.singles.items()])
    axes.scatter(points[:, 0], points[:, 1], s=26, color="black", zorder=5, label="single model")
    axes.get_figure(root=True).legend(loc="outside right upper", frameon=False, fontsize=9)  # type: ignore[union-attr]
    _label_best(axes, tuple(comparison.singles), points, canvas)


def _label_best(
    axes: Axes,
    names: tuple[str, ...],
    points: NDArray[np.float64],
    canvas: FigureCanvasAgg,
) -> None:
    """Name the single models that no other beats in both cost and success, where there is room."""
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    frame = axes.get_window_extent(renderer)
    dots = _boxes(axes.transData.transform(points), 7)
    curves = [box for line in axes.lines for box in _boxes(line.get_transform().transform(line.get_xydata()), 1)]
    labels: list[Bbox] = []
    for i in np.argsort(-points[:, 1], kind="stable"):
        cost, success = points[i]
        if ((points[:, 0] <= cost) & (points[:, 1] > success)).any():
            continue
        in_the_way = [*labels, *(dot for dot in dots if dot is not dots[i]), *curves]
        for dx, dy in _LABEL_PLACES:
            text = axes.annotate(
                names[i],
                (cost, success),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                fontsize=_LABEL_POINTS,
                zorder=6,
            )
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(each) for each in in_the_way):
                labels.append(box)
                break
            text.remove()


def _boxes(pixels: NDArray[np.float64], half: float) -> list[Bbox]:
    return [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in pixels]


def _draw_success(axes: Axes, comparison: Comparison) -> None:
    names = list(comparison.routers)
    for row, name in enumerate(names):
        point = comparison.routers[name].points[0].success
        colour = "black" if name == ORACLE else COLOURS[row % len(COLOURS)]
        axes.plot([point.low, point.high], [row, row], color=colour, linewidth=7, alpha=0.25, solid_capstyle="butt")
        axes.plot(point.value, row, "o", color=colour)
        axes.annotate(
            f"{point.value:.3f}", (point.value, row), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9
        )
    successes = [single.success for single in comparison.singles.values()]
    axes.plot(successes, [len(names)] * len(successes), "o", color="black", alpha=0.5, markersize=5)
    axes.set(title=_title(comparison), xlabel="mean success (bar: 95% interval)", ylim=(len(names) + 0.6, -0.6))
    axes.set_yticks(range(len(names) + 1), [*names, "single models"])
    axes.grid(axis="x", alpha=0.25)
