"""From attempts to the figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation import statistics
from monkey_coder.evaluation.compare import Played, mean_cost_ref, strong_and_weak
from monkey_coder.evaluation.episodes import Outcomes, score
from monkey_coder.evaluation.preparation import Prepared
from monkey_coder.evaluation.statistics import Bootstrap, Interval, PairMetrics

BOOTSTRAP_SEED: Final = 0


@dataclass(frozen=True)
class Single:
    """One model asked alone for every test task: mean success, and mean USD (None without costs)."""

    success: float
    cost: float | None


@dataclass(frozen=True)
class Point:
    """A router at one cost weight: means over tasks, then over seeds."""

    cost_weight: float
    success: Interval
    cost: Interval | None
    attempts: float


@dataclass(frozen=True)
class RouterResult:
    """A router over the whole grid.

    Attributes:
        points: One for each cost weight.
        aiq: None without costs.
        pair: APGR and CPT; None for other than two models, or a router without an order of prompts.
        success: (1 + resamples, W) mean success, row 0 of the sample itself; for plots.
        cost: (1 + resamples, W) mean USD; likewise.
    """

    points: tuple[Point, ...]
    aiq: Interval | None
    pair: PairMetrics | None
    success: NDArray[np.float64]
    cost: NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One router minus another, paired over tasks.

    Attributes:
        aiq: None without costs.
        success: Of mean success at cost weight 0.
        attempts: Of mean attempts at cost weight 0.
    """

    router: str
    against: str
    aiq: Interval | None
    success: Interval
    attempts: Interval


@dataclass(frozen=True)
class Comparison:
    """All figures of a run.

    Attributes:
        prepared: Tables and settings.
        cost_ref: USD of the dearest single model on the training rows (mean over the folds); None without costs.
        singles: Each model alone.
        routers: Each router, in the order asked for.
        paired: Every router against every other.
        units: How many units were resampled: repositories or distinct prompts.
    """

    prepared: Prepared
    cost_ref: float | None
    singles: Mapping[str, Single]
    routers: Mapping[str, RouterResult]
    paired: tuple[Difference, ...]
    units: int


def analyse(prepared: Prepared, played: Mapping[str, Played], resamples: int = statistics.RESAMPLES) -> Comparison:
    """Compute every figure, with 95% intervals from one bootstrap over tasks that all routers share.

    Args:
        prepared: Tables and settings.
        played: The attempts of each router.
        resamples: Bootstrap resamples.
    """
    test = prepared.test
    costs = test.costs if prepared.has_costs else None
    unit = statistics.clusters(test.prompts, test.repositories)
    bootstrap = Bootstrap.of(unit, np.random.default_rng(BOOTSTRAP_SEED), resamples)
    span = None
    if costs is not None:
        single_costs = bootstrap.means(costs.T)
        span = single_costs.min(axis=1), single_costs.max(axis=1)
    outcomes = {name: score(each.tried, test.scores, costs) for name, each in played.items()}
    means = {name: _means(bootstrap, each) for name, each in outcomes.items()}
    areas = {
        name: None if span is None else statistics.aiq(cost, success, *span)
        for name, (success, cost, _) in means.items()
    }
    routers = {name: _result(prepared, means[name], areas[name], _pair(prepared, played[name])) for name in played}
    paired = tuple(_difference(name, other, means, areas) for name in played for other in played if name != other)
    singles = {
        model: Single(float(test.scores[:, m].mean()), None if costs is None else float(costs[:, m].mean()))
        for m, model in enumerate(test.models)
    }
    return Comparison(prepared, mean_cost_ref(prepared), singles, routers, paired, bootstrap.draws.shape[1])


Means = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""(1 + resamples, W) mean success, USD and attempts."""


def _means(bootstrap: Bootstrap, outcomes: Outcomes) -> Means:
    """Average over seeds within a task first, then over tasks."""
    success, cost, attempts = (
        bootstrap.means(values.mean(axis=1)) for values in (outcomes.success, outcomes.cost, outcomes.attempts)
    )
    return success, cost, attempts


def _result(
    prepared: Prepared, means: Means, area: NDArray[np.float64] | None, pair: PairMetrics | None
) -> RouterResult:
    success, cost, attempts = means
    points = tuple(
        Point(
            weight,
            statistics.interval(success[:, w]),
            statistics.interval(cost[:, w]) if prepared.has_costs else None,
            float(attempts[0, w]),
        )
        for w, weight in enumerate(prepared.weights)
    )
    return RouterResult(points, None if area is None else statistics.interval(area), pair, success, cost)


def _difference(
    name: str, other: str, means: Mapping[str, Means], areas: Mapping[str, NDArray[np.float64] | None]
) -> Difference:
    ours, theirs = areas[name], areas[other]
    return Difference(
        name,
        other,
        None if ours is None or theirs is None else statistics.interval(ours - theirs),
        statistics.interval(means[name][0][:, 0] - means[other][0][:, 0]),
        statistics.interval(means[name][2][:, 0] - means[other][2][:, 0]),
    )


def _pair(prepared: Prepared, played: Played) -> PairMetrics | None:
    if played.preference is None:
        return None
    test = prepared.test
    strong, weak = strong_and_weak(prepared)
    scores = test.scores[:, strong], test.scores[:, weak]
    if scores[0].sum() <= scores[1].sum():
        return None
    return statistics.pair_metrics((test.models[strong], test.models[weak]), played.preference, *scores)
