"""Fitting the families of `success_model.py`: which there are, how to tell them, and what is typical of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.success_model import unit

OTHER_FAMILY: Final = ""
"""Name of the family that gathers all small ones."""

_FAMILY_REFERENCES: Final = 8
_VARIANCE_ROWS: Final = 20.0
_LEAST_VARIANCE: Final = 0.05
_CHUNK: Final = 1024


def name_families(names: Sequence[str], least: int) -> tuple[tuple[str, ...], IntArray]:
    """Names of families with enough rows (all others together make one), and the index of each row's."""
    distinct, family, count = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True, return_counts=True)
    large = count >= least
    kept = [str(name) for name in distinct[large]]
    place = np.where(large, np.cumsum(large) - 1, len(kept))
    if not large.all():
        kept.append(OTHER_FAMILY)
    return tuple(kept), place[family].astype(np.int64)


def fit_families(features: FloatArray, family: IntArray, count: int, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Fit a multinomial logistic regression (L-BFGS on all rows).

    Args:
        features: (N, n).
        family: (N,) 0 to `count` - 1.
        count: Families, G.
        penalty: Strength of the pull of weights to 0.

    Returns:
        Weights (n, G) and biases (G,); all 0 with a single family.
    """
    weight = torch.zeros(features.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    if count > 1:
        x, y = torch.from_numpy(features), torch.from_numpy(family)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(x @ weight + bias, y) + 0.5 * penalty / len(y) * weight.square().sum()
            torch.autograd.backward(loss)
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach().numpy(), bias.detach().numpy()


def fit_typical(features: FloatArray, family: IntArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Mean (G, n) of each family's features and one over their variances, which are drawn to those of all families."""
    one_hot = (family[:, None] == np.arange(count)).astype(np.float32)
    rows = one_hot.sum(axis=0)[:, None]
    overall = features.mean(axis=0)
    centre = (one_hot.T @ features + overall) / (rows + 1.0)
    squares = np.square(features - centre[family])
    shared = squares.mean(axis=0)
    variance = (one_hot.T @ squares + _VARIANCE_ROWS * shared) / (rows + _VARIANCE_ROWS)
    variance += _LEAST_VARIANCE * shared.mean() + 1e-6
    return centre.astype(np.float32), (1.0 / variance).astype(np.float32)


def choose_references(
    features: FloatArray, family: IntArray, most: int, far_share: float, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Choose what similarity is measured to.

    Args:
        features: (N, n) of the training rows.
        family: (N,) index of each row's family.
        most: Most references; of each family there are some.
        far_share: Share of the rows, 0..1, that are to count as far.
        rng: Picks the rows.

    Returns:
        (R, n) features scaled to unit length, and the cosine similarity to another reference that rows have.
    """
    order = rng.permutation(len(features))
    rank = np.empty(len(order), np.int64)
    by_family = order[np.argsort(family[order], kind="stable")]
    starts = np.searchsorted(family[by_family], np.arange(family.max() + 1))
    rank[by_family] = np.arange(len(order)) - starts[family[by_family]]
    first = order[np.argsort(rank[order] >= _FAMILY_REFERENCES, kind="stable")][:most]
    directions = unit(features)
    references = np.ascontiguousarray(directions[first])
    nearest = np.empty(len(features), np.float32)
    for start in range(0, len(features), _CHUNK):
        similar = directions[start : start + _CHUNK] @ references.T
        similar[similar > 1.0 - 1e-5] = -1.0  # the same text
        nearest[start : start + _CHUNK] = similar.max(axis=1)
    return references, float(np.quantile(nearest, far_share))
