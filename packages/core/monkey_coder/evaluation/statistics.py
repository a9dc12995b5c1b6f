"""From outcomes per task to figures with intervals: frontier, aiq, bootstrap, and the two-model metrics.

Everything that is computed for the sample is computed for all bootstrap resamples in the same call: arrays have the
resamples first, and row 0 is the sample itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.splits import groups

RESAMPLES: Final = 2000
MIN_REPOSITORIES: Final = 5
NOT_WORSE_MARGIN: Final = 0.01

_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval (percentile bootstrap)."""

    value: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        """For a difference: the interval lies above 0."""
        return self.low > 0.0

    @property
    def not_worse(self) -> bool:
        """For a difference: the interval lies above -0.01."""
        return self.low > -NOT_WORSE_MARGIN


def clusters(prompts: Sequence[str], repositories: Sequence[str | None]) -> NDArray[np.int64]:
    """Number the units that are resampled as one; shape (N,).

    They are the repositories where at least five are named (a task without one then stands with its duplicates), else
    the distinct trimmed prompts.
    """
    if len({name for name in repositories if name is not None}) < MIN_REPOSITORIES:
        return groups(prompts)
    keys = [(name or "", "" if name else prompt.strip()) for prompt, name in zip(prompts, repositories, strict=True)]
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


@dataclass(frozen=True)
class Bootstrap:
    """How often each unit was drawn: the same draws for every figure, which pairs all differences.

    Attributes:
        unit: (N,) the unit of each task.
        draws: (1 + resamples, U) times each unit counts; row 0 is the sample itself, once each.
    """

    unit: NDArray[np.int64]
    draws: NDArray[np.float64]

    @classmethod
    def of(cls, unit: NDArray[np.int64], rng: np.random.Generator, resamples: int = RESAMPLES) -> Bootstrap:
        """Draw as many units as there are, with replacement, `resamples` times."""
        count = int(unit.max()) + 1
        draws = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples)
        return cls(unit, np.vstack([np.ones((1, count)), draws]).astype(np.float64))

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over tasks in the sample and in every resample.

        Args:
            values: (..., N) one value a task.

        Returns:
            (1 + resamples, ...) means.
        """
        flat = values.reshape(-1, values.shape[-1])
        sums = np.stack([np.bincount(self.unit, weights=row, minlength=self.draws.shape[1]) for row in flat], axis=1)
        sizes = np.bincount(self.unit, minlength=self.draws.shape[1]).astype(np.float64)
        means: NDArray[np.float64] = (self.draws @ sums) / (self.draws @ sizes)[:, None]
        return means.reshape(len(self.draws), *values.shape[:-1])


def interval(estimates: NDArray[np.float64]) -> Interval:
    """Turn the sample's estimate (first) and the resamples' (the rest) into an interval."""
    low, high = np.quantile(estimates[1:], [0.025, 0.975])
    return Interval(float(estimates[0]), float(low), float(high))


def frontier(cost: NDArray[np.float64], success: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the frontier: the best mean success that a mean cost buys by mixing points at random.

    It is the non-decreasing upper concave hull of the points and of the null router at (0, 0), flat after the last.

    Args:
        cost: (..., P) mean USD a task of each point, not below 0.
        success: (..., P) mean success of each point, not below 0.
        at: (..., X) costs at which to read it, not below 0.

    Returns:
        (..., X) heights.
    """
    null = np.zeros((*cost.shape[:-1], 1))
    x = np.concatenate([null, cost], axis=-1)[..., None, :]
    y = np.concatenate([null, success], axis=-1)[..., None, :]
    asked = at[..., :, None]
    # The hull at a cost is the highest chord over it, from any point left of it to any point right of it; a point left
    # of it alone is reachable too, by leaving money unspent.
    left = x <= asked
    flat = np.where(left, y, -np.inf).max(axis=-1)
    start, end = x[..., :, None], x[..., None, :]
    over = left[..., :, None] & (end >= asked[..., None]) & (end > start)
    part = np.divide(asked[..., None] - start, end - start, out=np.zeros(over.shape), where=over)
    chord = y[..., :, None] + part * (y[..., None, :] - y[..., :, None])
    height: NDArray[np.float64] = np.maximum(flat, np.where(over, chord, -np.inf).max(axis=(-2, -1)))
    return height


def aiq(
    cost: NDArray[np.float64], success: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean height of the frontier from the cheapest to the dearest single model.

    Args:
        cost: (B, P) mean USD of each point.
        success: (B, P) mean success of each point.
        low: (B,) mean USD of the cheapest single model.
        high: (B,) mean USD of the dearest; where it equals `low`, the result is the height there.

    Returns:
        (B,) area under the frontier between them, divided by the range; 0..1.
    """
    return np.concatenate(
        [
            _aiq(cost[s : s + _CHUNK], success[s : s + _CHUNK], low[s : s + _CHUNK], high[s : s + _CHUNK])
            for s in range(0, len(cost), _CHUNK)
        ]
    )


def _aiq(
    cost: NDArray[np.float64], success: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Between two neighbouring points the frontier is straight, so that trapezia are exact.
    bounds = np.stack([low, high], axis=1)
    knots = np.sort(np.concatenate([bounds, cost.clip(low[:, None], high[:, None])], axis=1), axis=1)
    height = frontier(cost, success, knots)
    area = ((height[:, 1:] + height[:, :-1]) / 2.0 * np.diff(knots, axis=1)).sum(axis=1)
    mean: NDArray[np.float64] = np.divide(area, high - low, out=height[:, 0].copy(), where=high > low)
    return mean


def frontier_band(
    cost: NDArray[np.float64], success: NDArray[np.float64], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Height of the frontier at fixed costs, with its 95% interval, for a plot.

    Args:
        cost: (B, P) mean USD of each point; row 0 is the sample.
        success: (B, P) mean success.
        at: (X,) costs.

    Returns:
        (X,) height, lower end and upper end.
    """
    heights = np.concatenate(
        [
            frontier(
                cost[s : s + _CHUNK], success[s : s + _CHUNK], np.broadcast_to(at, (len(cost[s : s + _CHUNK]), len(at)))
            )
            for s in range(0, len(cost), _CHUNK)
        ]
    )
    low, high = np.quantile(heights[1:], [0.025, 0.975], axis=0)
    return heights[0], low, high


@dataclass(frozen=True, slots=True)
class PairMetrics:
    """RouteLLM's metrics for two models (Ong et al. 2024, arXiv:2406.18665, section 3.2).

    The performance gap recovered, PGR, is ``(success - weak) / (strong - weak)``.

    Attributes:
        strong: The stronger model on the training rows.
        weak: The other one.
        apgr: Mean PGR over the share of prompts sent to the strong model, from 0 to 1; 0.5 for a random order.
        cpt_50: Least share of prompts sent to the strong model at which PGR reaches 0.5; None where it never does.
        cpt_80: Likewise for 0.8.
    """

    strong: str
    weak: str
    apgr: float
    cpt_50: float | None
    cpt_80: float | None


def pair_curve(
    preference: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PGR against the share of prompts that go to the strong model, most preferred first.

    Args:
        preference: (N,) the score by which the router orders the prompts; equals are sent in random order.
        strong: (N,) true scores of the strong model.
        weak: (N,) of the weak one.

    Returns:
        (C,) shares from 0 to 1, and (C,) PGR there, from 0 to 1; between them it is linear.

    Raises:
        ValueError: The strong model is not better than the weak one on these tasks, so that there is no gap.
    """
    gain = strong - weak
    gap = gain.sum()
    if gap <= 0.0:
        raise ValueError("the model that was stronger on the training rows is not on the test rows: there is no gap")
    levels, level = np.unique(-preference, return_inverse=True)
    share = np.bincount(level, minlength=len(levels)).cumsum() / len(gain)
    recovered = np.bincount(level, weights=gain, minlength=len(levels)).cumsum() / gap
    return np.concatenate([[0.0], share]), np.concatenate([[0.0], recovered])


def pair_metrics(
    names: tuple[str, str],
    preference: NDArray[np.float64],
    strong: NDArray[np.float64],
    weak: NDArray[np.float64],
) -> PairMetrics:
    """Compute APGR, CPT(50%) and CPT(80%); see `pair_curve` for the arguments (`names`: strong, weak)."""
    share, recovered = pair_curve(preference, strong, weak)
    apgr = float(((recovered[1:] + recovered[:-1]) / 2.0 * np.diff(share)).sum())
    return PairMetrics(*names, apgr, _reaches(share, recovered, 0.5), _reaches(share, recovered, 0.8))


def _reaches(share: NDArray[np.float64], recovered: NDArray[np.float64], level: float) -> float | None:
    """Least share at which the curve reaches a level."""
    above = np.flatnonzero(recovered >= level)
    if above.size == 0:
        return None
    i = int(above[0])
    if i == 0:
        return float(share[0])
    part = (level - recovered[i - 1]) / (recovered[i] - recovered[i - 1])
    return float(share[i - 1] + part * (share[i] - share[i - 1]))
