"""Where a choice would flip: variants of one recorded decision, and a search for the nearest that ends otherwise.

Three quantities are moved, one at a time, all else staying as it was: the cost weight lambda, the quality floor, and
the price of one model. A price moves the model's expected cost; with it go what follows from costs: the budget gate,
and (preferences given as weights) lambda itself, which is measured against the dearest candidate.

All directions of all quantities are searched at once: one batch on a coarse grid, two that refine the first step on
which the winner changes, and one that tries a value on either side of what was found. A model that would be chosen only
between two neighbours of the coarse grid is not found; `DECADES` and `STEPS` say how far and how finely is looked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.explanation import Quantity
from monkey_coder.quantum.gates import REASONS
from monkey_coder.quantum.reward import MOST_WEIGHT, reference_weights, references

STEPS: Final = 64
"""Values tried in each direction, and in each refinement."""

DECADES: Final = 3.0
"""How far cost weight and prices are moved, in powers of ten each way."""

MARGIN: Final = 5e-4
"""Distance of the two reported values from the flip between them: a share of it, for the floor absolute."""

NOBODY: Final = -1
"""Instead of a column: no model would be left to choose."""

_BUDGET: Final = 1 + REASONS.index("budget")


@dataclass(frozen=True, slots=True)
class Variants:
    """One recorded decision V times, each time otherwise; columns as in the record.

    Attributes:
        cost_weight: (V,) lambda.
        latency_weight: (V,) mu.
        quality_floor: (V,).
        cost_usd: (V, M) expected cost of one attempt.
        candidates: (V, M).
        cost_ref: (V,) USD of the dearest candidate.
        latency_ref: (V,) seconds of the slowest candidate.
        session_price: (V,) price of the model that the session used last, as a multiple of what it was.
    """

    cost_weight: FloatArray
    latency_weight: FloatArray
    quality_floor: FloatArray
    cost_usd: FloatArray
    candidates: BoolArray
    cost_ref: NDArray[np.float64]
    latency_ref: NDArray[np.float64]
    session_price: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.cost_weight)


Winners = Callable[[Variants], IntArray]
"""(V,) the column that wins each variant, or `NOBODY`."""


@dataclass(frozen=True, slots=True)
class Path:
    """One direction in which one quantity is moved.

    Attributes:
        quantity: What moves.
        column: Whose price; -1 for the other quantities.
        values: From the present value to the end of the range, at least two.
    """

    quantity: Quantity
    column: int
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A flip on a path.

    Attributes:
        until: Value at which the choice is still the same.
        at: Value, further on, at which it is another.
        column: Who wins there, or `NOBODY`.
    """

    until: float
    at: float
    column: int


def vary(record: DecisionRecord, quantity: Quantity, column: int, values: NDArray[np.float64]) -> Variants:
    """Move one quantity of a decision to each of the values.

    Args:
        record: The decision.
        quantity: What to move.
        column: Whose price, where that is what moves.
        values: (V,) where to.
    """
    count = len(values)

    def each(value: float | np.floating) -> FloatArray:
        return np.full(count, value, dtype=np.float32)

    cost_weight, latency_weight = each(record.cost_weight), each(record.latency_weight)
    floor = each(record.quality_floor)
    cost_usd, latency_s = np.tile(record.cost_usd, (count, 1)), np.tile(record.latency_s, (count, 1))
    candidates = np.tile(record.candidates, (count, 1))
    session_price = np.ones(count, dtype=np.float64)
    if quantity == "cost_weight":
        cost_weight = values.astype(np.float32)
    elif quantity == "quality_floor":
        floor = values.astype(np.float32)
    elif record.exclusions[column] in (0, _BUDGET):
        cost_usd[:, column] = values
        candidates[:, column] = (values <= record.budget_usd) & record.available[column]
        if column == record.last and record.cost_usd[column] > 0:
            session_price = values / record.cost_usd[column]
    cost_ref, latency_ref = references(cost_usd, latency_s, candidates)
    if quantity == "price":
        moved, slowed = reference_weights([record.preferences] * count, cost_ref, latency_ref)
        # Where the references are what they were, the recorded weights are the more exact.
        was_cost, was_latency = references(record.cost_usd[None], record.latency_s[None], record.candidates[None])
        cost_weight = np.where(cost_ref == was_cost, cost_weight, moved)
        latency_weight = np.where(latency_ref == was_latency, latency_weight, slowed)
    return Variants(cost_weight, latency_weight, floor, cost_usd, candidates, cost_ref, latency_ref, session_price)


def paths(record: DecisionRecord, quantity: Quantity, column: int = -1) -> tuple[Path | None, Path | None]:
    """The ways down and up from the present value; None where there is nowhere to go, or it could not matter."""
    down, up = _RANGES[quantity](record, column)
    return tuple(  # type: ignore[return-value]  # two in, two out
        Path(quantity, column, values) if len(values) > 1 else None for values in (down, up)
    )


def _cost_weights(record: DecisionRecord, _: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cost_ref, _latency = references(record.cost_usd[None], record.latency_s[None], record.candidates[None])
    if cost_ref[0] <= 0:  # all candidates are free
        return np.zeros(0), np.zeros(0)
    now, unit = record.cost_weight, 1.0 / float(cost_ref[0])
    down, up = _decades(now, unit, MOST_WEIGHT)
    # A solved task cannot be worth infinitely much: with `value_usd` lambda does not reach 0.
    return (down[:-1] if record.preferences.value_usd is not None else down), up


def _floors(record: DecisionRecord, _: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    now = record.quality_floor
    return (
        np.linspace(now, 0.0, STEPS) if now > 0 else np.zeros(0),
        np.linspace(now, 1.0, STEPS) if now < 1 else np.zeros(0),
    )


def _prices(record: DecisionRecord, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if record.exclusions[column] not in (0, _BUDGET):
        return np.zeros(0), np.zeros(0)
    dearest = float(np.max(record.cost_usd))
    return _decades(float(record.cost_usd[column]), dearest if dearest > 0 else 1e-3, np.inf)


_RANGES: Final = {"cost_weight": _cost_weights, "quality_floor": _floors, "price": _prices}


def _decades(now: float, unit: float, most: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Powers of ten down from `now`, ending in 0, and up from it; from `unit` where `now` is 0."""
    span = 10.0**DECADES
    down = np.append(np.geomspace(now, min(now, unit) / span, STEPS), 0.0) if now > 0 else np.zeros(0)
    highest = min(max(now, unit) * span, most)
    lowest = now if now > 0 else unit / span
    up = np.geomspace(lowest, highest, STEPS) if highest > lowest else np.zeros(0)
    return down, up if now > 0 else np.append(0.0, up)


def nearest_flips(record: DecisionRecord, ways: Sequence[Path], winners: Winners, base: int) -> list[Crossing | None]:
    """Find the first change of the winner on each path.

    Args:
        record: The decision.
        ways: Where to look.
        winners: Decides variants again.
        base: The winner at the present value.

    Returns:
        One crossing per path; None where the winner stays the same on all values tried.
    """
    found: list[Crossing | None] = [None] * len(ways)
    grids: dict[int, NDArray[np.float64]] = {place: way.values for place, way in enumerate(ways)}
    for _ in range(3):
        decided = _decide(record, [(ways[place], grid) for place, grid in grids.items()], winners)
        finer: dict[int, NDArray[np.float64]] = {}
        for (place, grid), columns in zip(grids.items(), decided, strict=True):
            others = np.flatnonzero(columns[1:] != base)  # the first value is known not to flip
            if others.size:
                first = int(others[0]) + 1
                found[place] = Crossing(float(grid[first - 1]), float(grid[first]), int(columns[first]))
                finer[place] = np.linspace(grid[first - 1], grid[first], STEPS + 1)
        grids = finer
    return _centred(record, ways, found, winners, base)


def _centred(
    record: DecisionRecord, ways: Sequence[Path], found: Sequence[Crossing | None], winners: Winners, base: int
) -> list[Crossing | None]:
    """Step back from each flip on both sides, so that rounding cannot undo it, where the choice is clear there."""
    wider: dict[int, NDArray[np.float64]] = {}
    for place, crossing in enumerate(found):
        if crossing is not None:
            middle, width = (crossing.until + crossing.at) / 2, abs(crossing.at - crossing.until)
            step = max(MARGIN if ways[place].quantity == "quality_floor" else MARGIN * middle, width)
            ends = middle + np.array([-step, step]) * np.sign(crossing.at - crossing.until)
            start, end = ways[place].values[[0, -1]]
            wider[place] = np.clip(ends, min(start, end), max(start, end))
    decided = _decide(record, [(ways[place], ends) for place, ends in wider.items()], winners)
    centred = list(found)
    for (place, ends), (before, beyond) in zip(wider.items(), decided, strict=True):
        if before == base and beyond != base:
            centred[place] = Crossing(float(ends[0]), float(ends[1]), int(beyond))
    return centred


def _decide(
    record: DecisionRecord, asked: Sequence[tuple[Path, NDArray[np.float64]]], winners: Winners
) -> list[IntArray]:
    """Decide the variants of all paths in one batch, and hand each path its own."""
    if not asked:
        return []
    parts = [vary(record, way.quantity, way.column, values) for way, values in asked]
    together = Variants(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Variants.__dataclass_fields__)
    )
    return np.split(winners(together), np.cumsum([len(part) for part in parts])[:-1])
