"""Intervals for probabilities that rest on few outcomes."""

from __future__ import annotations

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
    outcomes = np.maximum(evidence, 1e-9)
    successes = outcomes * success
    scale = 1.0 / (outcomes + Z_90**2)
    centre = (successes + 0.5 * Z_90**2) * scale
    half = np.sqrt(successes * (1.0 - success) + 0.25 * Z_90**2) * (Z_90 * scale)
    low = np.maximum(np.minimum(centre - half, success), 0.0)
    high = np.minimum(np.maximum(centre + half, success), 1.0)
    return np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)
