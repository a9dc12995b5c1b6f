"""What another policy would have earned on decisions that were logged, each with the outcome of its one action.

Three estimators, all by the propensities that were logged with the decisions:

* inverse propensity (Horvitz and Thompson 1952): unbiased, of high variance;
* self-normalised inverse propensity (Swaminathan and Joachims 2015): a little biased, never outside the rewards;
* doubly robust (Dudik, Langford and Li 2011): a model of the rewards, corrected by what was seen; unbiased whatever the
  model says, as long as it has not seen the outcome that corrects it, and of low variance when the model is good.

Weights are cut at a clip (Ionides 2008), which bounds the variance and costs a bias: the part of the policy that lies
beyond the clip rests on the model alone (doubly robust), or counts as nothing (inverse propensity). `Support` says how
large that part is. Intervals resample whole clusters, such as episodes, and take percentiles (Efron 1979; Field and
Welsh 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import IntArray

Floats = NDArray[np.float64]

CLIP: Final = 1_000.0
"""Largest weight of one decision: an action counts fully if it was logged at one time in a thousand or more often."""

LEVEL: Final = 0.9
"""Two-sided level of intervals, so that each end alone holds with 95%."""

RESAMPLES: Final = 2_000

_CHUNK: Final = 64


@dataclass(frozen=True, eq=False)
class BanditLog:
    """N logged decisions between M actions.

    Attributes:
        action: (N,) which action was taken.
        propensity: (N,) probability with which it was taken, above 0 and at most 1.
        reward: (N,) what it earned, finite.
        cluster: (N,) number from 0 of what the decision belongs to; only different clusters are independent.
    """

    action: IntArray
    propensity: Floats
    reward: Floats
    cluster: IntArray

    def __post_init__(self) -> None:
        count = len(self.action)
        for name in ("propensity", "reward", "cluster"):
            if getattr(self, name).shape != (count,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected ({count},)")
        if not count:
            raise ValueError("the log is empty: there is nothing to estimate from")
        if not (self.propensity.min() > 0.0 and self.propensity.max() <= 1.0):
            raise ValueError("propensities must lie above 0 and at most at 1: log what the choice was drawn with")
        if not np.isfinite(self.reward).all():
            raise ValueError("rewards must be finite: leave decisions without an outcome out")

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward, or a difference of two.

    Attributes:
        mean: On the log.
        low: Lower end of its interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """The same quantity by each estimator.

    Attributes:
        inverse_propensity: Horvitz and Thompson.
        self_normalised: Swaminathan and Joachims.
        doubly_robust: Dudik, Langford and Li.
    """

    inverse_propensity: Estimate
    self_normalised: Estimate
    doubly_robust: Estimate


@dataclass(frozen=True, slots=True)
class Support:
    """How far a log can speak of a policy.

    Attributes:
        effective_size: Equally weighted decisions that the weighted ones are worth (Kish 1965); at most N.
        clipped: Share of the decisions whose weight was cut.
        unchecked: Share of the policy's probability that no outcome can correct: what lies beyond the clip, or on
            actions that the logged policy would never have taken; 0..1.
    """

    effective_size: float
    clipped: float
    unchecked: float


def importance_weights(log: BanditLog, target: Floats, clip: float = CLIP) -> Floats:
    """How much each logged reward counts for a policy.

    Args:
        log: N decisions.
        target: (N, M) probability with which the policy would take each action; rows sum to 1.
        clip: Largest weight, at least 1.

    Returns:
        (N,) the policy's probability of the logged action over the logged one, at most `clip`.

    Raises:
        ValueError: `clip` is below 1.
    """
    return np.minimum(_ratio(log, target), _checked(clip))


def effective_size(weight: Floats) -> float:
    """Equally weighted rows that (N,) weights are worth (Kish 1965); 0 if all are 0."""
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0.0 else 0.0


def support(log: BanditLog, target: Floats, logged: Floats, clip: float = CLIP) -> Support:
    """Say how far a log can speak of a policy.

    Args:
        log: N decisions.
        target: (N, M) the policy's probabilities.
        logged: (N, M) probabilities of all actions when the decisions were made.
        clip: As for the weights.
    """
    beyond = np.maximum(target - _checked(clip) * logged, 0.0).sum(axis=1)
    weight = importance_weights(log, target, clip)
    return Support(effective_size(weight), float((_ratio(log, target) > clip).mean()), float(beyond.mean()))


def value_of(
    log: BanditLog,
    target: Floats,
    q_hat: Floats,
    rng: np.random.Generator,
    *,
    clip: float = CLIP,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimates:
    """Estimate a policy's mean reward, with intervals.

    Args:
        log: N decisions.
        target: (N, M) its probabilities.
        q_hat: (N, M) rewards as a model expects them that has not seen the decision's own outcome.
        rng: Draws the resamples.
        clip: Largest importance weight.
        level: Of the two-sided intervals, above 0 and below 1.
        resamples: How many times the clusters are drawn again.
    """
    sums = _cluster_sums(log, target, q_hat, clip)
    return _estimates(_means(sums.sum(axis=0)[None]), _means(_resampled(sums, resamples, rng)), level)


def difference_of(
    log: BanditLog,
    target: Floats,
    baseline: Floats,
    q_hat: Floats,
    rng: np.random.Generator,
    *,
    clip: float = CLIP,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Estimates:
    """Estimate how much more a policy earns than another on the same decisions, with paired intervals.

    Where the two agree they earn the same, and no noise of those decisions is in the interval.

    Args:
        log: N decisions.
        target: (N, M) probabilities of the one.
        baseline: (N, M) probabilities of the other.
        q_hat: (N, M) rewards as a model expects them that has not seen the decision's own outcome.
        rng: Draws the resamples.
        clip: Largest importance weight.
        level: Of the two-sided intervals.
        resamples: How many times the clusters are drawn again.
    """
    sums = np.stack([_cluster_sums(log, policy, q_hat, clip) for policy in (target, baseline)])
    whole = _means(sums.sum(axis=1)[:, None])
    drawn = _means(np.stack(np.split(_resampled(np.concatenate([*sums], axis=1), resamples, rng), 2, axis=1)))
    return _estimates(whole[0] - whole[1], drawn[0] - drawn[1], level)


def _checked(clip: float) -> float:
    if not clip >= 1.0:
        raise ValueError(f"clip is {clip}; it must be at least 1, the weight of a decision that both make alike")
    return clip


def _ratio(log: BanditLog, target: Floats) -> Floats:
    ratio: Floats = target[np.arange(len(log)), log.action] / log.propensity
    return ratio


def _doubly_robust_terms(log: BanditLog, target: Floats, weight: Floats, q_hat: Floats) -> Floats:
    foreseen = q_hat[np.arange(len(log)), log.action]
    terms: Floats = (target * q_hat).sum(axis=1) + weight * (log.reward - foreseen)
    return terms


def _cluster_sums(log: BanditLog, target: Floats, q_hat: Floats, clip: float) -> Floats:
    """(C, 4) decisions, weights, weighted rewards and doubly robust terms of each cluster."""
    weight = importance_weights(log, target, clip)
    terms = (np.ones(len(log)), weight, weight * log.reward, _doubly_robust_terms(log, target, weight, q_hat))
    kept = np.unique(log.cluster, return_inverse=True)[1]
    return np.stack([np.bincount(kept, term) for term in terms], axis=1)


def _resampled(sums: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples, K) sums over as many clusters as there are, drawn with replacement."""
    clusters = len(sums)
    alike = np.full(clusters, 1.0 / clusters)
    return np.concatenate(
        [
            rng.multinomial(clusters, alike, size=min(_CHUNK, resamples - start)) @ sums
            for start in range(0, resamples, _CHUNK)
        ]
    )


def _means(sums: Floats) -> Floats:
    """(..., 3) the three estimates from (..., 4) sums; self-normalised is not a number where no weight is left."""
    count, weight, weighted, terms = np.moveaxis(sums, -1, 0)
    normalised = np.divide(weighted, weight, out=np.full_like(weight, np.nan), where=weight > 0.0)
    return np.stack([weighted / count, normalised, terms / count], axis=-1)


def _estimates(whole: Floats, drawn: Floats, level: float) -> Estimates:
    """From (1, 3) means and (resamples, 3) resampled ones."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    found = []
    for place in range(3):
        known = drawn[:, place][np.isfinite(drawn[:, place])]
        low, high = np.quantile(known, tails) if known.size else (np.nan, np.nan)
        found.append(Estimate(float(whole[0, place]), float(low), float(high)))
    return Estimates(*found)
