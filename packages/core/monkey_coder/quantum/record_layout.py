"""Where the two arrays of a decision's record hold what, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

SCALARS: Final = ("complexity", "cost_weight", "latency_weight", "quality_floor")
PER_STRATEGY: Final = ("confidence", "reliability", "arrival")
PER_MODEL: Final = (
    "prior",
    "evidence",
    "cost_usd",
    "latency_s",
    "distribution",
    "success",
    "low",
    "high",
    "collapsed",
)
"""Floats that every record has: once, per strategy, and per model."""

MARKS: Final = {"usd": 8, "order": 2, "exclusions": 1, "attempts": 1, "available": 1}
"""In how many bytes per model every record has what else there is per model."""


@dataclass(frozen=True)
class Layout:
    """Of a record's floats, and of its bytes.

    Attributes:
        models: M.
        strategies: N.
        state: Entries of the state.
        extra: What else there is in floats per model: `bonus`, and `utility 0` or `chances 0` of the first strategy.
    """

    models: int
    strategies: int
    state: int
    extra: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> Mapping[str, slice]:
        """Where the float array has what."""
        once = [*((name, 1) for name in SCALARS), *((name, self.strategies) for name in PER_STRATEGY)]
        return _side_by_side([*once, ("state", self.state), *((n, self.models) for n in (*PER_MODEL, *self.extra))])

    @cached_property
    def marks(self) -> Mapping[str, slice]:
        """Where the byte array has what."""
        per_model = [(name, size * self.models) for name, size in MARKS.items()]
        return _side_by_side([*per_model, ("first", 2 * self.strategies), ("voting", self.strategies)])

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """How many floats, and how many bytes."""
        return max(place.stop for place in self.numbers.values()), max(place.stop for place in self.marks.values())


def _side_by_side(sizes: Iterable[tuple[str, int]]) -> dict[str, slice]:
    places, start = {}, 0
    for name, size in sizes:
        places[name] = slice(start, start + size)
        start += size
    return places
