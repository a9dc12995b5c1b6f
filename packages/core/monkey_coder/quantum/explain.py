"""Why this model, why not that one, and where the choice would flip, in values and in true sentences.

Reasons come from the record alone (`reasons`). Flip points, and what would be chosen today, come from deciding variants
of the record again (`Replayer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from monkey_coder.models import Exclusion
from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.decision_views import model_views, strategy_views, winner_of
from monkey_coder.quantum.explanation import Explanation, FlipAxis, FlipPoint, Precedent, Quantity
from monkey_coder.quantum.flip_points import NOBODY, Crossing, Path, Variants, nearest_flips, paths, vary
from monkey_coder.quantum.reasons import number, why, why_not

PRECEDENTS = 5
MOST_COST = 1e6
"""Largest weight that preferences take."""

FindPrecedents = Callable[[FloatArray, int], Sequence[Precedent]]
"""Takes a prompt's embedding and how many are wanted; returns earlier decisions, the most similar first."""


class Replayer(Protocol):
    """Decides variants of one record by the strategies of today."""

    @property
    def obstacle(self) -> str | None:
        """Why it cannot; None when it can."""
        ...

    def deployments_of(self, ref: str) -> frozenset[str]:
        """Refs of all deployments of the same model, this one included."""
        ...

    def winners(self, variants: Variants) -> IntArray:
        """(V,) the winning column of each variant, or `NOBODY`."""
        ...


def explain(
    record: DecisionRecord, replayer: Replayer, instead: str | None = None, precedents: FindPrecedents | None = None
) -> Explanation:
    """Explain one decision.

    Args:
        record: The decision.
        replayer: For flip points.
        instead: Ref of a model that somebody expected instead; it need not have been in the catalog.
        precedents: Finds similar decisions; None: nobody can.
    """
    notes: list[str] = []
    today: str | None = None
    flips: tuple[FlipAxis, ...] = ()
    if replayer.obstacle is None:
        column = record.refs.index(instead) if instead in record.refs else None
        first, flips = _flips(record, replayer, column)
        if first == NOBODY:
            notes.append("none of the strategies of today has an opinion on this request, so there are no flip points")
        else:
            today = record.refs[first]
            if first != record.winner:
                notes.append(
                    f"the strategies have learned since: today they would choose {today}, "
                    "and flip points are measured from there"
                )
    else:
        notes.append(f"there are no flip points: {replayer.obstacle}")
    found: list[Precedent] = []
    if precedents is not None and record.dimensions:
        found = [p for p in precedents(record.embedding, PRECEDENTS + 1) if p.decision_id != record.id][:PRECEDENTS]
    same = replayer.deployments_of(record.refs[record.winner]) if record.refs else frozenset()
    return Explanation(
        decision_id=record.id,
        served=record.served,
        winner=winner_of(record),
        why=why(record, same),
        instead=None if instead is None else why_not(record, instead, same),
        models=model_views(record),
        strategies=strategy_views(record),
        excluded=tuple(Exclusion.model_validate(each, strict=False) for each in record.answer["excluded"]),
        today=today,
        flips=flips,
        precedents=tuple(found),
        notes=tuple(notes),
    )


def _flips(record: DecisionRecord, replayer: Replayer, instead: int | None) -> tuple[int, tuple[FlipAxis, ...]]:
    """Today's winner, and how far each quantity could move before it changes."""
    base = int(replayer.winners(vary(record, "quality_floor", -1, np.array([record.quality_floor])))[0])
    if base == NOBODY:
        return base, ()
    axes: list[tuple[Quantity, int]] = [("cost_weight", -1), ("quality_floor", -1), ("price", base)]
    if instead is not None and instead != base:
        axes.append(("price", instead))
    ways = [paths(record, quantity, column) for quantity, column in axes]
    open_ways: list[Path] = [way for both in ways for way in both if way is not None]
    crossings = iter(nearest_flips(record, open_ways, replayer.winners, base))
    told = []
    for (quantity, column), both in zip(axes, ways, strict=True):
        now = _now(record, quantity, column)
        lower, higher = (None if way is None else _flip_point(record, way, next(crossings), now, base) for way in both)
        ends = [float(way.values[-1]) for way in both if way is not None]
        told.append(
            FlipAxis(
                quantity=quantity,
                model=None if column < 0 else record.refs[column],
                now=now,
                lowest=min([now, *ends]),
                highest=max([now, *ends]),
                lower=lower,
                higher=higher,
            )
        )
    return base, tuple(told)


def _now(record: DecisionRecord, quantity: Quantity, column: int) -> float:
    if quantity == "price":
        return float(record.cost_usd[column])
    return record.cost_weight if quantity == "cost_weight" else record.quality_floor


def _flip_point(
    record: DecisionRecord, way: Path, crossing: Crossing | None, now: float, base: int
) -> FlipPoint | None:
    if crossing is None:
        return None
    at = crossing.at
    cost, value_usd, factor = None, None, None
    if way.quantity == "cost_weight":
        if record.preferences.value_usd is None:
            dearest = float(np.max(np.where(record.candidates, record.cost_usd, 0.0)))
            cost = at * dearest * record.preferences.quality
            cost = cost if cost <= MOST_COST else None
        value_usd = 1.0 / at if at > 0 else None
        if cost is not None:
            asks = f"preferences.cost {number(cost)}"
        else:
            asks = "beyond any preference" if value_usd is None else f"preferences.value_usd {number(value_usd)}"
        what = f"At a cost weight of {number(at)} successes per USD ({asks}) instead of {number(now)}"
    elif way.quantity == "quality_floor":
        was = f"instead of {number(now)}" if now > 0 else "where there was none"
        what = "Without a quality floor" if at == 0 else f"With a quality floor of {number(at)} {was}"
    else:
        factor = at / now if now > 0 else None
        what = f"Had {record.refs[way.column]} cost {number(at)} USD for this request instead of {number(now)}"
    model = None if crossing.column == NOBODY else record.refs[crossing.column]
    then = f"{model} would have been chosen" if model else "no model would have been left to choose"
    return FlipPoint(
        at=at,
        until=crossing.until,
        model=model,
        cost=cost,
        value_usd=value_usd,
        factor=factor,
        sentence=f"{what}, {then} instead of {record.refs[base]}.",
    )
