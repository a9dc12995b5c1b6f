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
    z2 = Z_90**2
    n = np.maximum(evidence, 1e-9)
    centre = (success + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_90 * np.sqrt(success * (1 - success) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = np.clip(np.minimum(centre - half, success), 0.0, 1.0)
    high = np.clip(np.maximum(centre + half, success), 0.0, 1.0)
    return low.astype(np.float32), high.astype(np.float32)
