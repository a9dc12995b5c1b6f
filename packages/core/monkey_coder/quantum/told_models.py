"""What an answer tells of models and strategies, from arrays; the log keeps the arrays, and says it again from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray, IntArray

_LAST_PLACES: Final = np.array([1e4, 1e4, 1e4, 1e1, 1e4, 1e8])[:, None, None]
"""One over the last place told of success, low, high, milliseconds, utility and USD."""

CONFIDENCE_DIGITS: Final = 4

Told = Sequence[float]
"""Success, low, high, milliseconds, utility and USD of one model."""


def figures(estimates: Sequence[FloatArray], usd: NDArray[np.float64], chains: IntArray) -> list[list[Told]]:
    """Round what is told of the models of each chain.

    Args:
        estimates: P(success), lower and upper end of its interval, expected latency of one attempt in seconds, and
            utility, each (B, M).
        usd: (B, M) expected cost of one attempt.
        chains: (B, K) columns.
    """
    rows, models = usd.shape
    every = np.empty((len(_LAST_PLACES), rows, models))
    every[-1] = usd
    for place, values in enumerate(estimates):
        every[place] = values
    columns = (
        np.arange(0, usd.size, models)[:, None] + chains
    )  # in one row of all, which is faster than an index by axis
    told = every.reshape(len(every), usd.size).take(columns, axis=1)
    told[3] *= 1e3
    told *= _LAST_PLACES
    np.rint(told, out=told)
    told /= _LAST_PLACES
    listed: list[list[Told]] = told.transpose(1, 2, 0).tolist()
    return listed


def described(names: Sequence[tuple[str, str]], told: Sequence[Told]) -> list[dict[str, Any]]:
    """Models in contract form (`monkey_coder.models.Alternative`).

    Args:
        names: Provider and model of each.
        told: Entries of `figures`; there may be more of them.
    """
    return [
        {
            "provider": provider,
            "model": model,
            "score": score,
            "expected": {
                "success": success,
                "success_low": low,
                "success_high": high,
                "cost_usd": usd,
                "latency_ms": latency_ms,
            },
        }
        for (provider, model), (success, low, high, latency_ms, score, usd) in zip(names, told, strict=False)
    ]


@lru_cache(maxsize=8)
def split(refs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Provider and model of each ref; they are the same until the catalog changes."""
    return tuple((provider, model) for provider, _, model in (ref.partition("/") for ref in refs))


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


def rounded(values: NDArray[np.floating[Any]], digits: int) -> list[Any]:
    """Numbers that print short, in lists of the same shape; as `round` has them, in less time where there are few."""
    told = values.astype(np.float64)
    told *= 10.0**digits
    np.rint(told, out=told)
    told /= 10.0**digits
    listed: list[Any] = told.tolist()
    return listed
