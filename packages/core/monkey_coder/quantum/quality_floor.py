"""The quality floor: the cheapest candidate whose lower bound of P(success) reaches it stands first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monkey_coder.ports import BoolArray, IntArray, RouteBatch
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
    if not batch.has_floor:
        return ranking, np.array([-1] * len(batch), dtype=np.int64)
    reaches = acceptable(estimates, batch)
    # 2 > low + ... : any that reaches stands before any that does not, and among the former the cheaper first.
    cheap = 1.0 / (1.0 + batch.cost_usd)
    order = best_first(np.where(reaches, 2.0 + cheap, estimates.low), ballots)
    chosen = np.where((floor > 0)[:, None], order, ranking.order)
    agrees = (ranking.first == chosen[:, 0]) & ballots.voting
    reaching = np.where(floor > 0, reaches.sum(axis=1), -1)
    return replace(ranking, order=chosen, support=agrees.sum(axis=0)), reaching


def acceptable(estimates: Estimates, batch: RouteBatch) -> BoolArray:
    """(B, M) candidates whose lower bound reaches their request's floor; all of them where it has none."""
    if not batch.has_floor:
        return batch.candidates
    return np.asarray(batch.candidates & (estimates.low >= batch.quality_floor[:, None]))
