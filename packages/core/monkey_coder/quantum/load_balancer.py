"""Spreads the calls of one model over its deployments (T2.3.2): catalog entries that say `deployment_of` the same.

The collapse and exploration choose a model; which of its deployments takes the call is decided here, by one of three
policies. A deployment that a gate, a breaker or the quality floor excludes takes none, nor does one whose success is
surely below the best of the others; a session stays where its prompt is cached. The probabilities go into the
distribution that is logged, so that propensities stay true.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import BoolArray, Clock, DecisionEvent, FloatArray, IntArray, OutcomeEvent
from monkey_coder.quantum.exploration import Served

Balancing = Literal["weighted", "least_outstanding", "latency"]
"""By the weights of the catalog; where, for its weight, fewest calls are under way; by weight over expected latency."""

OUTSTANDING_S: Final = 120.0
"""A call that nobody reported about is taken to have ended after this long."""
MOST_OUTSTANDING: Final = 50_000


class Outstanding:
    """Calls of this process under way, by model: decisions without an outcome so far. Safe to use from any thread.

    Args:
        clock: Monotonic seconds.
        expiry_s: When a call counts as ended without an outcome.
        most: Calls kept in mind; the oldest make room.
    """

    def __init__(self, clock: Clock, expiry_s: float = OUTSTANDING_S, most: int = MOST_OUTSTANDING) -> None:
        self._clock, self._expiry_s, self._most = clock, expiry_s, most
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._counts: dict[str, int] = {}

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Count decisions, but for those from a catalog without deployments.

        Hits of the cache are not counted: an outcome names the decision that was made, and not the one that repeats it.
        """
        if not events or events[0].batch is None or not events[0].batch.table.deployments:
            return
        now = self._clock()
        with self._lock:
            for event in events:
                if event.answer["cache"] not in ("miss", "bypass"):
                    continue
                ref = f"{event.answer['provider']}/{event.answer['model']}"
                self._calls[event.answer["decision_id"]] = ref, now + self._expiry_s
                self._counts[ref] = self._counts.get(ref, 0) + 1
            while len(self._calls) > self._most:
                self._end(next(iter(self._calls)))

    def on_outcomes(self, events: Sequence[OutcomeEvent]) -> None:
        """Note that calls have ended; those that are not known are of no interest."""
        if not self._calls:
            return
        with self._lock:
            for event in events:
                if event.origin in self._calls:
                    self._end(event.origin)

    def counts(self, refs: Sequence[str]) -> IntArray:
        """(len(refs),) calls under way now."""
        now = self._clock()
        with self._lock:
            while self._calls and next(iter(self._calls.values()))[1] <= now:
                self._end(next(iter(self._calls)))
            return np.array([self._counts.get(ref, 0) for ref in refs], dtype=np.int64)

    def _end(self, decision_id: str) -> None:
        ref, _ = self._calls.pop(decision_id)
        self._counts[ref] -= 1
        if not self._counts[ref]:
            del self._counts[ref]


@dataclass(frozen=True)
class LoadBalancer:
    """Chooses deployments. Safe to use from several threads, as far as its generator is.

    Attributes:
        policy: How.
        outstanding: Calls under way; a listener, to be told of outcomes as well.
        rng: For what is drawn.
    """

    policy: Balancing
    outstanding: Outstanding
    rng: np.random.Generator

    def spread(
        self,
        served: Served,
        table: ModelTable,
        candidates: BoolArray,
        acceptable: BoolArray,
        success: FloatArray,
        high: FloatArray,
        last: IntArray,
        winner: IntArray,
    ) -> Served:
        """Let a deployment of the chosen model take each call; call it only where `table.deployments` has any.

        Args:
            served: What was chosen, after exploration.
            table: The models.
            candidates: (B, M) what passed every gate.
            acceptable: (B, M) what also reaches the quality floor.
            success: (B, M) P(success).
            high: (B, M) upper end of its interval.
            last: (B,) column that the session used last; negative without one.
            winner: (B,) column that the collapse put first.

        Returns:
            The same with other columns and distribution; to call another deployment of the winner is not to explore.
        """
        column, distribution, explored = served.column.copy(), served.distribution.copy(), served.explored.copy()
        for members in table.deployments:
            eligible = eligible_deployments(
                candidates[:, members], acceptable[:, members], success[:, members], high[:, members]
            )
            here = np.isin(served.column, members) & eligible.any(axis=1)
            shares = self._shares(members, eligible, here, table)
            kept = eligible & (members == last[:, None])
            shares = np.where(kept.any(axis=1, keepdims=True), kept, shares).astype(np.float32)
            mass = served.distribution[:, members].sum(axis=1, keepdims=True)
            spread = eligible.any(axis=1, keepdims=True)
            distribution[:, members] = np.where(spread, mass * shares, served.distribution[:, members])
            drawn = _draw(shares, self.rng)
            column[here] = members[drawn[here]]
            explored &= ~(np.isin(served.column, members) & np.isin(winner, members))
        return replace(served, column=column, distribution=distribution, explored=explored)

    def _shares(
        self, members: IntArray, eligible: BoolArray, here: BoolArray, table: ModelTable
    ) -> NDArray[np.floating]:
        """(B, k) probability of each deployment; rows sum to 1 where any is eligible."""
        weight = table.weight[members]
        match self.policy:
            case "weighted":
                return weighted_shares(eligible, weight)
            case "latency":
                return weighted_shares(eligible, weight / np.maximum(table.latency_s[members], 1e-3))
            case "least_outstanding":
                counts = self.outstanding.counts([table.refs[member] for member in members])
                return least_outstanding(eligible, weight, counts, here)


def tell_of_deployments(
    answers: Sequence[dict[str, Any]], chosen: IntArray, taken: IntArray, refs: Sequence[str]
) -> None:
    """Add to each answer's reasoning when another deployment of the chosen model takes the call.

    Args:
        answers: B answers in contract form; changed in place.
        chosen: (B,) column before it was spread.
        taken: (B,) column afterwards.
        refs: M model refs.
    """
    for row in np.flatnonzero(chosen != taken).tolist():
        said = f" {refs[taken[row]]}, another deployment of {refs[chosen[row]]}, takes this call."
        answers[row]["collapse_reasoning"] += said


def eligible_deployments(
    candidates: BoolArray, acceptable: BoolArray, success: FloatArray, high: FloatArray
) -> BoolArray:
    """Which deployments of one model may take a call.

    Args:
        candidates: (B, k) what passed every gate.
        acceptable: (B, k) what also reaches the quality floor; where none does, the candidates count.
        success: (B, k) P(success).
        high: (B, k) upper end of its interval.

    Returns:
        (B, k) the acceptable ones, without those that are surely worse than the best of them.
    """
    able = np.where(acceptable.any(axis=1, keepdims=True), acceptable, candidates)
    best = np.where(able, success, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(able & (high >= best))


def weighted_shares(eligible: BoolArray, weight: NDArray[np.floating]) -> NDArray[np.floating]:
    """(B, k) weights (k,) of the eligible as probabilities; all 0 where none is."""
    held = np.where(eligible, weight, 0.0)
    return np.asarray(held / np.maximum(held.sum(axis=1, keepdims=True), 1e-300))


def least_outstanding(
    eligible: BoolArray, weight: NDArray[np.floating], counts: IntArray, calls: BoolArray
) -> NDArray[np.floating]:
    """(B, k) 1 for the deployment with the fewest calls under way for its weight, the earlier rows' counted in.

    Args:
        eligible: (B, k).
        weight: (k,) above 0.
        counts: (k,) calls under way.
        calls: (B,) whether the row will make a call of this model.
    """
    busy = counts.astype(np.float64)
    shares = np.zeros(eligible.shape)
    for row in np.flatnonzero(eligible.any(axis=1)):
        choice = int(np.where(eligible[row], (busy + 1.0) / weight, np.inf).argmin())
        shares[row, choice] = 1.0
        busy[choice] += calls[row]
    return shares


def _draw(shares: NDArray[np.floating], rng: np.random.Generator) -> IntArray:
    """(B,) place drawn by the shares of each row."""
    bounds = shares.cumsum(axis=1)
    draw = rng.random(len(shares))[:, None] * bounds[:, -1:]
    drawn = (bounds <= draw).sum(axis=1)
    last = shares.shape[1] - 1 - np.argmax((shares > 0)[:, ::-1], axis=1)  # rounding must not carry it past the last
    return np.asarray(np.minimum(drawn, last))
