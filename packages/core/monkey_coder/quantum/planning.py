"""Beam search for the best fixed order of attempts under a belief.

Whoever makes verified attempts learns only one thing from each: that it was rejected. A plan for the case that all are
rejected is therefore as good as deciding anew after each, so that the value of a state is the value of its best order
of models. The number of orders is large; the beam keeps the most valuable ones of each length.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from monkey_coder.ports import BoolArray, FloatArray, IntArray

BEAM: Final = 8
"""Orders of each length that are kept and made longer."""

_CLOSED: Final = np.float32(-1e9)


def best_orders(
    profile: FloatArray,
    weights: FloatArray,
    *,
    open_models: BoolArray,
    cost: FloatArray,
    attempts_left: IntArray,
    noise: float,
    passed_score: FloatArray,
    failed_score: FloatArray,
    beam: int = BEAM,
) -> FloatArray:
    """Value of the best order found that begins with each model.

    Args:
        profile: (B, N, M) P(pass) of each model in each particle.
        weights: (B, N) of the particles; rows sum to 1.
        open_models: (B, M) which models may be tried.
        cost: (B, M) price of one attempt in successes.
        attempts_left: (B,) most attempts of an order.
        noise: Probability that a verdict is wrong.
        passed_score: (M,) expected score of an answer that passes.
        failed_score: (M,) expected score of an answer that fails.
        beam: Orders of each length that are kept.

    Returns:
        (B, M) expected score of the answer kept at the end, less the price of all attempts made; very low where no
        order that begins with the model was kept.
    """
    count, models = open_models.shape
    rows = np.arange(count)[:, None]
    accepts = profile * np.float32(1.0 - 2.0 * noise) + np.float32(noise)
    score = failed_score + (passed_score - failed_score) * profile
    kept = profile * np.float32(1.0 - noise) * passed_score + (1.0 - profile) * np.float32(noise) * failed_score
    rejects = np.float32(1.0) - accepts
    closed = np.where(open_models, np.float32(0.0), _CLOSED)

    # An order is known by its first model, the models it has used, the weights of the worlds in which all of them
    # were rejected, and what it has earned up to there.
    alive = weights[:, None, :]
    earned = np.zeros((count, 1), np.float32)
    used = np.zeros((count, 1, models), np.bool_)
    first = np.full((count, 1), -1, np.int64)
    best = np.full((count, models), _CLOSED, np.float32)
    for depth in range(int(attempts_left.max(initial=1))):
        price = alive.sum(axis=2)[:, :, None] * cost[:, None]
        barred = np.where(used, _CLOSED, closed[:, None])
        ending = earned[:, :, None] + np.matmul(alive, score) - price + barred
        width = ending.shape[1]
        flat = ending.reshape(count, -1)
        size = min(beam, flat.shape[1])
        top = np.argpartition(-flat, size - 1, axis=1)[:, :size]
        parent, model = top // models, top % models
        begins = np.where(first[rows, parent] < 0, model, first[rows, parent])
        reaches = (depth < attempts_left)[:, None]
        if depth == 0:
            best = np.where(reaches, ending[:, 0], best)
        else:
            found = np.where(reaches, flat[rows, top], _CLOSED)
            for place in range(size):
                np.maximum.at(best, (rows[:, 0], begins[:, place]), found[:, place])
        going_on = earned[:, :, None] + np.matmul(alive, kept) - price + barred
        earned = going_on.reshape(count, -1)[rows, top]
        alive = alive[rows, parent] * rejects.transpose(0, 2, 1)[rows, model]
        used = used[rows, parent].copy() if width > 1 or depth else np.zeros((count, size, models), np.bool_)
        np.put_along_axis(used, model[:, :, None], True, axis=2)
        first = begins
    return best
