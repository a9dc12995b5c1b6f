"""Judging models that training did not know: by the difficulty of the request at first, then by their own outcomes.

``logit P = intercept + slope * difficulty + deviations``, where the difficulty of a request is the mean of the known
models' logits, each less its own mean. Before its first outcome a model has the slope that known models have on the
difficulty by the others, and the intercept at which its mean success is the declared one. Outcomes move both, and how
the model sides with single known ones, by Bayesian logistic regression (MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray


@dataclass(frozen=True, eq=False)
class NewModelPrior:
    """What is known of a model before its first outcome.

    Attributes:
        slope: Of the logit on the difficulty; 0 would be: every task is alike to it.
        slope_deviation: How much slopes differ between known models.
        difficulties: (Q,) difficulties of training requests, positive is easy, by ascending order.
    """

    slope: float
    slope_deviation: float
    difficulties: FloatArray

    def intercepts(self, success: NDArray[np.floating]) -> FloatArray:
        """Intercepts at which the mean success over the training requests is `success` (any shape, 0..1)."""
        raise NotImplementedError

    def success(self, declared: NDArray[np.floating], deviations: FloatArray) -> FloatArray:
        """P(success) of new models.

        Args:
            declared: (B, M) declared mean success of each new model, 0..1.
            deviations: (B, P) as in `SuccessEstimate`.

        Returns:
            (B, M).
        """
        raise NotImplementedError

    def update(self, declared: float, deviations: FloatArray, outcomes: NDArray[np.floating]) -> NewModelPosterior:
        """Learn from a new model's outcomes.

        Args:
            declared: Its declared mean success, 0..1.
            deviations: (n, P) as in `SuccessEstimate`, of the requests it answered.
            outcomes: (n,) scores 0..1.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class NewModelPosterior:
    """A new model after some outcomes.

    Attributes:
        coefficients: (2 + P,) intercept, slope on the difficulty, and weight of each known model's own deviation.
        outcomes: How many it has learned from.
    """

    coefficients: FloatArray
    outcomes: int

    def success(self, deviations: FloatArray) -> FloatArray:
        """(B,) P(success) of the model, 0..1, from (B, P) deviations."""
        raise NotImplementedError
