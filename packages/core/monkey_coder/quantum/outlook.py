"""What was foreseen when a decision was made, for those who learn from its outcome; from this process or the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from monkey_coder.ports import UNTRIED, BoolArray, DecisionEvent, FloatArray
from monkey_coder.quantum.decision_record import DecisionRecord


@dataclass(frozen=True, eq=False, slots=True)
class Forecast:
    """What was expected of the models; M models.

    Attributes:
        refs: M model refs.
        value: (M,) utility as collapsed, in successes, without what the cost took off.
        cost_usd: (M,) expected cost of an attempt.
        candidates: (M,) which models passed every gate.
        opens: Whether it was the first attempt at its task.
    """

    refs: tuple[str, ...]
    value: FloatArray
    cost_usd: FloatArray
    candidates: BoolArray
    opens: bool

    @classmethod
    def of_event(cls, event: DecisionEvent) -> Self:
        """From a decision of this process that has an outlook."""
        batch, told, row = event.batch, event.deliberation, event.row
        if batch is None or told is None:
            raise ValueError("the heuristic and the cache foresee nothing; ask for an outlook first")
        return cls(
            refs=batch.table.refs,
            value=told.collapsed[row] + batch.cost_weight[row] * batch.cost_usd[row],
            cost_usd=batch.cost_usd[row],
            candidates=batch.candidates[row],
            opens=not (batch.attempts[row] != UNTRIED).any(),
        )

    @classmethod
    def of_record(cls, record: DecisionRecord) -> Self:
        """From a logged decision that has an outlook."""
        return cls(
            refs=record.refs,
            value=record.collapsed + np.float32(record.cost_weight) * record.cost_usd,
            cost_usd=record.cost_usd,
            candidates=record.candidates,
            opens=not record.attempts.any(),
        )


@dataclass(eq=False, slots=True)  # not frozen, which would make it slow to build: there are thousands a second
class Outlook:
    """A decision as it looked beforehand; not to be changed.

    Attributes:
        state: (S,) the encoded request.
        dimensions: Of the embedding in it.
        input_tokens: Of prompt and files.
        output_tokens: Expected of the answer.
        forecast: Makes what was expected of the models, which few ask for.
    """

    state: FloatArray
    dimensions: int
    input_tokens: int
    output_tokens: int
    forecast: Callable[[], Forecast]

    @classmethod
    def of_event(cls, event: DecisionEvent) -> Self | None:
        """From a decision of this process; None where the heuristic or the cache answered."""
        batch, told, row = event.batch, event.deliberation, event.row
        if batch is None or told is None:
            return None
        return cls(
            state=batch.state[row],
            dimensions=batch.embedding.shape[1],
            input_tokens=int(told.input_tokens[row]),
            output_tokens=int(told.output_tokens[row]),
            forecast=partial(Forecast.of_event, event),
        )
