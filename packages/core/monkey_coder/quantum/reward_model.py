"""Rewards as a simple model expects them that has not seen the decisions it speaks of, for doubly robust estimates.

Each action's reward is what the logging engine expected of it, plus a ridge regression of how it missed on the main
directions of the prompts. Every fold of clusters is foretold by a model of the others (cross-fitting: Chernozhukov et
al. 2018), so no outcome corrects a model that has learned it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray, IntArray

FOLDS: Final = 5
DIRECTIONS: Final = 12
"""Principal directions of the prompts that are read."""

LEVEL_PENALTY: Final = 5.0
"""Outcomes that "missed as all actions do" is worth."""

SLOPE_PENALTY: Final = 30.0
"""Outcomes that "alike for all prompts" is worth."""

Floats = NDArray[np.float64]


def cross_fitted(
    embedding: FloatArray,
    expected: Floats,
    action: IntArray,
    reward: Floats,
    cluster: IntArray,
    rng: np.random.Generator,
) -> Floats:
    """Foretell the reward of every action of every decision.

    Args:
        embedding: (N, D) of the prompts.
        expected: (N, M) rewards that were expected when the decisions were made.
        action: (N,) what was done.
        reward: (N,) what came of it.
        cluster: (N,) decisions of one number are in one fold.
        rng: Draws the folds.

    Returns:
        (N, M), within the range of the rewards and expectations of the decisions' own actions.
    """
    numbers, kept = np.unique(cluster, return_inverse=True)
    fold = rng.permutation(np.arange(len(numbers)) % FOLDS)[kept]
    features = _directions(embedding)
    missed = reward - expected[np.arange(len(action)), action]
    foretold = expected.astype(np.float64).copy()
    for part in range(FOLDS):
        held = fold == part
        if held.any():
            foretold[held] += _fit(features[~held], action[~held], missed[~held], expected.shape[1], features[held])
    own = expected[np.arange(len(action)), action]
    return np.clip(foretold, min(reward.min(), own.min()), max(reward.max(), own.max()))


def _directions(embedding: FloatArray) -> Floats:
    """(N, 1 + d) a constant, and the prompts along their main directions, of variance 1 at most."""
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    variance, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    main = vectors[:, ::-1][:, :DIRECTIONS]
    scale = np.sqrt(np.maximum(variance[::-1][:DIRECTIONS], 1e-6))
    return np.concatenate([np.ones((len(centred), 1)), centred @ main / scale], axis=1)


def _fit(features: Floats, action: IntArray, missed: Floats, actions: int, asked: Floats) -> Floats:
    """(B, M) by how much each action misses on the asked rows, by ridge regressions on the others."""
    penalty = np.full(features.shape[1], SLOPE_PENALTY)
    penalty[0] = LEVEL_PENALTY
    common = missed.sum() / (len(missed) + LEVEL_PENALTY)
    found = np.full((len(asked), actions), common)
    for each in np.unique(action):
        rows = action == each
        x, y = features[rows], missed[rows] - common
        found[:, each] += asked @ np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y)
    return found
