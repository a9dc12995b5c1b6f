"""Decisions to explain: made by a real manager, and kept as the log would keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builders import engine

from monkey_coder.models import RouteRequest
from monkey_coder.ports import DecisionEvent, RouteBatch, Scores
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.explanation import Explanation
from monkey_coder.quantum.replay import Replay
from monkey_coder.quantum.snapshot import EngineSnapshot

MADE_AT = 1_700_000_000.25


@dataclass
class Recorder:
    """A listener that keeps what it is told."""

    events: list[DecisionEvent] = field(default_factory=list)

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        self.events.extend(events)


def recorded(
    *strategies: Any, requests: Sequence[RouteRequest], **options: Any
) -> tuple[list[DecisionRecord], EngineSnapshot]:
    """Decide requests by an engine with the given strategies, and read back what the log would hold of them."""
    recorder = Recorder()
    with engine(*strategies, listeners=[recorder], **options) as manager:
        manager.decide(requests)
        snapshot = manager.snapshot()
    return records_of(recorder.events, MADE_AT), snapshot


def explained(request: RouteRequest, *strategies: Any, instead: str | None = None, **options: Any) -> Explanation:
    """Decide one request, and explain it by the same engine."""
    (record,), snapshot = recorded(*strategies, requests=[request], **options)
    return explain(record, Replay(record, snapshot), instead)


@dataclass(frozen=True)
class Moody:
    """A strategy that estimates chances, and whose utility follows the preferences in the state, not only the weights.

    Attributes:
        success: One per model.
        evidence: Outcomes behind them.
    """

    success: Sequence[float]
    evidence: float = 30.0
    confidence: float = 0.5
    name: str = "moody"

    def score(self, batch: RouteBatch) -> Scores:
        rows = len(batch)
        success = np.tile(np.array(self.success, dtype=np.float32), (rows, 1))
        wants = batch.state[:, -3:]  # scaled cost weight, scaled latency weight, floor
        price = batch.cost_usd / np.maximum(batch.cost_usd.max(axis=1, keepdims=True), 1e-12)
        utility = success - np.tanh(wants[:, :1]) * price - 0.1 * np.tanh(wants[:, 1:2]) * batch.latency_s
        return Scores(
            utility=(utility + 0.2 * wants[:, 2:] * success).astype(np.float32),
            confidence=np.full(rows, self.confidence, dtype=np.float32),
            abstains=np.zeros(rows, dtype=np.bool_),
            success=success,
            evidence=np.full_like(success, self.evidence),
        )
