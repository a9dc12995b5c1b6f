"""Weighed outcome profiles: what rejections do to them, and what they are worth looked ahead.

Within one particle models succeed independently; what one model's failure tells about the others is in the weights. A
rejected attempt of model a multiplies each weight by the particle's probability of that rejection,
``(1 - noise) - (1 - 2 noise) * profile[a]``, where `noise` is the probability that a verdict is wrong.

Particles speak of *passing* (score at least one half, what a verifier checks). Where scores are graded, a passing
answer is worth `passed_score` and a failing one `failed_score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.planning import best_orders
from monkey_coder.quantum.success_model import logit

EXACT_UP_TO: Final = 2
"""Attempts left for which one attempt after the next is all there is to look at; beyond, a beam of orders is."""

STATE_FEATURES: Final = 6
PAIR_FEATURES: Final = 7

_CLOSED: Final = np.float32(-1e30)
_LEAST_CHANCE: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighed outcome profiles of M models on B requests.

    Attributes:
        profile: (B, N, M) P(pass) of each model in each particle, inside 0..1.
        weights: (B, N) sum to 1.
        success: (B, M) the success model's own estimate; used where only one attempt is made and nothing was tried.
        passed_score: (M,) expected score of an answer that passes; 1 where scores are 0 or 1.
        failed_score: (M,) expected score of an answer that fails; 0 where scores are 0 or 1.
    """

    profile: FloatArray
    weights: FloatArray
    success: FloatArray
    passed_score: FloatArray
    failed_score: FloatArray

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, rows: Sequence[int] | IntArray) -> Particles:
        """The same models with some of the requests; rows may repeat."""
        return Particles(
            self.profile[rows], self.weights[rows], self.success[rows], self.passed_score, self.failed_score
        )


@dataclass(frozen=True, eq=False)
class LookAhead:
    """What looking ahead in a belief says of every model, and what a value network reads. B requests, M models.

    Closed models (neither open nor rejected) have entries, but no meaning.

    Attributes:
        success: (B, M) expected score of the model's answer: of an open model, if tried now; of a rejected one, of the
            answer that was rejected.
        rejection: (B, M) probability that the verifier rejects the model's answer, if tried now.
        kept: (B, M) expected score from an accepted answer: ``E[score and accepted]``.
        further: (B, M) best that is left after a rejection of the model: one more attempt at its price, or keeping
            the rejected answer; with more than `EXACT_UP_TO` attempts left also the best order of attempts found.
        stopping: (B, M) expected score of the model's answer although it is rejected.
        value: (B, M) ``success - cost`` on the last attempt, else ``kept + rejection * further - cost``.
        stop: (B,) value of making no further attempt: the best answer among the rejected, 0 before the first attempt.
        state_features: (B, STATE_FEATURES).
        pair_features: (B, M, PAIR_FEATURES).
    """

    success: FloatArray
    rejection: FloatArray
    kept: FloatArray
    further: FloatArray
    stopping: FloatArray
    value: FloatArray
    stop: FloatArray
    state_features: FloatArray
    pair_features: FloatArray


def after(particles: Particles, rejected: BoolArray, noise: float) -> Particles:
    """The belief once some models' answers were rejected.

    Args:
        particles: Before (B requests, M models).
        rejected: (B, M) which models' answers were rejected.
        noise: Probability that a verdict is wrong, 0 up to and without one half.

    Returns:
        The same profiles with other weights.
    """
    rows = np.flatnonzero(rejected.any(axis=1))
    if not len(rows):
        return particles
    chance = (1.0 - noise) - (1.0 - 2.0 * noise) * particles.profile[rows]
    np.log(np.maximum(chance, _LEAST_CHANCE, out=chance), out=chance)
    evidence = np.einsum("bnm,bm->bn", chance, rejected[rows].astype(np.float32))
    evidence -= evidence.max(axis=1, keepdims=True)
    updated = particles.weights[rows] * np.exp(evidence)
    updated /= updated.sum(axis=1, keepdims=True)
    weights = particles.weights.copy()
    weights[rows] = updated
    return replace(particles, weights=weights)


def look_ahead(
    particles: Particles,
    *,
    open_models: BoolArray,
    rejected: BoolArray,
    weighted_cost: FloatArray,
    attempts_left: IntArray,
    noise: float,
    planned: int,
) -> LookAhead:
    """Value every model by its own outcome and by the best that can follow it.

    Args:
        particles: The belief, the rejections already counted in (`after`).
        open_models: (B, M) which models may still be tried.
        rejected: (B, M) which models' answers were rejected.
        weighted_cost: (B, M) price of one attempt in successes: ``lambda * cost_usd + mu * latency_s``.
        attempts_left: (B,) attempts that may still be made, the next one included; 1: the next one is the last.
        noise: Probability that a verdict is wrong, 0 up to and without one half.
        planned: Attempts of a whole episode, K, to which the features relate.
    """
    cost = weighted_cost.astype(np.float32, copy=False)
    right, wrong = particles.passed_score, particles.failed_score
    truth, error = np.float32(1.0 - noise), np.float32(noise)
    chance = np.matmul(particles.weights[:, None], particles.profile)[:, 0]
    rejection = np.maximum(truth - (truth - error) * chance, _LEAST_CHANCE)
    success = wrong + (right - wrong) * chance
    kept = chance * truth * right + (1.0 - chance) * error * wrong
    stopping = (chance * error * right + (1.0 - chance) * truth * wrong) / rejection
    further = np.maximum(_best_after(particles, chance, rejection, cost, open_models, noise), stopping)
    last = (attempts_left <= 1)[:, None]
    tried = rejected.any(axis=1, keepdims=True)
    success = np.where(last & ~tried, particles.success, success)
    stop = np.zeros(len(success), np.float32)
    if tried.any():
        of_rejected = _rejected_score(particles, noise)
        success = np.where(rejected, of_rejected, success)
        stop = np.where(rejected, of_rejected, 0.0).max(axis=1)
    deep = np.flatnonzero(attempts_left > EXACT_UP_TO)
    if len(deep):
        orders = best_orders(
            particles.profile[deep],
            particles.weights[deep],
            open_models=open_models[deep],
            cost=cost[deep],
            attempts_left=attempts_left[deep],
            noise=noise,
            passed_score=right,
            failed_score=wrong,
        )
        beyond = (orders + cost[deep] - kept[deep]) / rejection[deep]
        further[deep] = np.maximum(further[deep], beyond)
    value = np.where(last, success, kept + rejection * further) - cost
    found = LookAhead(success, rejection, kept, further, stopping, value, stop, *_no_features(success))
    _fill_features(found, particles.weights, chance, open_models, rejected, cost, attempts_left / planned, planned)
    return found


def _best_after(
    particles: Particles,
    chance: FloatArray,
    rejection: FloatArray,
    cost: FloatArray,
    open_models: BoolArray,
    noise: float,
) -> FloatArray:
    """(B, M) score less price of the best single attempt of another open model, once the model was rejected."""
    right, wrong = particles.passed_score, particles.failed_score
    joint = np.matmul((particles.weights[:, :, None] * particles.profile).transpose(0, 2, 1), particles.profile)
    joint *= np.float32(2.0 * noise - 1.0)
    joint += np.float32(1.0 - noise) * chance[:, None]
    joint /= rejection[:, :, None]
    joint *= right - wrong
    joint += (wrong - cost)[:, None]
    joint += np.where(open_models, np.float32(0.0), _CLOSED)[:, None]
    own = np.arange(joint.shape[1])
    joint[:, own, own] = _CLOSED
    return np.asarray(joint.max(axis=2))


def _rejected_score(particles: Particles, noise: float) -> FloatArray:
    """(B, M) expected score of each model's answer, if it is among those that were rejected."""
    right, wrong = particles.passed_score, particles.failed_score
    if noise == 0.0:
        return np.broadcast_to(wrong, particles.success.shape)
    passed = np.float32(noise) * particles.profile
    passed /= (1.0 - noise) - np.float32(1.0 - 2.0 * noise) * particles.profile
    return np.asarray(wrong + (right - wrong) * np.matmul(particles.weights[:, None], passed)[:, 0])


def _no_features(success: FloatArray) -> tuple[FloatArray, FloatArray]:
    return (
        np.empty((len(success), STATE_FEATURES), np.float32),
        np.empty((*success.shape, PAIR_FEATURES), np.float32),
    )


def _fill_features(
    found: LookAhead,
    weights: FloatArray,
    chance: FloatArray,
    open_models: BoolArray,
    rejected: BoolArray,
    cost: FloatArray,
    left: NDArray[np.floating],
    planned: int,
) -> None:
    """Describe states and (state, model) pairs to a value network: all of order one, none naming a model."""
    count = np.maximum(open_models.sum(axis=1), 1)
    dearest = np.where(open_models, cost, 0.0).max(axis=1, initial=0.0)
    best = np.where(open_models, found.value, _CLOSED).max(axis=1)
    best = np.where(open_models.any(axis=1), best, 0.0)
    relative = np.divide(cost, dearest[:, None], out=np.ones_like(cost), where=dearest[:, None] > 0.0)
    state, pairs = found.state_features, found.pair_features
    state[:, 0] = np.log1p(30.0 * dearest) / 4.0
    state[:, 1] = left
    state[:, 2] = best
    state[:, 3] = np.where(open_models, chance, 0.0).sum(axis=1) / count
    state[:, 4] = -(weights * np.log(weights + 1e-9)).sum(axis=1) / 4.0
    state[:, 5] = rejected.sum(axis=1) / planned
    pairs[:, :, 0] = logit(chance) / 3.0
    pairs[:, :, 1] = found.rejection
    pairs[:, :, 2] = found.further
    pairs[:, :, 3] = np.log1p(10.0 * cost) / 2.0
    pairs[:, :, 4] = np.log(relative + 1e-3) / 4.0
    pairs[:, :, 5] = found.value - best[:, None]
    pairs[:, :, 6] = left[:, None]
    np.clip(state, -4.0, 4.0, out=state)
    np.clip(pairs, -4.0, 4.0, out=pairs)
