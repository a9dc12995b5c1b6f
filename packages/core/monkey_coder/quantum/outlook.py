"""What was foreseen when a decision was made, for those who learn from its outcome; from this process or the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from monkey_coder.ports import UNTRIED, BoolArray, DecisionEvent, FloatArray
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.state_encoder import ENCODING_VERSION


@dataclass(frozen=True, eq=False, slots=True)
class Outlook:
    """A decision as it looked beforehand; M models.

    Attributes:
        refs: M model refs.
        state: (S,) the encoded request.
        dimensions: Of the embedding in it.
        value: (M,) utility as collapsed, in successes, without what the cost took off.
        cost_usd: (M,) expected cost of an attempt.
        candidates: (M,) which models passed every gate.
        input_tokens: Of prompt and files.
        output_tokens: Expected of the answer.
        opens: Whether it was the first attempt at its task.
    """

    refs: tuple[str, ...]
    state: FloatArray
    dimensions: int
    value: FloatArray
    cost_usd: FloatArray
    candidates: BoolArray
    input_tokens: int
    output_tokens: int
    opens: bool

    @classmethod
    def of_event(cls, event: DecisionEvent) -> Self | None:
        """From a decision of this process; None where the heuristic or the cache answered."""
        batch, told, row = event.batch, event.deliberation, event.row
        if batch is None or told is None:
            return None
        return cls(
            refs=batch.table.refs,
            state=batch.state[row],
            dimensions=batch.embedding.shape[1],
            value=told.collapsed[row] + batch.cost_weight[row] * batch.cost_usd[row],
            cost_usd=batch.cost_usd[row],
            candidates=batch.candidates[row],
            input_tokens=int(told.input_tokens[row]),
            output_tokens=int(told.output_tokens[row]),
            opens=not (batch.attempts[row] != UNTRIED).any(),
        )

    @classmethod
    def of_record(cls, record: DecisionRecord) -> Self | None:
        """From a logged decision; None where its row has no state, or one of another version."""
        if not record.refs or record.encoding_version != ENCODING_VERSION:
            return None
        return cls(
            refs=record.refs,
            state=record.state,
            dimensions=record.dimensions,
            value=record.collapsed + np.float32(record.cost_weight) * record.cost_usd,
            cost_usd=record.cost_usd,
            candidates=record.candidates,
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            opens=not record.attempts.any(),
        )
