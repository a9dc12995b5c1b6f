"""Intervals for probabilities that rest on few outcomes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Z_90: Final = 1.6449
"""Two-sided 90% quantile of the normal distribution."""


def wilson(
    success: NDArray[np.floating], evidence: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """90% score interval of a probability (Wilson, 1927); it stays inside [0, 1] and is wide for little evidence.

    Args:
        success: Estimated probabilities.
        evidence: How many outcomes each rests on, same shape; 0 gives [0, 1].

    Returns:
        Lower and upper ends, each within [0, 1], with `success` between them.
    """
    zero, one, z, whole, half, quarter, least = _numbers(np.promote_types(success.dtype, evidence.dtype))
    outcomes = np.maximum(evidence, least)
    successes = outcomes * success
    scale = one / (outcomes + whole)
    centre = (successes + half) * scale
    reach = np.sqrt(successes * (one - success) + quarter) * (z * scale)
    low = np.maximum(np.minimum(centre - reach, success), zero)
    high = np.minimum(np.maximum(centre + reach, success), one)
    return np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)


@lru_cache(maxsize=8)
def _numbers(kind: np.dtype[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """0, 1, z, all, half and a quarter of its square, and next to nothing; plain numbers would take twice the time."""
    numbers = (0.0, 1.0, Z_90, Z_90**2, 0.5 * Z_90**2, 0.25 * Z_90**2, 1e-9)
    return tuple(np.array(number, dtype=kind) for number in numbers)
