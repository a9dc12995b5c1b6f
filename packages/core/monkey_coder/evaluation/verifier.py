"""The verifier of an episode: right but for a set share of errors, the same errors for every router."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

GOOD_ENOUGH: Final = 0.5
"""A true score from here on is a success."""


def uniform(seed: int | str, task_id: str, model: str) -> float:
    """The first 8 bytes of SHA-256 of ``"{seed}:{id}:{model}"``, big-endian, as a fraction of 2**64."""
    return int.from_bytes(sha256(f"{seed}:{task_id}:{model}".encode()).digest()[:8], "big") / 2**64


def verdicts(
    scores: NDArray[np.float64], ids: Sequence[str], models: Sequence[str], seed: int, noise: float
) -> NDArray[np.bool_]:
    """Tell which answers the verifier accepts.

    Args:
        scores: (N, M) true scores 0..1.
        ids: N task ids.
        models: M model names.
        seed: Which set of errors.
        noise: Probability that a verdict is wrong, 0..1.

    Returns:
        (N, M) True where the answer is accepted: ``(score >= 0.5) XOR (u < noise)``.
    """
    good = scores >= GOOD_ENOUGH
    if noise <= 0.0:
        return good
    u = np.array([[uniform(seed, task_id, model) for model in models] for task_id in ids])
    return good ^ (u.reshape(good.shape) < noise)
