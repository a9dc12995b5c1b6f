"""What a request costs a model, compared with what that model usually costs.

Prices tell what a token costs, not how many a model will write. Longer and harder requests cost more, and not all
models alike. The logarithm of each model's cost is predicted by ridge regression on the embedding and the text marks
(Hoerl & Kennard 1970), with the penalty of each model chosen by leaving one row out, and trusted the more, the more
rows it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.array_parts import Arrays, put_together, take_apart
from monkey_coder.quantum.success_model import read_features

LEAST_ROWS: Final = 400
"""With fewer priced rows, the mean is the better guess."""

HALF_TRUST_ROWS: Final = 500.0
PENALTIES: Final = tuple(10.0**power for power in np.arange(0.0, 6.5, 0.5))
MOST_FACTOR: Final = 10.0
"""Requests are not believed to cost more than this many times the mean, nor less than one over it."""


@dataclass(frozen=True, eq=False)
class CostModel:
    """Log cost of P models relative to their means, linear in what is read of a request (R).

    Attributes:
        models: P model refs.
        mark_mean: Of each text mark in training.
        mark_scale: One over its deviation.
        centre: (R,) mean of the features.
        weights: (R, P).
        offset: (P,) such that the mean factor over the training rows is 1.
        trust: 0..1, exponent of the factor.
    """

    models: tuple[str, ...]
    mark_mean: FloatArray
    mark_scale: FloatArray
    centre: FloatArray
    weights: FloatArray
    offset: FloatArray
    trust: float

    def factors(self, embedding: FloatArray, marks: FloatArray, refs: Sequence[str]) -> FloatArray:
        """(B, M) expected cost over the model's mean; 1 for models that training did not know.

        Args:
            embedding: (B, D) unit embeddings.
            marks: (B, MARKS) text marks.
            refs: M model refs.
        """
        read = read_features(embedding, marks, self.mark_mean, self.mark_scale) - self.centre
        bound = np.float32(np.log(MOST_FACTOR))
        known = np.exp(np.clip(self.trust * (read @ self.weights + self.offset), -bound, bound))
        slot = {ref: place for place, ref in enumerate(self.models)}
        factors = np.ones((len(read), len(refs)), np.float32)
        for column, ref in enumerate(refs):
            if ref in slot:
                factors[:, column] = known[:, slot[ref]]
        return factors

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


def fit_cost_model(
    refs: Sequence[str],
    embedding: FloatArray,
    marks: FloatArray,
    costs: NDArray[np.float64],
    mark_mean: FloatArray,
    mark_scale: FloatArray,
) -> CostModel | None:
    """Learn what requests cost.

    Args:
        refs: P model refs.
        embedding: (N, D) unit embeddings.
        marks: (N, MARKS) text marks.
        costs: (N, P) USD of an attempt; NaN where unknown.
        mark_mean: Of each text mark.
        mark_scale: One over its deviation.

    Returns:
        The model, or None where fewer than `LEAST_ROWS` rows have all their costs, or a model costs nothing.
    """
    priced = np.isfinite(costs).all(axis=1)
    usual = costs[priced].mean(axis=0) if priced.any() else np.zeros(len(refs))
    if priced.sum() < LEAST_ROWS or (usual <= 0.0).any():
        return None
    read = read_features(embedding[priced], marks[priced], mark_mean, mark_scale).astype(np.float64)
    logs = np.log(costs[priced] / usual + 1e-3)
    centre = read.mean(axis=0)
    weights, fitted = _ridge(read - centre, logs)
    rows = float(priced.sum())
    return CostModel(
        tuple(refs),
        mark_mean,
        mark_scale,
        centre.astype(np.float32),
        weights.astype(np.float32),
        (-np.log(np.exp(fitted).mean(axis=0))).astype(np.float32),
        rows / (rows + HALF_TRUST_ROWS),
    )


def _ridge(read: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (R, P), the penalty of each column by leave-one-out error, and what they say of the rows, centred."""
    left, singular, right = np.linalg.svd(read, full_matrices=False)
    target = wanted - wanted.mean(axis=0)
    rotated = left.T @ target
    weights = np.zeros((read.shape[1], wanted.shape[1]))
    least = np.full(wanted.shape[1], np.inf)
    for penalty in PENALTIES:
        shrink = singular**2 / (singular**2 + penalty)
        own = (left**2 * shrink).sum(axis=1, keepdims=True)
        error = (((target - left @ (shrink[:, None] * rotated)) / (1.0 - own)) ** 2).mean(axis=0)
        better = error < least
        found = right.T @ ((singular / (singular**2 + penalty))[:, None] * rotated)
        weights[:, better], least[better] = found[:, better], error[better]
    return weights, read @ weights
