"""The one formula that everything maximises (design section 6).

For one attempt ``utility = P(success) - lambda * cost_usd - mu * latency_s``. Lambda (success per USD) and
mu (success per second) come from the request: ``value_usd`` gives ``lambda = 1 / value_usd`` and ``mu = 0``;
the weights give ``lambda = (cost / quality) / cost_ref`` and ``mu = (latency / quality) / latency_ref``, where
the references are the expected cost of the dearest and the latency of the slowest candidate of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import Preferences

MOST_WEIGHT: Final = 1e12
"""Upper bound of lambda and mu, far beyond what can matter, so that preferences of any size give finite utilities."""


_NO_TIME: Final = np.array(0.0, dtype=np.float32)  # as an array: a plain number takes twice the time


def reference_weights(
    preferences: Sequence[Preferences], cost_ref: NDArray[np.floating], latency_ref: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn preferences into prices of money and time.

    Args:
        preferences: One per request (B).
        cost_ref: (B,) USD of the dearest candidate; where it is 0, cost cannot differ and weighs nothing.
        latency_ref: (B,) seconds of the slowest candidate; where it is 0, likewise.

    Returns:
        (B,) lambda in success per USD, and (B,) mu in success per second; each from 0 to `MOST_WEIGHT`.
    """
    costs: list[float] = cost_ref.tolist()
    latencies: list[float] = latency_ref.tolist()
    rows = [_weights(p, cost, latency) for p, cost, latency in zip(preferences, costs, latencies, strict=True)]
    weights = np.array(rows, dtype=np.float32).reshape(-1, 2)
    return weights[:, 0], weights[:, 1]


def _weights(preferences: Preferences, cost_ref: float, latency_ref: float) -> tuple[float, float]:
    if preferences.value_usd is not None:
        return min(1.0 / preferences.value_usd, MOST_WEIGHT), 0.0
    quality = preferences.quality
    return (
        min(preferences.cost / quality / cost_ref, MOST_WEIGHT) if cost_ref > 0 else 0.0,
        min(preferences.latency / quality / latency_ref, MOST_WEIGHT) if latency_ref > 0 else 0.0,
    )


def utility(
    success: NDArray[np.floating],
    cost_usd: NDArray[np.floating],
    latency_s: NDArray[np.floating],
    cost_weight: NDArray[np.floating],
    latency_weight: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Expected utility in successes, at most 1.

    Args:
        success: (B, M) P(success), or the observed success or quality of an outcome, 0..1.
        cost_usd: (B, M) cost of the attempt in USD.
        latency_s: (B, M) latency of the attempt in seconds.
        cost_weight: (B,) lambda, success per USD.
        latency_weight: (B,) mu, success per second.

    Returns:
        (B, M) utilities.
    """
    value = success - cost_weight[:, None] * cost_usd - latency_weight[:, None] * latency_s
    return np.asarray(value, dtype=np.float32)


def references(
    cost_usd: NDArray[np.floating], latency_s: NDArray[np.floating], candidates: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B,) cost of the dearest and (B,) latency of the slowest candidate of each request; 0 without candidates."""
    cost_ref = np.maximum.reduce(cost_usd, axis=1, where=candidates, initial=0.0)
    latency_ref = np.maximum.reduce(np.where(candidates, latency_s, _NO_TIME), axis=1)
    return cost_ref.astype(np.float64, copy=False), latency_ref.astype(np.float64, copy=False)


def worth(
    preferences: Sequence[Preferences],
    success: NDArray[np.floating],
    cost_usd: NDArray[np.floating],
    latency_s: NDArray[np.floating],
    candidates: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """(B, M) utility of one attempt at each request's own preferences; arguments as in `utility` and `references`."""
    cost_weight, latency_weight = reference_weights(preferences, *references(cost_usd, latency_s, candidates))
    return utility(success, cost_usd, latency_s, cost_weight, latency_weight)
