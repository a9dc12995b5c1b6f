"""The quality floor: the cheapest candidate whose lower bound of P(success) reaches it stands first."""

from __future__ import annotations

import numpy as np

from monkey_coder.ports import IntArray, RouteBatch
from monkey_coder.quantum.answers import Estimates
from monkey_coder.quantum.collapse_strategies import Ballots, Ranking, best_first


def apply_quality_floor(
    ranking: Ranking, ballots: Ballots, estimates: Estimates, batch: RouteBatch
) -> tuple[Ranking, IntArray]:
    """Where a request has a floor, put the cheapest candidate first whose lower bound reaches it.

    Candidates that do not reach it follow, the closest first.

    Args:
        ranking: From the collapse.
        ballots: For candidates and costs.
        estimates: For lower bounds.
        batch: For floors.

    Returns:
        The ranking, and (B,) how many candidates reach the floor; -1 where there is none.
    """
    floor = batch.quality_floor
    reaches = (estimates.low >= floor[:, None]) & batch.candidates
    reaching = np.where(floor > 0, reaches.sum(axis=1), -1)
    if not (floor > 0).any():
        return ranking, reaching
    # 2 > low + ... : any that reaches stands before any that does not, and among the former the cheaper first.
    cheap = 1.0 / (1.0 + batch.cost_usd)
    order = best_first(np.where(reaches, 2.0 + cheap, estimates.low), ballots)
    chosen = np.where((floor > 0)[:, None], order, ranking.order)
    agrees = (ranking.first == chosen[:, 0]) & ballots.voting
    return (
        Ranking(
            chosen,
            ranking.utility,
            ranking.confidence,
            ranking.decider,
            agrees.sum(axis=0),
            ranking.voters,
            ranking.first,
        ),
        reaching,
    )
