"""What the strategies say about a batch, laid side by side, and what they expect together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from monkey_coder.ports import BoolArray, FloatArray, RouteBatch
from monkey_coder.quantum.answers import Estimates
from monkey_coder.quantum.collapse_strategies import Ballots
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.thread_manager import ThreadOutcome


@dataclass(frozen=True, slots=True)
class Polled:
    """What came of asking the strategies about B requests.

    Attributes:
        outcomes: What each strategy did in the fan-out, in the order of the ballots.
        ballots: Their opinions.
        estimates: What they expect together.
        bonus: (B, M) what each request says for and against providers; the ballots have it, too.
        rows: Where in the fan-out the requests stood; None: it asked about these alone.
    """

    outcomes: Sequence[ThreadOutcome]
    ballots: Ballots
    estimates: Estimates
    bonus: FloatArray
    rows: Sequence[int] | None = None

    @classmethod
    def of(
        cls,
        batch: RouteBatch,
        outcomes: Sequence[ThreadOutcome],
        asked: Mapping[str, BoolArray] | None,
        bonus: FloatArray,
        reliability: Mapping[str, float],
    ) -> Self:
        """Lay out what a fan-out brought; the arguments are those of `collect_ballots`."""
        ballots = collect_ballots(batch, outcomes, asked, bonus, reliability)
        return cls(outcomes, ballots, estimate(batch, ballots, outcomes), bonus)

    def take(self, rows: Sequence[int]) -> Polled:
        """The same for some of the requests."""
        return Polled(self.outcomes, self.ballots.take(rows), self.estimates.take(rows), self.bonus[rows], rows)


def collect_ballots(
    batch: RouteBatch,
    outcomes: Sequence[ThreadOutcome],
    asked: Mapping[str, BoolArray] | None,
    bonus: FloatArray,
    reliability: Mapping[str, float],
) -> Ballots:
    """Lay the opinions of all strategies side by side.

    Args:
        batch: What they were asked about.
        outcomes: What each of them did.
        asked: (B,) for each strategy: whether a request wants its opinion; None: all requests want them all.
        bonus: (B, M) what each request says for and against providers.
        reliability: How far each strategy has deserved its confidence so far; absent means 1.
    """
    shape = (len(outcomes), *batch.candidates.shape)
    utility = np.zeros(shape, dtype=np.float32)
    confidence, trusted = np.zeros(shape[:2], dtype=np.float32), np.empty(shape[:2], dtype=np.float32)
    voting = np.zeros(shape[:2], dtype=np.bool_)
    for row, outcome in enumerate(outcomes):
        if outcome.scores is not None:
            utility[row] = outcome.scores.utility
            confidence[row] = outcome.scores.confidence
            voting[row] = ~outcome.scores.abstains
            if asked is not None:
                voting[row] &= asked[outcome.strategy]
    utility += bonus
    trusted[:] = np.array([[reliability.get(outcome.strategy, 1.0)] for outcome in outcomes], dtype=np.float32)
    never = len(outcomes)
    return Ballots(
        strategies=tuple(outcome.strategy for outcome in outcomes),
        utility=utility,
        confidence=confidence,
        reliability=trusted,
        voting=voting,
        arrival=np.array([never if o.arrival is None else o.arrival for o in outcomes], dtype=np.int64),
        candidates=batch.candidates,
        cost_usd=batch.cost_usd,
    )


def estimate(batch: RouteBatch, ballots: Ballots, outcomes: Sequence[ThreadOutcome]) -> Estimates:
    """Combine the strategies' calibrated P(success); where none has one, the prior of the catalog stands.

    Args:
        batch: For priors.
        ballots: For weights.
        outcomes: In the order of the ballots.
    """
    success, evidence = batch.success, batch.evidence
    heard = [
        (weight, outcome.scores.success, batch.evidence if outcome.scores.evidence is None else outcome.scores.evidence)
        for weight, outcome in zip(ballots.weights, outcomes, strict=True)
        if outcome.scores is not None and outcome.scores.success is not None and weight.any()
    ]
    if heard:
        total = np.sum([weight for weight, _, _ in heard], axis=0)
        known, scale = (total > 0)[:, None], np.maximum(total, 1e-12)[:, None]
        success = np.where(known, _weighted_sum([(weight, chances) for weight, chances, _ in heard]) / scale, success)
        evidence = np.where(known, _weighted_sum([(weight, behind) for weight, _, behind in heard]) / scale, evidence)
    success = np.minimum(np.maximum(success, 0.0), 1.0)  # np.clip takes three times as long for small arrays
    low, high = wilson(success, evidence)
    return Estimates(success, low, high)


def _weighted_sum(parts: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """(B, M) the sum of weights (B,) times values (B, M); what is worth nothing may be no number at all."""
    weighted = [weight[:, None] * np.where((weight > 0)[:, None], values, 0.0) for weight, values in parts]
    return np.asarray(np.sum(weighted, axis=0), dtype=np.float32)
