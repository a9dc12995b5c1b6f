"""Belief over the joint outcome of all models on a request, so that one model's failure tells about the others.

The belief is a mixture of N *particles*. A particle is an outcome profile, P(success) of each model, and within one
particle models succeed independently; the weights of the particles depend on the request. There are two kinds:

* latent classes of training rows (mixture of independent Bernoullis, Lazarsfeld & Henry 1968), weighed for a request by
  the classes of the training rows whose estimates were like its own (Nadaraya 1964, Watson 1964);
* points of a latent difficulty factor, ``logit P(m) = intercept + slope * (prior logit - centre) + u . loading``, which
  few rows suffice to learn. The more rows, the more the classes weigh.

`particles.py` says what rejections do to a belief, and what it is worth looked ahead.

All of it is immutable numpy; `belief_training.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.array_parts import Arrays, check_shapes, put_together, take_apart
from monkey_coder.quantum.particles import Particles
from monkey_coder.quantum.success_model import SuccessEstimate, logit, sigmoid

NEW_MODEL_SHARE: Final = 0.7
"""How strongly a model unknown to training is taken to follow what the known ones have in common (0: not at all)."""

_LEAST_GAP: Final = 0.05


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

    def __post_init__(self) -> None:
        models, classes, anchors = len(self.models), len(self.class_weight), len(self.anchors)
        points, rank = self.points.shape
        check_shapes(
            self,
            class_profile=(classes, models),
            class_weight=(classes,),
            anchors=(anchors, models),
            anchor_class=(anchors, classes),
            points=(points, rank),
            intercept=(models,),
            centre=(models,),
            loading=(rank, models),
            passed_score=(models,),
            failed_score=(models,),
        )

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and JSON values: all that `from_arrays` needs."""
        return take_apart(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Rebuild what `to_arrays` took apart.

        Raises:
            PolicyError: Something is missing, not finite, or does not fit.
        """
        return put_together(cls, arrays, header)


@dataclass(frozen=True, eq=False)
class BoundBelief:
    """A `Belief` for the models of one table; immutable, may be used from any thread.

    Attributes:
        belief: What was learned.
        slots: (M,) place of each table model in `belief.models`, -1 where training did not know it.
    """

    belief: Belief
    slots: IntArray

    @cached_property
    def _known(self) -> NDArray[np.intp]:
        """Table columns of models that training knew."""
        return np.flatnonzero(self.slots >= 0)

    @cached_property
    def _anchors(self) -> tuple[FloatArray, FloatArray]:
        """Twice the anchors' logits of the known models (k, R), and the squared length of each anchor (R,)."""
        anchors = self.belief.anchors[:, self.slots[self._known]]
        return np.ascontiguousarray(2.0 * anchors.T, dtype=np.float32), np.square(anchors).sum(axis=1)

    @cached_property
    def _common(self) -> FloatArray:
        """(N,) how much easier than on average each particle is for all known models, in log odds."""
        classes = logit(self.belief.class_profile).mean(axis=1)
        classes -= self.belief.class_weight @ classes
        return np.concatenate([classes, self.belief.points @ self.belief.loading.mean(axis=1)])

    @cached_property
    def _scores(self) -> tuple[FloatArray, FloatArray]:
        """(M,) expected scores of a passing and of a failing answer."""
        new = self.slots < 0
        belief = self.belief
        return (
            np.where(new, np.float32(belief.passed_score.mean()), belief.passed_score[self.slots]),
            np.where(new, np.float32(belief.failed_score.mean()), belief.failed_score[self.slots]),
        )

    def particles(self, estimate: SuccessEstimate) -> Particles:
        """The belief about requests on which nothing was tried yet.

        Args:
            estimate: (B, M) of the success model bound to the same models.
        """
        belief = self.belief
        weights = self.class_weights(estimate)
        passed, failed = self._scores
        gap = np.maximum(passed - failed, _LEAST_GAP)
        classes, points = len(belief.class_weight), len(belief.points)
        every = np.empty((len(estimate), classes + points), np.float32)
        every[:, :classes] = belief.class_share * weights
        every[:, classes:] = (1.0 - belief.class_share) / points
        slots, known = self.slots[self._known], self._known
        prior = logit((estimate.prior[:, known] - failed[known]) / gap[known])
        logits = belief.intercept[slots] + np.float32(belief.slope) * (prior - belief.centre[slots])
        profile = np.empty((*every.shape, len(self.slots)), np.float32)
        profile[:, :classes, known] = belief.class_profile[:, slots]
        profile[:, classes:, known] = sigmoid(logits[:, None] + belief.points @ belief.loading[:, slots])
        if len(known) < len(self.slots):
            new = np.flatnonzero(self.slots < 0)
            chance = (estimate.success[:, new] - failed[new]) / gap[new]
            profile[:, :, new] = self._unknown(logit(chance), every)
        return Particles(profile, every, estimate.success, passed, failed)

    def class_weights(self, estimate: SuccessEstimate) -> FloatArray:
        """(B, J) P(class) of each request, by the anchors whose logits are like its own."""
        belief = self.belief
        weights = np.tile(belief.class_weight, (len(estimate), 1))
        near = ~estimate.far
        if not len(self._known) or not near.any():
            return weights
        logits = estimate.logits[:, self._known]
        doubled, squares = self._anchors
        distance = logits @ doubled
        distance -= squares
        distance -= np.square(logits).sum(axis=1)[:, None]
        distance *= np.float32(0.5 / belief.bandwidth**2 / len(self._known))
        kernel = np.exp(np.minimum(distance, 0.0, out=distance), out=distance)
        total = kernel.sum(axis=1, keepdims=True) + np.float32(belief.pseudo_rows)
        local = (kernel @ belief.anchor_class + np.float32(belief.pseudo_rows) * belief.class_weight) / total
        weights[near] = local[near]
        return weights

    def _unknown(self, logits: FloatArray, weights: FloatArray) -> FloatArray:
        """(B, N, m) profiles of new models with these logits (B, m), which follow what the known ones share."""
        common = np.float32(NEW_MODEL_SHARE) * (self._common - (weights @ self._common)[:, None])
        raised = logits[:, None] + common[:, :, None]
        mean = np.einsum("bn,bnm->bm", weights, sigmoid(raised))
        return sigmoid(raised + (logits - logit(mean))[:, None])
