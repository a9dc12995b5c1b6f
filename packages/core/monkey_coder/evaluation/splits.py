"""Splits that anyone can repeat from the files alone: by SHA-256 of the trimmed prompt.

Equal prompts have equal hashes, so duplicates never fall on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

HOLDOUT_PARTS: Final = 1000


def prompt_number(prompt: str) -> int:
    """SHA-256 of the prompt without surrounding white space (UTF-8), as a 256-bit big-endian integer."""
    return int.from_bytes(sha256(prompt.strip().encode()).digest(), "big")


def folds(prompts: Sequence[str], count: int) -> NDArray[np.int64]:
    """Give each prompt its fold, 0 to `count` - 1; shape (N,)."""
    return np.array([prompt_number(prompt) % count for prompt in prompts], dtype=np.int64)


def holdout(prompts: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Mark the test rows: those whose number modulo 1000 lies below ``1000 * share``; shape (N,)."""
    return folds(prompts, HOLDOUT_PARTS) < round(share * HOLDOUT_PARTS)


def groups(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct trimmed prompts in order of appearance; duplicates share a number; shape (N,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(prompt.strip(), len(numbers)) for prompt in prompts], dtype=np.int64)
