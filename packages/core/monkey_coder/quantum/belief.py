"""Belief over the joint outcome of all models on a request, so that one model's failure tells about the others.

The belief is a mixture of N *particles*. A particle is an outcome profile, P(success) of each model, and within one
particle models succeed independently; the weights of the particles depend on the request. There are two kinds:

* latent classes of training rows (mixture of independent Bernoullis, Lazarsfeld & Henry 1968), weighed for a request by
  the classes of the training rows whose estimates were like its own (Nadaraya 1964, Watson 1964);
* points of a latent difficulty factor, ``logit P(m) = intercept + slope * (prior logit - centre) + u . loading``, which
  few rows suffice to learn. The more rows, the more the classes weigh.

A rejected attempt of model a multiplies each weight by the particle's probability of that rejection,
``(1 - noise) - (1 - 2 noise) * profile[a]``, where `noise` is the probability that a verdict is wrong.

Particles speak of *passing* (score at least one half, what a verifier checks). Where scores are graded, a passing
answer is worth `passed_score` and a failing one `failed_score`.

All of it is immutable numpy; `belief_training.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.array_parts import Arrays
from monkey_coder.quantum.success_model import SuccessEstimate

STATE_FEATURES: Final = 6
PAIR_FEATURES: Final = 7


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
    """What one-step lookahead on a belief says of every model, and what a value network reads. B requests, M models.

    Closed models (neither open nor rejected) have entries, but no meaning.

    Attributes:
        success: (B, M) expected score of the model's answer: of an open model, if tried now; of a rejected one, of the
            answer that was rejected.
        rejection: (B, M) probability that the verifier rejects the model's answer, if tried now.
        kept: (B, M) expected score from an accepted answer: ``E[score and accepted]``.
        further: (B, M) best that is left after a rejection of the model: one more attempt at its price, or keeping
            the rejected answer.
        stopping: (B, M) expected score of the model's answer although it is rejected.
        value: (B, M) one-step lookahead: ``success - cost`` on the last attempt, else
            ``kept + rejection * further - cost``.
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


@dataclass(frozen=True, eq=False)
class Belief:
    """What training learned about the joint outcomes of P models.

    Attributes:
        models: P model refs.
        class_profile: (J, P) P(pass) in each latent class.
        class_weight: (J,) share of each class in the training rows; sums to 1.
        anchors: (R, P) held-out logits of training rows.
        anchor_class: (R, J) P(class) of these rows.
        bandwidth: Of the kernel on the root mean square difference of logits.
        pseudo_rows: Rows that `class_weight` is worth against the kernel's.
        class_share: Weight of all classes together, 0..1; the rest goes to the factor.
        points: (F, r) points of the difficulty factor, all of the same weight.
        intercept: (P,) of the factor model, in log odds.
        slope: Of the prior logit.
        centre: (P,) mean prior logit in training.
        loading: (r, P) what the factor does to each model.
        passed_score: (P,) expected score of an answer that passes.
        failed_score: (P,) expected score of an answer that fails.
    """

    models: tuple[str, ...]
    class_profile: FloatArray
    class_weight: FloatArray
    anchors: FloatArray
    anchor_class: FloatArray
    bandwidth: float
    pseudo_rows: float
    class_share: float
    points: FloatArray
    intercept: FloatArray
    slope: float
    centre: FloatArray
    loading: FloatArray
    passed_score: FloatArray
    failed_score: FloatArray

    def bind(self, refs: Sequence[str]) -> BoundBelief:
        """Prepare for the models of a table; they may be unknown to training, and may lack others.

        Args:
            refs: M model refs, such as `ModelTable.refs`.
        """
        slot = {ref: place for place, ref in enumerate(self.models)}
        return BoundBelief(self, np.array([slot.get(ref, -1) for ref in refs], dtype=np.int64))

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and JSON values: all that `from_arrays` needs."""
        raise NotImplementedError

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Rebuild what `to_arrays` took apart.

        Raises:
            PolicyError: Something is missing, not finite, or does not fit.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class BoundBelief:
    """A `Belief` for the models of one table; immutable, may be used from any thread.

    Attributes:
        belief: What was learned.
        slots: (M,) place of each table model in `belief.models`, -1 where training did not know it.
    """

    belief: Belief
    slots: IntArray

    def particles(self, estimate: SuccessEstimate) -> Particles:
        """The belief about requests on which nothing was tried yet.

        Args:
            estimate: (B, M) of the success model bound to the same models.
        """
        raise NotImplementedError


def after(particles: Particles, rejected: BoolArray, noise: float) -> Particles:
    """The belief once some models' answers were rejected.

    Args:
        particles: Before (B requests, M models).
        rejected: (B, M) which models' answers were rejected.
        noise: Probability that a verdict is wrong, 0 up to and without one half.

    Returns:
        The same profiles with other weights. Weights stay as they are where no particle could explain the rejections.
    """
    raise NotImplementedError


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
    """Value every model by its own outcome and by the best single attempt after it.

    Args:
        particles: The belief, the rejections already counted in (`after`).
        open_models: (B, M) which models may still be tried.
        rejected: (B, M) which models' answers were rejected.
        weighted_cost: (B, M) price of one attempt in successes: ``lambda * cost_usd + mu * latency_s``.
        attempts_left: (B,) attempts that may still be made, the next one included; 1: the next one is the last.
        noise: Probability that a verdict is wrong, 0 up to and without one half.
        planned: Attempts of a whole episode, K, to which the features relate.
    """
    raise NotImplementedError
