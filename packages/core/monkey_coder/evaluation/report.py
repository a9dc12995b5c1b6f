"""A comparison as the JSON document that programs read, and as the tables that people read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from monkey_coder.evaluation.analysis import Comparison, Difference, Point, RouterResult
from monkey_coder.evaluation.protocol import ORACLE
from monkey_coder.evaluation.statistics import Interval

YARDSTICKS: Final = ("best_single", "ladder")
"""Routers that the table compares all others with."""

CHANCE: Final = "random"


def to_document(comparison: Comparison) -> dict[str, Any]:
    """Build the ``--json`` document: docs/reference/evaluation.md says what every figure means.

    Keys beyond the fixed ones appear only where they are needed: ``split`` or ``holdout`` where one table was divided;
    ``placebo``; in ``paired`` ``success_difference`` and ``attempts_difference`` where there are no costs; and in
    ``routers`` ``apgr``, ``cpt_50`` and ``cpt_80`` where there are two models.
    """
    prepared = comparison.prepared
    plan = prepared.plan
    document: dict[str, Any] = {
        "train": [str(path) for path in plan.train],
        "test": str(plan.test_source),
        "tasks": len(prepared.test),
        "dropped": prepared.dropped,
        "attempts": plan.attempts,
        "verifier_noise": plan.noise,
        "seeds": plan.seeds,
        "cost_ref": comparison.cost_ref,
        "singles": {
            model: {"success": single.success, "cost_usd": single.cost} for model, single in comparison.singles.items()
        },
        "routers": {
            name: _router(result, two_models=len(comparison.singles) == 2)
            for name, result in comparison.routers.items()
        },
        "paired": [_paired(difference) for difference in comparison.paired],
    }
    if plan.folds is not None:
        document["split"] = plan.folds
    if plan.holdout is not None:
        document["holdout"] = plan.holdout
    if plan.placebo:
        document["placebo"] = True
    return document


def write_json(path: Path, comparison: Comparison) -> None:
    """Write the document, indented."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    path.write_bytes(orjson.dumps(to_document(comparison), option=options))


def print_report(console: Console, comparison: Comparison) -> None:
    """Print the setting, the table of routers, and what should be known to read them."""
    prepared = comparison.prepared
    plan = prepared.plan
    facts = [
        f"{len(prepared.test):,} test tasks ({comparison.units:,} units resampled)",
        f"{prepared.dropped} rows dropped",
        f"{len(comparison.singles)} models",
        f"up to {plan.attempts} attempts",
        f"verifier noise {plan.noise:g}",
        f"{plan.seeds} seeds",
    ]
    if comparison.cost_ref is not None:
        facts.append(f"cost_ref {_usd(comparison.cost_ref)}")
    console.print(" · ".join(facts), highlight=False)
    console.print(_singles_line(comparison), highlight=False)
    console.print(_router_table(comparison))
    if any(name in comparison.routers for name in YARDSTICKS) and len(comparison.routers) > 1:
        console.print(_paired_table(comparison))
    if len(comparison.singles) == 2:
        console.print(_pair_table(comparison))
    if plan.placebo and CHANCE in comparison.routers:
        console.print(_placebo_table(comparison))
    for note in prepared.notes:
        console.print(f"Note: {note}.", highlight=False, markup=False)


def verdict(difference: Interval) -> str:
    """Say it in the words of the rules: better, not worse, or neither."""
    if difference.better:
        return "better"
    return "not worse" if difference.not_worse else "-"


def _router(result: RouterResult, *, two_models: bool) -> dict[str, Any]:
    aiq, pair = result.aiq, result.pair
    document: dict[str, Any] = {
        "points": [_point(point) for point in result.points],
        "aiq": aiq and aiq.value,
        "aiq_low": aiq and aiq.low,
        "aiq_high": aiq and aiq.high,
    }
    if two_models:
        document |= {
            "apgr": pair and pair.apgr,
            "cpt_50": pair and pair.cpt_50,
            "cpt_80": pair and pair.cpt_80,
        }
    return document


def _point(point: Point) -> dict[str, Any]:
    cost = point.cost
    return {
        "cost_weight": point.cost_weight,
        "success": point.success.value,
        "success_low": point.success.low,
        "success_high": point.success.high,
        "cost_usd": cost and cost.value,
        "cost_low": cost and cost.low,
        "cost_high": cost and cost.high,
        "attempts": point.attempts,
    }


def _paired(difference: Difference) -> dict[str, Any]:
    document: dict[str, Any] = {"router": difference.router, "against": difference.against}
    if difference.aiq is not None:
        return document | {
            "aiq_difference": difference.aiq.value,
            "low": difference.aiq.low,
            "high": difference.aiq.high,
        }
    return document | {
        "aiq_difference": None,
        "success_difference": difference.success.value,
        "low": difference.success.low,
        "high": difference.success.high,
        "attempts_difference": difference.attempts.value,
        "attempts_low": difference.attempts.low,
        "attempts_high": difference.attempts.high,
    }


def _singles_line(comparison: Comparison) -> str:
    singles = comparison.singles
    best = max(singles, key=lambda model: singles[model].success)
    line = f"Best single model on the test tasks: {best}, success {singles[best].success:.3f}"
    costs = [single.cost for single in singles.values() if single.cost is not None]
    if not costs:
        return line
    return f"{line}, {_usd(singles[best].cost)}; single models cost {_usd(min(costs))} to {_usd(max(costs))} a task"


def _router_table(comparison: Comparison) -> Table:
    has_costs = comparison.cost_ref is not None
    table = _table(
        "Routers at cost weight 0, with 95% intervals",
        ["router", *(["aiq"] if has_costs else []), "success", *(["USD"] if has_costs else []), "attempts"],
    )
    for name, result in comparison.routers.items():
        first = result.points[0]
        cells = [name, _estimate(first.success), f"{first.attempts:.2f}"]
        if result.aiq is not None and first.cost is not None:
            cells = [name, _estimate(result.aiq), cells[1], _usd(first.cost.value), cells[2]]
        table.add_row(*cells)
    return table


def _paired_table(comparison: Comparison) -> Table:
    measure = "success" if comparison.cost_ref is None else "aiq"
    table = _table(f"Paired differences of {measure}", ["router", "against", "difference", "verdict"])
    for other in (name for name in YARDSTICKS if name in comparison.routers):
        for each in comparison.paired:
            if each.against == other:
                difference = each.aiq or each.success
                table.add_row(each.router, other, _signed(difference), verdict(difference))
        table.add_section()
    return table


def _pair_table(comparison: Comparison) -> Table:
    table = _table("Two models: by how each router orders the prompts", ["router", "APGR", "CPT(50%)", "CPT(80%)"])
    for name, result in comparison.routers.items():
        if result.pair is not None:
            table.add_row(
                name, f"{result.pair.apgr:.3f}", *(_share(each) for each in (result.pair.cpt_50, result.pair.cpt_80))
            )
    return table


def _placebo_table(comparison: Comparison) -> Table:
    table = _table(
        "Placebo: minus random at cost weight 0",
        ["router", "success", "attempts", "contains 0"],
    )
    for each in comparison.paired:
        if each.against == CHANCE and each.router != ORACLE:
            inside = each.success.low <= 0.0 <= each.success.high
            table.add_row(each.router, _signed(each.success), _signed(each.attempts), "yes" if inside else "no")
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return table


def _estimate(each: Interval) -> str:
    return f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]".replace("[", "\\[")


def _signed(each: Interval) -> str:
    return f"{each.value:+.3f} [{each.low:+.3f}, {each.high:+.3f}]".replace("[", "\\[")


def _share(value: float | None) -> str:
    return "never" if value is None else f"{value:.1%}"


def _usd(value: float | None) -> str:
    return "-" if value is None else f"${value:.3g}"
