"""Judging models that training did not know: by the difficulty of the request at first, then by their own outcomes.

``logit P = intercept + slope * difficulty + sum of weight * (deviation - difficulty)``, where a known model's deviation
is its logit on the request less its mean, and the difficulty is the mean of the deviations. Before its first outcome a
model has no weights, the slope that known models have on the difficulty by the others, and the intercept at which its
mean success is the declared one. Outcomes move all of them, by Bayesian logistic regression (MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.array_parts import Arrays, put_together, take_apart

INTERCEPT_DEVIATION: Final = 0.6
LEAST_SLOPE_DEVIATION: Final = 0.2
WEIGHT_DEVIATION: Final = 0.3
"""How far intercept, slope and weights of a new model may lie from the first guess (deviations, in log odds)."""

DECLARED_BOUNDS: Final = (0.005, 0.995)

_GRID: Final = np.linspace(-10.0, 10.0, 401)
_NEWTON_STEPS: Final = 12
_LARGEST_STEP: Final = 1.0


def fit_logistic(
    inputs: NDArray[np.floating],
    outcomes: NDArray[np.floating],
    mean: NDArray[np.floating],
    precision: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Most probable coefficients of a logistic regression with a Gaussian prior, by damped Newton steps.

    Args:
        inputs: (n, k).
        outcomes: (n,) 0..1.
        mean: (k,) of the prior.
        precision: (k,) one over the prior's variance, above 0.
        weights: (n,) how much each outcome counts; None: all 1.

    Returns:
        (k,) coefficients.
    """
    x, y = np.asarray(inputs, np.float64), np.asarray(outcomes, np.float64)
    counts = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    found = np.array(mean, np.float64)
    for _ in range(_NEWTON_STEPS):
        chance = 0.5 + 0.5 * np.tanh(0.5 * (x @ found))
        gradient = x.T @ (counts * (y - chance)) - precision * (found - mean)
        curvature = (x * (counts * chance * (1.0 - chance))[:, None]).T @ x + np.diag(precision)
        found = found + np.clip(np.linalg.solve(curvature, gradient), -_LARGEST_STEP, _LARGEST_STEP)
    return found


@dataclass(frozen=True, eq=False)
class NewModelPrior:
    """What is known of a model before its first outcome.

    Attributes:
        slope: Of the logit on the difficulty, 0..1; at 0 every task is alike to it.
        slope_deviation: How much slopes differ between known models.
        difficulties: (Q,) difficulties of training requests; positive is easy.
    """

    slope: float
    slope_deviation: float
    difficulties: FloatArray

    @cached_property
    def _mean_success(self) -> NDArray[np.float64]:
        """Mean success over the training requests at each intercept of the grid; rises strictly."""
        logits = _GRID[:, None] + self.slope * self.difficulties.astype(np.float64)
        return np.asarray((0.5 + 0.5 * np.tanh(0.5 * logits)).mean(axis=1))

    def intercepts(self, success: NDArray[np.floating]) -> FloatArray:
        """Intercepts at which the mean success over the training requests is `success` (any shape, 0..1)."""
        wanted = np.clip(success, *DECLARED_BOUNDS)
        return np.asarray(np.interp(wanted, self._mean_success, _GRID), dtype=np.float32)

    def success(self, declared: NDArray[np.floating], deviations: FloatArray) -> FloatArray:
        """P(success) of new models.

        Args:
            declared: (B, M) declared mean success of each new model, 0..1.
            deviations: (B, P) as in `success_model.SuccessEstimate`.

        Returns:
            (B, M), 0..1.
        """
        difficulty = deviations.mean(axis=1, keepdims=True)
        logits = self.intercepts(declared) + np.float32(self.slope) * difficulty
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)

    def update(self, declared: float, deviations: FloatArray, outcomes: NDArray[np.floating]) -> NewModelPosterior:
        """Learn from a new model's outcomes.

        Args:
            declared: Its declared mean success, 0..1.
            deviations: (n, P) as in `success_model.SuccessEstimate`, of the requests it answered; n may be 0.
            outcomes: (n,) scores 0..1.
        """
        known = deviations.shape[1]
        mean = np.zeros(2 + known)
        mean[:2] = float(self.intercepts(np.array(declared))), self.slope
        spread = np.full(2 + known, WEIGHT_DEVIATION)
        spread[:2] = INTERCEPT_DEVIATION, max(self.slope_deviation, LEAST_SLOPE_DEVIATION)
        found = fit_logistic(_inputs(deviations), outcomes, mean, 1.0 / spread**2)
        return NewModelPosterior(found.astype(np.float32), len(outcomes))

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and JSON values: all that `from_arrays` needs."""
        return take_apart(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Rebuild what `to_arrays` took apart.

        Raises:
            PolicyError: Something is missing or not finite.
        """
        return put_together(cls, arrays, header)


@dataclass(frozen=True, eq=False)
class NewModelPosterior:
    """A new model after some outcomes.

    Attributes:
        coefficients: (2 + P,) intercept, slope on the difficulty, and weight of each known model.
        outcomes: How many it has learned from.
    """

    coefficients: FloatArray
    outcomes: int

    def success(self, deviations: FloatArray) -> FloatArray:
        """(B,) P(success) of the model, 0..1, from (B, P) deviations."""
        logits = _inputs(deviations) @ self.coefficients
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)


def learn_prior(deviations: FloatArray, scores: NDArray[np.floating], most: int = 512) -> NewModelPrior:
    """Learn from known models how strongly models follow the difficulty of a request.

    Args:
        deviations: (N, P) held-out, as in `success_model.SuccessEstimate`.
        scores: (N, P) outcomes 0..1; NaN where there is none.
        most: Difficulties kept.

    Returns:
        A prior whose slope is the mean of the known models' slopes on the difficulty by the others, less half their
        deviation: to overrate how alike models are costs more than to underrate it.
    """
    models = deviations.shape[1]
    difficulty = deviations.mean(axis=1)
    quantiles = np.quantile(difficulty, (np.arange(most) + 0.5) / most).astype(np.float32)
    if models < 3:
        return NewModelPrior(0.5, 0.5, quantiles)
    slopes = []
    for model in range(models):
        known = ~np.isnan(scores[:, model])
        others = (deviations.sum(axis=1) - deviations[:, model]) / (models - 1)
        y = scores[known, model].astype(np.float64)
        rate = float(np.clip(y.mean(), 0.02, 0.98))
        x = np.stack([np.ones(len(y)), others[known]], axis=1)
        mean = np.array([np.log(rate / (1.0 - rate)), 0.7])
        slopes.append(float(fit_logistic(x, y, mean, np.array([0.1, 1.0]))[1]))
    deviation = float(np.std(slopes))
    return NewModelPrior(float(np.clip(np.mean(slopes) - 0.5 * deviation, 0.0, 1.0)), deviation, quantiles)


def _inputs(deviations: FloatArray) -> FloatArray:
    """(n, 2 + P) what the regression reads: 1, the difficulty, and what each known model deviates from it."""
    difficulty = deviations.mean(axis=1, keepdims=True)
    return np.concatenate([np.ones_like(difficulty), difficulty, deviations - difficulty], axis=1, dtype=np.float32)
