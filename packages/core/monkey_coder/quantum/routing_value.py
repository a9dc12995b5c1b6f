"""What the value network reads of a belief: the one place where training and serving turn a lookahead into Q-values.

``Q = lookahead value + gain * learned``. What follows a rejection is all that there is to learn, since the rest of the
lookahead is exact: the gain is the probability of that rejection, and 0 where at most one attempt would follow it,
for then the lookahead has looked at everything there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.particles import PAIR_FEATURES, STATE_FEATURES, LookAhead
from monkey_coder.quantum.policy import EncodedModels, Policy

PAIRS: Final = PAIR_FEATURES + STATE_FEATURES
"""Length of the pair features that the network reads: those of the pair, then those of the state."""

EXACT_UP_TO: Final = 2
"""Attempts left for which one-step lookahead is exact under the belief."""

_LOW, _HIGH = "lowest_features", "highest_features"


def adds(attempts_left: IntArray) -> bool:
    """Whether the network can add anything to the lookahead of any of these requests (B,)."""
    return bool((attempts_left > EXACT_UP_TO).any())


def observation(look: LookAhead, open_models: BoolArray, attempts_left: IntArray) -> dict[str, NDArray[Any]]:
    """Put a lookahead into the arrays that `Policy.q_values` and the DQN agent take.

    Args:
        look: Of B requests and M models.
        open_models: (B, M) which models may be chosen.
        attempts_left: (B,) attempts that may still be made, the next one included.

    Returns:
        `state`, `candidates`, `pairs`, `base` and `gain`; and `stop`, the value of making no further attempt.
    """
    state = look.state_features
    beside = np.broadcast_to(state[:, None, :], (*open_models.shape, state.shape[1]))
    return {
        "state": state,
        "candidates": open_models,
        "pairs": np.concatenate([look.pair_features, beside], axis=2, dtype=np.float32),
        "base": look.value,
        "gain": np.where((attempts_left > EXACT_UP_TO)[:, None], look.rejection, np.float32(0.0)),
        "stop": look.stop,
    }


def feature_range(features: FloatArray) -> dict[str, list[float]]:
    """The range of each model feature (M, F) in training, as notes for the policy file."""
    return {_LOW: features.min(axis=0).tolist(), _HIGH: features.max(axis=0).tolist()}


def encode_models(policy: Policy, refs: Sequence[str], features: FloatArray) -> EncodedModels:
    """Compute the model side of a policy once for a catalog; features are cut to the range that training saw.

    Args:
        policy: The network.
        refs: M model refs.
        features: (M, F) encoded models.
    """
    notes = policy.header.notes
    if _LOW in notes:
        low, high = (np.array(notes[name], np.float32) for name in (_LOW, _HIGH))
        features = np.clip(features, low, high)
    return policy.encode_models(refs, features)
