"""What the strategies say about a batch, laid side by side, and what they expect together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from monkey_coder.lean_values import lean
from monkey_coder.ports import BoolArray, FloatArray, RouteBatch, Scores
from monkey_coder.quantum.answers import Estimates
from monkey_coder.quantum.collapse_strategies import Ballots
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.thread_manager import ThreadOutcome


@lean
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
    strategies = tuple([outcome.strategy for outcome in outcomes])
    utility, confidence = np.empty(shape, dtype=np.float32), np.empty(shape[:2], dtype=np.float32)
    trusted, voting = np.empty(shape[:2], dtype=np.float32), np.empty(shape[:2], dtype=np.bool_)
    for place, outcome in enumerate(outcomes):
        told = outcome.scores or _no_opinion(batch)
        utility[place], confidence[place], voting[place] = told.utility, told.confidence, told.abstains
        trusted[place] = reliability.get(outcome.strategy, 1.0)
    never = len(outcomes)  # later than all that came
    arrival = np.array([never if o.arrival is None else o.arrival for o in outcomes], dtype=np.int64)
    utility += bonus
    np.logical_not(voting, out=voting)
    if asked is not None:
        voting &= np.array([asked[strategy] for strategy in strategies])
    return Ballots(strategies, utility, confidence, trusted, voting, arrival, batch.candidates, batch.cost_usd)


def _no_opinion(batch: RouteBatch) -> Scores:
    count = len(batch)
    nothing: FloatArray = np.zeros(batch.candidates.shape, dtype=np.float32)
    return Scores(nothing, np.zeros(count, dtype=np.float32), np.ones(count, dtype=np.bool_))


def estimate(batch: RouteBatch, ballots: Ballots, outcomes: Sequence[ThreadOutcome]) -> Estimates:
    """Combine the strategies' calibrated P(success); where none has one, the prior of the catalog stands.

    Args:
        batch: For priors.
        ballots: For weights.
        outcomes: In the order of the ballots.
    """
    success, evidence = batch.success, batch.evidence
    heard = []
    for weight, outcome in zip(ballots.weights, outcomes, strict=True):
        told = outcome.scores
        if told is not None and told.success is not None and np.count_nonzero(weight):
            heard.append((weight, told.success, evidence if told.evidence is None else told.evidence))
    if heard:
        total = np.sum([weight for weight, _, _ in heard], axis=0)
        known, scale = (total > 0)[:, None], np.maximum(total, 1e-12)[:, None]
        success = np.where(known, _weighted_sum([(weight, chances) for weight, chances, _ in heard]) / scale, success)
        success = np.minimum(np.maximum(success, 0.0), 1.0)  # np.clip takes three times as long for small arrays
        evidence = np.where(known, _weighted_sum([(weight, behind) for weight, _, behind in heard]) / scale, evidence)
    low, high = wilson(success, evidence)
    return Estimates(success, low, high)


def _weighted_sum(parts: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """(B, M) the sum of weights (B,) times values (B, M); what is worth nothing may be no number at all."""
    weighted = [weight[:, None] * np.where((weight > 0)[:, None], values, 0.0) for weight, values in parts]
    return np.asarray(np.sum(weighted, axis=0), dtype=np.float32)
