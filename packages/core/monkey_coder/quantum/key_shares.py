"""How much of what several reporters say counts, so that none is worth more than its share of any number.

What was told while there was one reporter only was never capped, and is not capped afterwards where nobody else has
spoken: or the first word of a second reporter, on whatever, would move all that the first one had taught.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def share_factors(weight: Float64, alone: Float64, prior: Float64, share: float) -> Float64:
    """Factors that keep every reporter within its share; only the one with most evidence can exceed it.

    Args:
        weight: (R, ...) evidence of R reporters.
        alone: (R, ...) how much of it is from before there was another reporter.
        prior: (...) evidence that the prior is worth.
        share: The most that one reporter is worth, one half to one; 1 means no cap.

    Returns:
        (R, ...) from 0 to 1.
    """
    factors = np.ones_like(weight)
    if len(weight) > 1 and share < 1.0:
        most = weight.max(axis=0)
        room = share / (1.0 - share) * (prior + weight.sum(axis=0) - most)
        room = np.where((weight > 0.0).sum(axis=0) == 1, np.maximum(room, alone.max(axis=0)), room)
        factor = np.where((most > room) & (room > 0.0), room / np.maximum(most, 1e-12), 1.0)
        factors = np.where(weight == most, factor, 1.0)
    return factors


def speaking(weight: Float64, alone: Float64, share: float) -> Float64:
    """How much say each reporter has in what is borrowed from elsewhere, beside its own evidence on a number.

    None, once there are two: the two ways of moving a number together would exceed its share. What was told before
    that keeps its say, and so does whoever has no evidence on the number itself.

    Args:
        weight: (R, ...) evidence of R reporters.
        alone: (R, ...) how much of it is from before there was another reporter.
        share: The most that one reporter is worth; 1 means no cap.

    Returns:
        (R, ...) from 0 to 1.
    """
    if len(weight) < 2 or share >= 1.0:
        return np.ones_like(weight)
    return np.where(weight > 0.0, alone / np.maximum(weight, 1e-12), 1.0)
