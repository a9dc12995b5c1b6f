"""Requests and models as float32 vectors (T2.1.5): versioned, deterministic, and built for whole batches.

Layout of the state vector, version 2 (`StateLayout` names the slices):

    embedding      static embedding of the prompt, unit length
    marks          text marks of the prompt, as they come from `text_marks`; readers standardise them
    task           one-hot of the ten task types
    context        one-hot of the nine context types
    complexity     0..1
    tokens         log10(1 + tokens) / 6 of prompt and of expected answer
    attempts       rejected / 4, accepted, mean and best prior success among the rejected, log10(1 + 1000 USD spent) / 6
    preferences    asinh of the cost weight times the dearest candidate's cost, likewise latency, quality floor

and of the model features:

    price          log10 USD per million tokens, in and out, + 2, / 5; USD per call likewise
    limits         log10 tokens / 7 of context window and of answer
    capabilities   tools, vision, json_mode, reasoning
    success        prior P(success) for each of the ten task types, and its evidence as log10(1 + n) / 4
    live           log10(1 + latency in s) / 2, available
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.lean_values import lean
from monkey_coder.models import CONTEXT_TYPES, TASK_TYPES, TaskAnalysis
from monkey_coder.ports import REJECTED, FloatArray, IntArray
from monkey_coder.quantum.text_marks import MARKS

ENCODING_VERSION: Final = 2
"""Raised whenever the meaning of any entry changes: policies and cached entries of another version are not used."""

TASK_INDEX: Final = {name: index for index, name in enumerate(TASK_TYPES)}
CONTEXT_INDEX: Final = {name: index for index, name in enumerate(CONTEXT_TYPES)}

_TASKS = np.eye(len(TASK_TYPES), dtype=np.float32)
_CONTEXTS = np.eye(len(CONTEXT_TYPES), dtype=np.float32)

_ONE: Final = np.array(1.0, dtype=np.float32)  # as arrays: a plain number takes twice the time
_SIX: Final = np.array(6.0, dtype=np.float32)

_TASK: Final = MARKS
_CONTEXT: Final = _TASK + len(TASK_TYPES)
_COMPLEXITY: Final = _CONTEXT + len(CONTEXT_TYPES)
_TOKENS: Final = _COMPLEXITY + 1
_ATTEMPTS: Final = _TOKENS + 2
_PREFERENCES: Final = _ATTEMPTS + 5
_SIZE: Final = _PREFERENCES + 3


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Where each part of the state vector begins, for an embedding of `dimensions`; parts follow without gaps."""

    dimensions: int

    @property
    def marks(self) -> int:
        """Text marks, `MARKS` entries."""
        return self.dimensions

    @property
    def task(self) -> int:
        """One-hot task type."""
        return self.dimensions + _TASK

    @property
    def context(self) -> int:
        """One-hot context type."""
        return self.dimensions + _CONTEXT

    @property
    def complexity(self) -> int:
        """Complexity score, 1 entry."""
        return self.dimensions + _COMPLEXITY

    @property
    def tokens(self) -> int:
        """Input and output tokens, 2 entries."""
        return self.dimensions + _TOKENS

    @property
    def attempts(self) -> int:
        """Summary of the attempts so far, 5 entries."""
        return self.dimensions + _ATTEMPTS

    @property
    def preferences(self) -> int:
        """Scaled cost weight, scaled latency weight and quality floor, 3 entries."""
        return self.dimensions + _PREFERENCES

    @property
    def size(self) -> int:
        """Length S of the state vector."""
        return self.dimensions + _SIZE


@lean
class RequestFacts:
    """What a batch of requests amounts to before it is encoded; B rows, M models.

    Attributes:
        embedding: (B, D) prompt embeddings.
        marks: (B, MARKS) text marks of the prompts.
        task: (B,) index of each task type.
        context: (B,) index of each context type.
        complexity: (B,) 0..1.
        tokens: (B, 2) tokens of prompt and files, and expected tokens of the answer.
        attempts: (B, M) UNTRIED, REJECTED, ACCEPTED or UNANSWERED.
        spent_usd: (B,) USD that earlier attempts cost.
        cost_weight: (B,) lambda in success per USD.
        latency_weight: (B,) mu in success per second.
        cost_ref: (B,) USD of the dearest candidate.
        latency_ref: (B,) seconds of the slowest candidate.
        quality_floor: (B,) 0..1.
    """

    embedding: FloatArray
    marks: FloatArray
    task: IntArray
    context: IntArray
    complexity: FloatArray
    tokens: IntArray
    attempts: NDArray[np.int8]
    spent_usd: NDArray[np.float64]
    cost_weight: FloatArray
    latency_weight: FloatArray
    cost_ref: NDArray[np.float64]
    latency_ref: NDArray[np.float64]
    quality_floor: FloatArray


def task_and_context(analyses: Sequence[TaskAnalysis]) -> tuple[IntArray, IntArray]:
    """(B,) index of each task type, and (B,) index of each context type."""
    pairs = [(TASK_INDEX[analysis.task_type], CONTEXT_INDEX[analysis.context_type]) for analysis in analyses]
    indices = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return indices[:, 0], indices[:, 1]


def encode_states(facts: RequestFacts, table: ModelTable) -> FloatArray:
    """Encode a batch of requests.

    Args:
        facts: The batch.
        table: The models that `facts.attempts` speaks of.

    Returns:
        (B, S) float32, finite for every input.
    """
    layout = StateLayout(facts.embedding.shape[1])
    state = np.zeros((len(facts.task), layout.size), dtype=np.float32)
    state[:, : layout.marks] = facts.embedding
    state[:, layout.marks : layout.task] = facts.marks
    state[:, layout.task : layout.context] = _TASKS.take(facts.task, axis=0)
    state[:, layout.context : layout.complexity] = _CONTEXTS.take(facts.context, axis=0)
    state[:, layout.complexity] = facts.complexity
    state[:, layout.tokens : layout.attempts] = np.log10(_ONE + facts.tokens.astype(np.float32)) / _SIX
    if np.count_nonzero(facts.attempts):
        state[:, layout.attempts : layout.preferences] = encode_attempts(
            facts.attempts, facts.spent_usd, table.success[facts.task]
        )
    state[:, layout.preferences :] = encode_preferences(
        facts.cost_weight, facts.latency_weight, facts.cost_ref, facts.latency_ref, facts.quality_floor
    )
    return state


def encode_preferences(
    cost_weight: FloatArray,
    latency_weight: FloatArray,
    cost_ref: NDArray[np.float64],
    latency_ref: NDArray[np.float64],
    quality_floor: FloatArray,
) -> FloatArray:
    """Encode what callers want, the last part of the state; all arguments (B,), as in `RequestFacts`.

    Returns:
        (B, 3).
    """
    out = np.empty((len(quality_floor), 3), dtype=np.float32)
    out[:, 0] = np.arcsinh(cost_weight * cost_ref)
    out[:, 1] = np.arcsinh(latency_weight * latency_ref)
    out[:, 2] = quality_floor
    return out


def encode_attempts(attempts: NDArray[np.int8], spent_usd: NDArray[np.float64], success: FloatArray) -> FloatArray:
    """Encode how earlier attempts ended: how many were rejected, whether one was accepted, how good the rejected were.

    Args:
        attempts: (B, M) UNTRIED, REJECTED, ACCEPTED or UNANSWERED.
        spent_usd: (B,) USD that they cost.
        success: (B, M) prior P(success).

    Returns:
        (B, 5); see `spent_usd_of` for the last entry.
    """
    rejected = attempts == REJECTED
    count = rejected.sum(axis=1)
    of_rejected = np.where(rejected, success, 0.0)
    return np.stack(
        [
            count / 4.0,
            (attempts > 0).any(axis=1),
            of_rejected.sum(axis=1) / np.maximum(count, 1),
            of_rejected.max(axis=1, initial=0.0),
            np.log10(1.0 + 1000.0 * spent_usd) / 6.0,
        ],
        axis=1,
        dtype=np.float32,
    )


def spent_usd_of(state: FloatArray, dimensions: int) -> float:
    """USD that the attempts before a state (S,) cost, as it was encoded with an embedding of `dimensions`."""
    return float(10.0 ** (6.0 * float(state[StateLayout(dimensions).preferences - 1])) - 1.0) / 1000.0


def given_to_rejected(state: FloatArray, layout: StateLayout) -> FloatArray:
    """(B,) sum of the prior P(success) of the models whose attempts were rejected, of encoded requests (B, S)."""
    first = layout.attempts
    return np.asarray(4.0 * state[:, first] * state[:, first + 2])


def encode_models(table: ModelTable) -> FloatArray:
    """Encode the models of a table.

    Args:
        table: The models.

    Returns:
        (M, F) float32; a model needs no outcome to be encoded.
    """

    def price(usd: NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.log10(np.maximum(usd, 1e-10) * 1e6) + 2.0) / 5.0

    parts = [
        price(table.input_usd)[:, None],
        price(table.output_usd)[:, None],
        price(table.request_usd)[:, None],
        np.log10(1.0 + table.context_window)[:, None] / 7.0,
        np.log10(1.0 + table.max_output)[:, None] / 7.0,
        table.capabilities,
        table.success.T,
        np.log10(1.0 + table.evidence.T) / 4.0,
        np.log10(1.0 + table.latency_s)[:, None] / 2.0,
        table.available[:, None],
    ]
    return np.concatenate(parts, axis=1, dtype=np.float32)


MODEL_FEATURES: Final = 3 + 2 + len(CAPABILITIES) + 2 * len(TASK_TYPES) + 2
"""Length F of a model's feature vector."""
