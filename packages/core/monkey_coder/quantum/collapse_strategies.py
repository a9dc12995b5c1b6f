"""From many opinions to one ranking (T2.2.2): pure, vectorised, and registered by name in `COLLAPSES`.

All collapses see the same `Ballots` and return the same `Ranking`. Ties are broken by utility, then by the
lower expected cost, then by catalog order, so that the same ballots always give the same ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.lean_values import lean, lean_with_room, once
from monkey_coder.models import CollapseName
from monkey_coder.ports import BoolArray, FloatArray, IntArray


@lean_with_room
class Ballots:
    """What the strategies said about a batch; S strategies, B requests, M models.

    Attributes:
        strategies: S names.
        utility: (S, B, M) utilities; meaningless for models that are no candidates.
        confidence: (S, B) each strategy's own confidence, 0..1.
        reliability: (S, B) how far the strategy has deserved its confidence so far, at least 0.
        voting: (S, B) False where a strategy was not asked, failed, came late or abstained.
        arrival: (S,) rank of arrival, 0 first.
        candidates: (B, M) models that passed every gate.
        cost_usd: (B, M) expected cost, to break ties.
    """

    strategies: tuple[str, ...]
    utility: FloatArray
    confidence: FloatArray
    reliability: FloatArray
    voting: BoolArray
    arrival: IntArray
    candidates: BoolArray
    cost_usd: FloatArray

    @once
    def _weighing(self) -> tuple[FloatArray, FloatArray]:
        weights = np.where(self.voting, self.confidence * self.reliability, _NOTHING)
        total = np.add.reduce(weights, axis=0)
        if not all(total.tolist()):
            weights = np.where(self.voting & (total <= 0.0), np.float32(1.0), weights)
            total = np.maximum(weights.sum(axis=0), 1e-12)
        return weights, total

    @property
    def weights(self) -> FloatArray:
        """(S, B) confidence times reliability of the voting strategies; equal where all of them weigh nothing."""
        return self._weighing[0]

    @property
    def total(self) -> FloatArray:
        """(B,) what all voting strategies weigh together; above 0."""
        return self._weighing[1]

    @once
    def voters(self) -> IntArray:
        """(B,) how many strategies vote."""
        return np.asarray(np.add.reduce(self.voting, axis=0))

    @once
    def heard(self) -> FloatArray:
        """(S, B, M) utilities as far as they count: 0 where a strategy does not vote."""
        return np.where(self.voting[:, :, None], self.utility, _NOTHING)

    @once
    def first(self) -> IntArray:
        """(S, B) the column that each strategy puts first; meaningless where it does not vote."""
        return foremost(_eligible(self.utility, self.candidates), self.cost_usd)

    @once
    def starts(self) -> IntArray:
        """(S, B) where each strategy's utilities for each request begin, all laid out in one row."""
        strategies, requests, models = self.utility.shape
        return np.arange(0, strategies * requests * models, models).reshape(strategies, requests)

    def take(self, rows: Sequence[int]) -> Ballots:
        """The ballots of some of the requests."""
        return Ballots(
            self.strategies,
            self.utility[:, rows],
            self.confidence[:, rows],
            self.reliability[:, rows],
            self.voting[:, rows],
            self.arrival,
            self.candidates[rows],
            self.cost_usd[rows],
        )


@lean
class Ranking:
    """One ranked decision for each request.

    Attributes:
        order: (B, M) columns, best first; models that are no candidates come last.
        utility: (B, M) the collapsed utility by which exploration and explanations weigh the models.
        confidence: (B,) 0..1.
        decider: (B,) the strategy that carried the decision.
        support: (B,) how many voting strategies put the winner first.
        voters: (B,) how many strategies voted; 0 means that nobody did, and the other entries mean nothing.
        first: (S, B) the column that each strategy puts first; meaningless where it does not vote.
    """

    order: IntArray
    utility: FloatArray
    confidence: FloatArray
    decider: IntArray
    support: IntArray
    voters: IntArray
    first: IntArray

    @property
    def majority(self) -> BoolArray:
        """(B,) whether more than half of the voters put the winner first."""
        return np.greater(2 * self.support, self.voters)


Collapse = Callable[[Ballots], Ranking]

NEAR: Final = 0.1
"""Regret, in successes, at which a strategy's support for the winner has fallen to 1/e."""

# As arrays, for a plain number takes several times as long beside a small array; `reduce` is used for the like reason.
_NOTHING: Final = np.array(0.0, dtype=np.float32)
_LESS_THAN_NOTHING: Final = np.array(-1.0, dtype=np.float32)
_INFINITE: Final = np.array(np.inf, dtype=np.float32)
_NEAR: Final = np.array(NEAR, dtype=np.float32)


def mean_utility(ballots: Ballots) -> FloatArray:
    """(B, M) utilities averaged over the strategies."""
    return np.asarray(np.einsum("sb,sbm->bm", ballots.weights, ballots.heard) / ballots.total[:, None])


def foremost(keyed: NDArray[np.floating], cost_usd: FloatArray) -> IntArray:
    """(..., B) the column of the highest of (..., B, M) values, ties broken as by `best_first`."""
    tied = keyed == np.maximum.reduce(keyed, axis=-1, keepdims=True)
    return np.asarray(np.where(tied, cost_usd, _INFINITE).argmin(axis=-1))


def best_first(utility: NDArray[np.floating], ballots: Ballots) -> IntArray:
    """Sort columns by falling utility, then rising cost, then catalog order; non-candidates last.

    Args:
        utility: (B, M), or (N, B, M) for N rankings of every request.
        ballots: For candidates and costs.

    Returns:
        (B, M) or (N, B, M) columns.
    """
    keyed = -_eligible(utility, ballots.candidates)
    cost = ballots.cost_usd
    if cost.shape != keyed.shape:
        cost = cost[None].repeat(len(keyed), axis=0)
    return np.lexsort((cost, keyed), axis=-1)


def best_score(ballots: Ballots) -> Ranking:
    """The strategy that is most confident, after its calibration, decides alone."""
    decider = np.where(ballots.voting, ballots.weights, _LESS_THAN_NOTHING).argmax(axis=0)
    return _decided_by(decider, ballots)


def first_success(ballots: Ballots) -> Ranking:
    """The strategy that answered first decides alone."""
    never = len(ballots.strategies) + 1  # later than a vote whose arrival nobody noted
    decider = np.where(ballots.voting, ballots.arrival[:, None], never).argmin(axis=0)
    return _decided_by(decider, ballots)


def weighted(ballots: Ballots) -> Ranking:
    """The mean of all opinions, weighted by confidence and reliability."""
    mean = mean_utility(ballots)
    return _ranked(best_first(mean, ballots), mean, ballots)


def consensus(ballots: Ballots) -> Ranking:
    """The model that most strategies put first; where that is no majority, the weighted best of the tied."""
    mean = mean_utility(ballots)
    votes = _votes(ballots)
    tied = votes == np.maximum.reduce(votes, axis=1, keepdims=True)
    order = best_first(mean, ballots)
    starts = ballots.starts[0]
    place = tied.ravel().take(starts[:, None] + order).argmax(axis=1)  # of the first in the order that is tied
    if any(place.tolist()):
        order = _move_to_front(order, order.ravel().take(starts + place))
    return _ranked(order, mean, ballots)


def combined(ballots: Ballots) -> Ranking:
    """Rank aggregation: models in the order of their weighted mean rank (Borda, 1784), ties by utility."""
    mean = mean_utility(ballots)
    silent = _silent(ballots)
    order = best_first(ballots.utility[silent:], ballots)
    columns = ballots.starts[0][:, None] + order
    places = ballots.weights[silent:, :, None] * np.arange(mean.shape[1])
    ranks = np.bincount(columns.ravel(), places.ravel(), mean.size).reshape(mean.shape)  # weighted, and added up
    borda = np.rint(ranks / ballots.total[:, None] * 1e6)  # what differs by less is tied
    first = np.zeros(ballots.voting.shape, dtype=np.int64)
    first[silent:] = order[:, :, 0]
    keyed = -_eligible(-borda, ballots.candidates)
    return _ranked(np.lexsort((ballots.cost_usd, -mean, keyed), axis=-1), mean, ballots, first)


COLLAPSES: Final[Mapping[CollapseName, Collapse]] = {
    "best_score": best_score,
    "weighted": weighted,
    "consensus": consensus,
    "first_success": first_success,
    "combined": combined,
}


def _decided_by(decider: IntArray, ballots: Ballots) -> Ranking:
    rows = np.arange(len(decider))
    utility = ballots.utility[decider, rows]
    order = best_first(utility, ballots)
    first = ballots.first
    agrees = (first == order[:, 0]) & ballots.voting
    confidence = ballots.confidence[decider, rows]
    return Ranking(order, utility, confidence, decider, np.add.reduce(agrees, axis=0), ballots.voters, first)


def _ranked(order: IntArray, utility: FloatArray, ballots: Ballots, first: IntArray | None = None) -> Ranking:
    winner, first = order[:, 0], ballots.first if first is None else first
    agrees = (first == winner) & ballots.voting
    support = np.add.reduce(agrees, axis=0)
    share = ballots.weights * nearness(winner, first, ballots)
    confidence = np.asarray(np.add.reduce(share * ballots.confidence, axis=0) / ballots.total, dtype=np.float32)
    decider = np.where(agrees | (support == 0), share, _LESS_THAN_NOTHING).argmax(axis=0)
    return Ranking(order, utility, confidence, decider, support, ballots.voters, first)


def nearness(winner: IntArray, first: IntArray, ballots: Ballots) -> FloatArray:
    """(S, B) how near the winner comes to each strategy's own best: 1 where it is that, falling with the regret."""
    heard = ballots.heard.ravel()  # for columns are taken out of one row several times quicker
    gain = heard.take(ballots.starts + winner) - heard.take(ballots.starts + first)
    return np.asarray(np.exp(gain / _NEAR))


def put_first(column: IntArray, ranking: Ranking, ballots: Ballots) -> Ranking:
    """The same ranking with another winner in each row; confidence and decider stay those of the vote."""
    agrees = (ranking.first == column) & ballots.voting
    return replace(ranking, order=_move_to_front(ranking.order, column), support=agrees.sum(axis=0))


def _eligible(utility: NDArray[np.floating], candidates: BoolArray) -> NDArray[np.floating]:
    """(..., B, M) the same utilities, but minus infinity for models that are no candidates."""
    if np.count_nonzero(candidates) == candidates.size:
        return utility
    return np.where(candidates, utility, -_INFINITE)


def _silent(ballots: Ballots) -> int:
    """How many strategies, from the first on, vote on nothing: those that learn come first, and are silent at first."""
    votes: list[list[bool]] = ballots.voting.tolist()
    return next((place for place, voted in enumerate(votes) if any(voted)), 0)


def _votes(ballots: Ballots) -> IntArray:
    """(B, M) how many voting strategies put each model first."""
    models = np.arange(ballots.candidates.shape[1])
    named = (ballots.first[:, :, None] == models) & ballots.voting[:, :, None]
    return np.asarray(np.add.reduce(named, axis=0))


def _move_to_front(order: IntArray, column: IntArray) -> IntArray:
    """Move one column of each row to the front and keep the order of the others."""
    behind = order != column[:, None]
    if not np.count_nonzero(behind[:, 0]):
        return order
    keyed = np.where(behind, np.arange(1, order.shape[1] + 1), 0)
    return order[np.arange(len(order))[:, None], keyed.argsort(axis=1, kind="stable")]
