"""Keeping a session with the model it used last, while switching would cost more than it brings.

Providers keep the prompt of a running session in a cache and charge less for reading it again. Another model starts
cold, so it must be better by more than that saving. A failure or a gate ends the attachment at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import BoolArray, FloatArray, IntArray, RouteBatch

MOST_SESSIONS: Final = 100_000
"""Sessions remembered; the one used longest ago goes first."""

NO_SESSION: Final = -1


class SessionMemory:
    """Which model each session used last. Safe to use from any thread.

    Args:
        most: How many sessions to remember.
    """

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._last: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, session_id: str) -> str | None:
        """Ref of the model that a session used last."""
        with self._lock:
            return self._last.get(session_id)

    def columns(self, session_ids: Sequence[str | None], table: ModelTable) -> IntArray:
        """(B,) column of the model that each session used last; `NO_SESSION` without one, or when it has gone."""
        if not any(session_ids):
            return np.array([NO_SESSION] * len(session_ids), dtype=np.int64)
        refs = self._refs(session_ids)
        return np.array([table.index.get(ref, NO_SESSION) if ref else NO_SESSION for ref in refs], dtype=np.int64)

    def settled(self, session_id: str) -> bool:  # noqa: ARG002 - for those who share
        """Whether `last` may be believed without `refresh`; here always, for nobody else knows more."""
        return True

    def refresh(self, session_ids: Sequence[str | None]) -> None:
        """Learn what others know of sessions; may wait for it, and does not here."""

    def use(self, session_id: str, ref: str) -> None:
        """Note that a session was given a model."""
        with self._lock:
            self._last[session_id] = ref
            self._last.move_to_end(session_id)
            if len(self._last) > self._most:
                self._last.popitem(last=False)

    def _refs(self, session_ids: Sequence[str | None]) -> list[str | None]:
        with self._lock:
            return [self._last.get(session_id) if session_id else None for session_id in session_ids]


def stay_or_switch(
    winner: IntArray, last: IntArray, utility: FloatArray, acceptable: BoolArray, tokens: IntArray, batch: RouteBatch
) -> tuple[IntArray, BoolArray]:
    """Decide for each request whether its session stays with its model.

    Args:
        winner: (B,) column that the collapse put first.
        last: (B,) column the session used last; `NO_SESSION` where there is none.
        utility: (B, M) collapsed utilities.
        acceptable: (B, M) candidates that reach the quality floor.
        tokens: (B,) tokens of the session that the provider may have cached.
        batch: For prices and weights.

    Returns:
        (B,) column to serve, and (B,) whether the session stays although another model has the higher utility.
    """
    rows = np.arange(len(winner))
    held = np.maximum(last, 0)
    worth = utility[rows, held] + saving(held, tokens, batch)
    stays = (last != NO_SESSION) & (last != winner) & acceptable[rows, held] & (worth >= utility[rows, winner])
    return np.where(stays, held, winner), stays


def saving(column: IntArray, tokens: IntArray, batch: RouteBatch) -> NDArray[np.float64]:
    """(B,) what reading the session from the provider's cache saves, in successes."""
    table = batch.table
    cheaper = np.maximum(table.input_usd[column] - table.cached_input_usd[column], 0.0)
    return np.asarray(batch.cost_weight * tokens * cheaper, dtype=np.float64)
