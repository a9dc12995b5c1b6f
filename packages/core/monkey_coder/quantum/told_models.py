"""What an answer tells of models and strategies, from arrays; the log keeps the arrays, and says it again from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray, IntArray

_SCALES: Final = np.array([1e4, 1e4, 1e4, 1e1, 1e4, 1e8])[:, None, None]
"""One over the last place told of success, low, high, milliseconds, utility and USD."""

Told = Sequence[float]
"""Success, low, high, milliseconds, utility and USD of one model."""


def figures(estimates: NDArray[np.float32], usd: NDArray[np.float64], chains: IntArray) -> list[list[Told]]:
    """Round what is told of the models of each chain.

    Args:
        estimates: (5, B, M) P(success), lower and upper end of its interval, expected latency of one attempt in
            seconds, and utility.
        usd: (B, M) expected cost of one attempt.
        chains: (B, K) columns.
    """
    told = np.empty((len(_SCALES), *usd.shape), dtype=np.float64)
    told[:5] = estimates
    told[3] *= 1e3
    told[5] = usd
    told = told[:, np.arange(len(chains))[:, None], chains]
    told *= _SCALES
    np.rint(told, out=told)
    told /= _SCALES
    listed: list[list[Told]] = told.transpose(1, 2, 0).tolist()
    return listed


def option(ref: str, told: Told) -> dict[str, Any]:
    """A model in contract form (`monkey_coder.models.Alternative`).

    Args:
        ref: `provider/model`.
        told: One entry of `figures`.
    """
    provider, _, model = ref.partition("/")
    return {"provider": provider, "model": model, "score": told[4], "expected": expected(told)}


def expected(told: Told) -> dict[str, float]:
    """What is expected of a model, in contract form (`monkey_coder.models.Expected`)."""
    success, low, high, latency_ms, _, usd = told
    return {
        "success": success,
        "success_low": low,
        "success_high": high,
        "cost_usd": usd,
        "latency_ms": latency_ms,
    }


def thread_result(
    strategy: str, status: str, time_ms: float | None, model: str | None, confidence: float | None
) -> dict[str, Any]:
    """What a strategy did, in contract form (`monkey_coder.models.ThreadResult`)."""
    return {
        "strategy": strategy,
        "status": status,
        "model": model,
        "confidence": confidence,
        "execution_time_ms": time_ms,
    }


def confidences(values: FloatArray) -> list[Any]:
    """Confidences of strategies as they are told, in lists of the same shape."""
    listed: list[Any] = values.astype(np.float64).round(4).tolist()
    return listed
