"""The rules of the Gary8D heuristic, as pure functions of arrays: thousands of tasks are ranked at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import COMPLEXITY_LEVELS, ComplexityLevel, ContextType, TaskAnalysis
from monkey_coder.ports import BoolArray, FloatArray, IntArray

SLACK: Final[Mapping[ComplexityLevel, float]] = MappingProxyType(
    {"trivial": 0.4, "simple": 0.3, "moderate": 0.2, "complex": 0.1, "critical": 0.0}
)
"""The part of the best success that a task of each level may do without, when money matters a lot."""

CONTEXT_SLACK: Final[Mapping[ContextType, float]] = MappingProxyType(
    {
        "code_generation": 1.0,
        "code_review": 1.0,
        "debugging": 1.0,
        "refactoring": 1.0,
        "testing": 1.0,
        "performance": 1.0,
        "architecture": 0.5,
        "security": 0.5,
        "documentation": 1.5,
    }
)
"""Factor on `SLACK`: mistakes in security and architecture cost more than the model did, those in prose less."""

PREFERRED_PREMIUM: Final = 0.2
"""A model of a preferred provider is taken although it costs up to this much more (0.2: 20%)."""

HALF_RELAXED_PRICE: Final = 0.25
"""Price of the dearest candidate, in successes, at which half of the slack is granted."""

NEAR_ENOUGH: Final = 0.05
"""How far below the required success a model still counts as sufficient when confidence is told."""

GIVEN_AWAY: Final = 0.03
"""Utility that matching a model to its task may cost at most, in successes, when money matters a lot."""

DIFFICULTY_LOGITS: Final = 2.0
"""By how many logits the chances of all models fall between complexity 0 and 1; a prior means a complexity of 0.5."""

FAILURE_LOGITS: Final = 2.5
"""By how many logits the failure of a model that was sure to succeed lowers the chances of all others; the
failure of a weaker one lowers them in proportion to what it was given."""

PLANNED_ATTEMPTS: Final = 4
"""Places of a ranking that are found by the rules, one after the other; the rest follows by utility."""


def required_share(level: ComplexityLevel, context: ContextType, rejections: int = 0) -> float:
    """Return the share of the best success that a task needs when money matters a lot, 0..1.

    Args:
        level: How hard the task looks.
        context: What kind of task it is.
        rejections: Attempts that failed; each shows the task to be a level harder than it looked.
    """
    harder = min(COMPLEXITY_LEVELS.index(level) + rejections, len(COMPLEXITY_LEVELS) - 1)
    return 1.0 - SLACK[COMPLEXITY_LEVELS[harder]] * CONTEXT_SLACK[context]


def required_shares(analyses: Sequence[TaskAnalysis], rejections: Sequence[int] | None = None) -> FloatArray:
    """Lay out the required shares of many tasks, as `heuristic_ranking` takes them.

    Args:
        analyses: One per task (B).
        rejections: How many attempts failed already, per task; None: none.

    Returns:
        (B, A) the share for the next attempt, for the one after it, and so on.
    """
    before = rejections or [0] * len(analyses)
    rows = [
        [required_share(a.level, a.context_type, failed + place) for place in range(len(COMPLEXITY_LEVELS))]
        for a, failed in zip(analyses, before, strict=True)
    ]
    return np.array(rows, dtype=np.float32).reshape(len(analyses), len(COMPLEXITY_LEVELS))


def heuristic_ranking(
    success: NDArray[np.floating],
    cost_usd: NDArray[np.floating],
    utility: NDArray[np.floating],
    candidates: BoolArray,
    complexity: NDArray[np.floating],
    shares: FloatArray,
    *,
    rejected: BoolArray | None = None,
    preferred: BoolArray | None = None,
    floor: BoolArray | None = None,
    providers: IntArray | None = None,
    attempts: int = 1,
) -> tuple[IntArray, FloatArray]:
    """Rank the candidates of many requests, the first choice first, then its fallbacks.

    Each place is filled by the same steps. Steps 1 and 2 are passed over where they would leave no model.

    1. Models that reach the caller's quality floor.
    2. After a failed attempt: models stronger than all that failed, or of a provider that has not failed.
    3. Models of no less utility than the cheapest one, and than the mean.
    4. Models worth their money at a task as hard as this: of no less utility than the best one, but for
       `GIVEN_AWAY`, where complexity shifts the chances of all (`DIFFICULTY_LOGITS`).
    5. Of these, models that reach the required success: a share of the best among them.
    6. The cheapest; at the same price the stronger, then the one that stands first in the table.

    Models of preferred providers are weighed as if they cost less, so that one is taken although it costs up to
    `PREFERRED_PREMIUM` more than its equal.

    Failed attempts lower the chances of all other models, and so what a dear one is worth (`FAILURE_LOGITS`).
    Where money and time do not matter, the required share is 1 and nothing is given away; both relax as the
    price of the dearest candidate, in successes, grows. Step 3 makes the first choice, in terms of `success` and
    `utility`, no worse than the cheapest model and than a random one, whatever the weights are.

    Args:
        success: (B, M) P(success), 0..1.
        cost_usd: (B, M) expected cost of an attempt.
        utility: (B, M) what an attempt is worth at the caller's preferences, in successes.
        candidates: (B, M) models that may be chosen.
        complexity: (B,) how hard the tasks look, 0..1.
        shares: (B, A) required share for the next attempt, for the one after it, and so on; the last column
            holds for all further ones. See `required_shares`.
        rejected: (B, M) models that failed already; they need not be candidates.
        preferred: (B, M) models of preferred providers.
        floor: (B, M) models that reach the quality floor.
        providers: (M,) number of each model's provider; None: each its own.
        attempts: How many attempts the caller will make if need be. The models that these rules name for them
            are then tried by price per success, so that the dear ones are often spared (where money matters).

    Returns:
        (B, M) columns in order of preference, -1 where a row has no more candidates; and (B,) the success that
        the first choice had to reach (0 in rows without candidates).
    """
    rows, models = success.shape
    failed = np.zeros((rows, models), np.bool_) if rejected is None else rejected.copy()
    price, burden = cost_usd, success - utility
    if preferred is not None:
        price, burden = (np.where(preferred, paid / (1.0 + PREFERRED_PREMIUM), paid) for paid in (price, burden))
    dearest = np.where(candidates, burden, 0.0).max(axis=1, initial=0.0)
    relaxed = dearest / (dearest + HALF_RELAXED_PRICE)
    difficulty = DIFFICULTY_LOGITS * (complexity - 0.5)
    left = candidates.copy()
    order = np.full((rows, models), -1, dtype=np.int64)
    required = np.zeros(rows, dtype=np.float32)
    every = np.arange(rows)
    planned = min(models, max(PLANNED_ATTEMPTS, attempts))
    for place in range(planned):
        setback = FAILURE_LOGITS * np.where(failed, success, 0.0).sum(axis=1)
        chances = _harder(success, setback)
        pool = left if floor is None else _narrow(left, floor)
        if providers is not None and failed.any():
            pool = _narrow(pool, _escalates(success, failed, providers))
        pool = _no_worse_than_plain(pool, chances, price, chances - burden)
        here = np.where(pool, _harder(success, setback + difficulty) - burden, -np.inf)
        pool = pool & (here >= (here.max(axis=1) - GIVEN_AWAY * relaxed)[:, None])
        slack = 1.0 - shares[:, min(place, shares.shape[1] - 1)]
        need = np.where(pool, success, 0.0).max(axis=1) * (1.0 - slack * relaxed)
        choice = _cheapest(pool & (success >= need[:, None]), price, success)
        if place == 0:
            required = need.astype(np.float32)
        found = left[every, choice]
        order[found, place] = choice[found]
        failed[every[found], choice[found]] = True
        left[every, choice] = False
    rest = np.argsort(np.where(left, -utility, np.inf), axis=1, kind="stable")
    ranked = np.where(np.take_along_axis(left, rest, axis=1), rest, -1)
    order[:, planned:] = ranked[:, : models - planned]
    if attempts > 1:
        order[:, :attempts] = _cheap_first(order[:, :attempts], price, success, relaxed > 0)
    return order, required


def heuristic_confidence(success: float, evidence: float, required: float, told: float) -> float:
    """Say how far a choice can be trusted: the probability that the model nearly reaches what the task needs.

    Nearly means to within `NEAR_ENOUGH`, so that the best model there is can be trusted too. The prior is taken
    as normal, with the error of a share of `evidence + 1` outcomes. Where the kind of task was inferred from
    weak signs, the need itself is uncertain: that takes off up to 40%.

    Args:
        success: P(success) of the chosen model, 0..1.
        evidence: Outcomes behind it, at least 0.
        required: What the task needs, 0..1.
        told: `TaskAnalysis.evidence`, 0..1.

    Returns:
        0..1; the more evidence, the nearer to 1 for a model that reaches what is needed.
    """
    error = math.sqrt(max(success * (1.0 - success), 0.01) / (evidence + 1.0))
    reaches = 0.5 * (1.0 + math.erf((success - required + NEAR_ENOUGH) / (error * math.sqrt(2.0))))
    return reaches * (0.6 + 0.4 * told)


def _narrow(pool: BoolArray, wanted: BoolArray) -> BoolArray:
    """Keep what is wanted, in the rows where something is."""
    kept = pool & wanted
    return np.where(kept.any(axis=1, keepdims=True), kept, pool)


def _escalates(success: NDArray[np.floating], failed: BoolArray, providers: IntArray) -> BoolArray:
    """(B, M) models that are stronger than all that failed, or of a provider none of whose models failed."""
    strongest = np.where(failed, success, -np.inf).max(axis=1)
    same = (providers[:, None] == providers[None, :]).astype(np.int64)
    return np.asarray((success > strongest[:, None]) | (failed.astype(np.int64) @ same == 0))


def _harder(success: NDArray[np.floating], logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """(B, M) chances whose odds are lowered by `logits` (B,), for every model alike (Rasch, 1960)."""
    wins = success * np.exp(-logits)[:, None]
    return np.asarray(wins / (wins + (1.0 - success) + 1e-12))


def _cheap_first(
    order: IntArray, price: NDArray[np.floating], success: NDArray[np.floating], rows: BoolArray
) -> IntArray:
    """Order attempts by price per success, which spends least until the first success of independent attempts."""
    known = np.maximum(order, 0)
    chance = np.maximum(np.take_along_axis(success, known, axis=1), 1e-6)
    cost = np.where(order >= 0, np.take_along_axis(price, known, axis=1) / chance, np.inf)
    by_cost = np.take_along_axis(order, np.argsort(cost, axis=1, kind="stable"), axis=1)
    return np.where(rows[:, None], by_cost, order)


def _no_worse_than_plain(
    pool: BoolArray, success: NDArray[np.floating], price: NDArray[np.floating], utility: NDArray[np.floating]
) -> BoolArray:
    """Keep models of no less utility than the cheapest of the pool, and than its mean."""
    count = np.maximum(pool.sum(axis=1), 1)
    mean = np.where(pool, utility, 0.0).sum(axis=1) / count
    cheapest = np.take_along_axis(utility, _cheapest(pool, price, success)[:, None], axis=1)[:, 0]
    best = np.where(pool, utility, -np.inf).max(axis=1)  # a mean of equals may exceed them by a rounding
    return np.asarray(pool & (utility >= np.minimum(np.maximum(mean, cheapest), best)[:, None]))


def _cheapest(pool: BoolArray, price: NDArray[np.floating], success: NDArray[np.floating]) -> IntArray:
    """(B,) the cheapest model of each pool; of equals the strongest, then the first; 0 where the pool is empty."""
    cost = np.where(pool, price, np.inf)
    least = pool & (cost <= cost.min(axis=1, keepdims=True))
    return np.asarray(np.where(least, success, -np.inf).argmax(axis=1))
