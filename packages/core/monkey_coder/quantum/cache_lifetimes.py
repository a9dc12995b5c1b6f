"""How long cached decisions live: the longer, the less could turn them, and the less is being learned that might."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import Clock

LESSONS: Final = 3_000
"""Outcomes, of all that are reported, that may come in until the least steady decision is made again."""
SHORTEST_S: Final = 10.0
CALM_S: Final = 1_800.0
"""Life of the least steady decision while hardly anything is learned."""
LONGEST_S: Final = 7_200.0
MEMORY_S: Final = 300.0
"""Time after which an outcome counts for a third (1/e) in how fast outcomes come."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long entries live.

    Attributes:
        shortest_s: Of a decision that strategies do not agree on.
        longest_s: Of one that could not be clearer.
        jitter: Every lifetime is drawn within this part above and below, so that entries do not expire together.
    """

    shortest_s: float = CALM_S
    longest_s: float = LONGEST_S
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.shortest_s <= self.longest_s or not 0.0 <= self.jitter < 1.0:
            raise ValueError("shortest_s must be above 0 and not above longest_s, jitter from 0 to below 1")

    def drawn(self, stability: NDArray[np.floating[Any]], rng: np.random.Generator) -> list[float]:
        """Seconds that entries of these stabilities (0..1) live."""
        plain = self.shortest_s * (self.longest_s / self.shortest_s) ** stability
        seconds: list[float] = (plain * (1.0 + self.jitter * rng.uniform(-1.0, 1.0, plain.shape))).tolist()
        return seconds


class LearningPace:
    """Sets lifetimes by how fast outcomes come: what is learned makes decisions old, and time alone does not.

    Safe to use from any thread. Processes that follow the same outcomes set the same lifetimes, nearly.

    Args:
        clock: Monotonic seconds.
        longest_s: Longest life of an entry.
    """

    def __init__(self, clock: Clock, longest_s: float = LONGEST_S) -> None:
        self._clock, self._longest_s = clock, longest_s
        self._began = self._at = clock()
        self._faded = 0.0
        self._lock = threading.Lock()

    def note(self, outcomes: int) -> None:
        """Count outcomes that came just now."""
        with self._lock:
            self._faded = self._faded_by(self._clock()) + outcomes

    def per_s(self) -> float:
        """Outcomes a second of late; while it is young, of its whole life, taken for a second at the least."""
        with self._lock:
            now = self._clock()
            age_s = max(1.0, now - self._began)
            return self._faded_by(now) / (MEMORY_S * (1.0 - math.exp(-age_s / MEMORY_S)))

    def lifetimes(self) -> Lifetimes:
        """How long entries that are made now are to live."""
        calm_s = LESSONS / max(self.per_s(), LESSONS / CALM_S)
        return Lifetimes(min(max(calm_s, SHORTEST_S), self._longest_s), self._longest_s)

    def _faded_by(self, now: float) -> float:
        self._faded *= math.exp(-(now - self._at) / MEMORY_S)
        self._at = now
        return self._faded
