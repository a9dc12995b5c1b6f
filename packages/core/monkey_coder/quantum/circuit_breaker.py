"""A circuit breaker: closed, open, half-open with limited probes, jittered exponential back-off.

After Nygard, "Release It!" (2007); the jitter keeps processes from trying again all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a breaker opens, and for how long.

    Attributes:
        failures: Failures in a row that open it.
        first_wait_s: Back-off after the first opening; it doubles with each further one until a success.
        longest_wait_s: Bound of the back-off.
        jitter: Every back-off is drawn within this part above and below, 0..1.
        probes: Decisions that may go there while half-open, until they are reported.
        probe_wait_s: Probes nobody reports about are allowed anew after this long.
        successes: Probes that must succeed to close it.
    """

    failures: int = 5
    first_wait_s: float = 5.0
    longest_wait_s: float = 300.0
    jitter: float = 0.2
    probes: int = 2
    probe_wait_s: float = 30.0
    successes: int = 2

    def __post_init__(self) -> None:
        if self.failures < 1 or self.probes < 1 or self.successes < 1:
            raise ValueError("failures, probes and successes must each be at least 1")
        if not 0.0 < self.first_wait_s <= self.longest_wait_s or not 0.0 <= self.jitter < 1.0:
            raise ValueError("first_wait_s must be above 0 and not above longest_wait_s, jitter from 0 to below 1")


class CircuitBreaker:
    """Watches one provider or model. Times are seconds since 1970, and may run backwards a little.

    Args:
        options: Of all breakers alike.
        rng: For the jitter.
    """

    def __init__(self, options: BreakerOptions, rng: np.random.Generator) -> None:
        self.options = options
        self.failures = 0
        """Failures in a row."""
        self.openings = 0
        """How often it opened since it was last closed by success."""
        self.opened_at: float | None = None
        self.retry_at: float | None = None
        self._rng = rng
        self._successes = 0
        self._probes_left = 0
        self._probes_given_at: float | None = None

    @property
    def quiet(self) -> bool:
        """Whether it is closed and nothing failed last, so that one more success tells it nothing."""
        return self.retry_at is None and not self.failures

    def state(self, now: float) -> BreakerState:
        """What it is at a time."""
        if self.retry_at is None:
            return "closed"
        return "open" if now < self.retry_at else "half_open"

    def allows(self, now: float) -> bool:
        """Whether a decision may go there."""
        match self.state(now):
            case "closed":
                return True
            case "open":
                return False
            case "half_open":
                return self._probes(now) > 0

    def probing(self, now: float) -> bool:
        """Whether probes are out that nobody reported about yet."""
        return self._probes(now) < self.options.probes

    def note_decision(self, now: float) -> None:
        """Note a decision for it; while half-open it counts as a probe."""
        if self.state(now) == "half_open":
            self._probes_left = self._probes(now) - 1
            self._probes_given_at = now if self._probes_given_at is None else self._probes_given_at

    def record(self, good: bool, decided_at: float, now: float) -> None:
        """Take in a report.

        Args:
            good: Whether the call was answered.
            decided_at: When it was decided on: what began before the breaker opened tells nothing new.
            now: When the report came.
        """
        if self.retry_at is None:
            self.failures = 0 if good else self.failures + 1
            if self.failures >= self.options.failures:
                self._open(now)
        elif self.opened_at is not None and decided_at >= self.opened_at:
            self._record_probe(good, now)

    def _record_probe(self, good: bool, now: float) -> None:
        if not good:
            self.failures += 1
            self._open(now)
            return
        self._successes += 1
        self._probes_left, self._probes_given_at = self.options.probes, None
        if self._successes >= self.options.successes:
            self.failures = self.openings = 0
            self.opened_at = self.retry_at = None

    def _open(self, now: float) -> None:
        options = self.options
        wait = min(options.longest_wait_s, options.first_wait_s * 2.0 ** min(self.openings, 60))
        wait *= 1.0 + options.jitter * float(self._rng.uniform(-1.0, 1.0))
        self.openings += 1
        self.opened_at, self.retry_at = now, now + wait
        self._successes, self._probes_left, self._probes_given_at = 0, options.probes, None

    def _probes(self, now: float) -> int:
        """Probes that are left; those nobody reported about come back in time."""
        if self._probes_given_at is not None and now - self._probes_given_at >= self.options.probe_wait_s:
            self._probes_left, self._probes_given_at = self.options.probes, None
        return max(0, self._probes_left)
