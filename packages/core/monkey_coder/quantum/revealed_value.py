"""What a solved task seems to be worth to a caller, from the models that the caller used instead of the decided ones.

Whoever takes a dearer model for a better chance shows that a solved task is worth at least so much; whoever takes a
cheaper one for a worse chance, at most so much. The choices are read as those of a random utility (a logit, after
McFadden, 1974) with one unknown, the value v of a solved task:

    P(used over decided) = 1 / (1 + exp(-(Δp - Δc / v) / s))

with Δp being the difference in P(success) and Δc in USD. The prior is wide and lies where the caller's requests already
put the value, so that few choices move it little. Taking what was decided is not counted: it may be convenience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_NOISE: Final = 0.05
"""s: a difference in utility of so many successes is chosen by 73 of 100."""
_DOUBT: Final = np.log(5.0)
"""Standard deviation of the logarithm of v beforehand: a factor of five is no surprise."""
_GRID: Final = np.linspace(-4.0, 4.0, 321) * _DOUBT
LEAST: Final = 20
"""Choices below which nothing is said."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One time that another model answered than the one decided on.

    Attributes:
        success: P(success) of the used model minus that of the decided one, as expected then.
        cost_usd: Expected cost of the used model minus that of the decided one.
        value_usd: What the request had said that a solved task is worth (1 / lambda).
    """

    success: float
    cost_usd: float
    value_usd: float


@dataclass(frozen=True, slots=True)
class Revealed:
    """An estimate of the value of a solved task.

    Attributes:
        value_usd: Median.
        low: Lower end of its 90% interval.
        high: Upper end.
        choices: How many are behind it.
        upgrades: How many of them took a better and dearer model.
        explained: Share of them that have the higher utility at `value_usd`.
    """

    value_usd: float
    low: float
    high: float
    choices: int
    upgrades: int
    explained: float


def revealed_value(choices: Sequence[Choice]) -> Revealed | None:
    """Estimate what a solved task is worth to whoever made these choices.

    Args:
        choices: In any order. Those that trade nothing (better and cheaper, or worse and dearer) have other reasons
            than the value of a task, and are left out.

    Returns:
        The estimate, or None with fewer than `LEAST` choices that say something.
    """
    told = [c for c in choices if c.success * c.cost_usd > 0.0 and c.value_usd > 0.0]
    if len(told) < LEAST:
        return None
    success, cost, before = np.array([(c.success, c.cost_usd, c.value_usd) for c in told]).T
    centre = np.log(np.median(before))
    values: NDArray[np.float64] = np.exp(centre + _GRID)
    gain = (success[:, None] - cost[:, None] / values) / _NOISE  # (choices, values)
    log_posterior = -np.logaddexp(0.0, -gain).sum(axis=0) - 0.5 * (_GRID / _DOUBT) ** 2
    mass = np.exp(log_posterior - log_posterior.max())
    low, middle, high = np.interp((0.05, 0.5, 0.95), np.cumsum(mass) / mass.sum(), values).tolist()
    return Revealed(middle, low, high, len(told), int((cost > 0.0).sum()), float((success > cost / middle).mean()))
