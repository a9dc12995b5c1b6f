"""The one place where the engine explores: after the collapse, with the probability of everything it could serve.

With probability epsilon another candidate takes the first place, drawn from the collapsed scores (a softmax
over utilities). Only candidates that passed every gate and the quality floor can be drawn, and only for
requests that allow it.

Where models are known unequally well, those with fewer outcomes may be given the benefit of the doubt (optimism in the
face of uncertainty: Lai & Robbins 1985; Auer et al. 2002): one whose optimistic utility is the highest takes the place
of the winner, if that won by its utility. Nothing about that is random, so propensities stay what they are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.lean_values import lean
from monkey_coder.ports import BoolArray, FloatArray, IntArray

TEMPERATURE: Final = 0.1
"""Utility difference at which one candidate is drawn e times as often as another."""

# As arrays: a plain number takes twice to three times the time of one.
_TEMPERATURE: Final = np.array(TEMPERATURE, dtype=np.float32)
_NEVER: Final = np.array(-np.inf, dtype=np.float32)
_ONE: Final = np.array(1.0, dtype=np.float32)

HALVED_BY: Final = 300.0
"""Outcomes in a task type by which epsilon is halved there."""

LEAST_SHARE: Final = 0.1
"""Part of epsilon that always stays: what changes unseen must be found out, and off-policy estimates need support."""


def decayed(epsilon: float, outcomes: float) -> float:
    """Epsilon after so many outcomes of a task type: it falls with their square root, to a tenth at the least."""
    return float(epsilon * max(LEAST_SHARE, (1.0 + 3.0 * outcomes / HALVED_BY) ** -0.5))


@lean
class Served:
    """What is served in each row, and how likely that was.

    Attributes:
        column: (B,) the model served.
        explored: (B,) whether it is not the collapsed winner.
        distribution: (B, M) probability with which each model would have been served; rows sum to 1.
    """

    column: IntArray
    explored: BoolArray
    distribution: FloatArray

    @property
    def propensity(self) -> FloatArray:
        """(B,) probability of what is served."""
        return self.distribution.ravel().take(_places(self.column, self.distribution.shape[1]))


def explore(
    winner: IntArray,
    utility: FloatArray,
    drawable: BoolArray,
    epsilon: FloatArray,
    rng: np.random.Generator,
    optimism: FloatArray | None = None,
) -> Served:
    """Serve the winner, or now and then another candidate.

    Args:
        winner: (B,) column of the collapsed decision.
        utility: (B, M) collapsed utilities.
        drawable: (B, M) candidates that may be served instead.
        epsilon: (B,) probability of exploring; 0 for requests that opted out.
        rng: Source of randomness; it is not used when every epsilon is 0.
        optimism: (M,) utility that each model is given beyond its own for want of outcomes; None: none. Requests that
            opted out of exploring opted out of this as well.

    Returns:
        The model served in each row with the whole distribution behind it.
    """
    if not any(epsilon.tolist()):
        distribution: FloatArray = np.zeros(utility.shape, dtype=np.float32)
        distribution.flat[_places(winner, utility.shape[1])] = 1.0
        return Served(winner, np.zeros(len(winner), dtype=np.bool_), distribution)
    decided = winner
    others = np.where(drawable, utility, _NEVER)
    if optimism is not None:
        winner = _hopeful(winner, utility, others, optimism, epsilon)
    winning = _places(winner, utility.shape[1])
    others.flat[winning] = _NEVER
    peak = np.maximum.reduce(others, axis=1, keepdims=True, initial=-1e30)
    share = np.exp((others - peak) / _TEMPERATURE)
    total = np.add.reduce(share, axis=1)  # at least 1 where there is another at all
    rate = epsilon * (total > 0)
    distribution = np.asarray(share * (rate / np.maximum(total, _ONE))[:, None], dtype=np.float32)
    distribution.flat[winning] = _ONE - rate
    draw = rng.random((2, len(winner)))
    (exploring,) = (draw[0] < rate).nonzero()
    if not len(exploring):
        return Served(winner, winner != decided, distribution)
    column = winner.copy()
    column[exploring] = _drawn(share[exploring], draw[1, exploring])
    return Served(column, column != decided, distribution)


def _places(column: IntArray, models: int) -> IntArray:
    """(B,) where the entries of one column (B,) of each row are in all rows of `models` entries, one after another."""
    return np.arange(0, len(column) * models, models) + column


def _drawn(share: FloatArray, draw: NDArray[np.float64]) -> IntArray:
    """(B,) the column that each draw (B,) falls on, by shares (B, M) of which at least one in a row is above 0."""
    bounds = share.cumsum(axis=1)
    drawn = (bounds < draw[:, None] * bounds[:, -1:]).sum(axis=1)
    # Rounding may carry the draw past the last candidate that has a share.
    last = share.shape[1] - 1 - np.argmax((share > 0)[:, ::-1], axis=1)
    return np.asarray(np.minimum(drawn, last))


def _hopeful(
    winner: IntArray, utility: FloatArray, drawable: FloatArray, optimism: FloatArray, epsilon: FloatArray
) -> IntArray:
    """(B,) the candidate of the highest optimistic utility, where the winner has the highest utility; else the winner.

    A winner that does not won for another reason, such as a quality floor. `drawable` holds the utilities of what may
    be drawn, and else minus infinity.
    """
    rows = np.arange(len(winner))
    own = utility[rows, winner]
    hoped = drawable + optimism
    hoped[rows, winner] = own + optimism[winner]
    best = hoped.argmax(axis=1)
    if not np.count_nonzero(best != winner):
        return winner
    better = (own >= drawable.max(axis=1)) & (hoped[rows, best] > hoped[rows, winner]) & (epsilon > 0)
    return np.where(better, best, winner)
