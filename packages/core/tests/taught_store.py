"""Stores with real decisions of the engine and their outcomes, for tests of what learns from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from monkey_coder.bootstrap import Core, open_core
from monkey_coder.models import TASK_TYPES, ExecuteRequest, FeedbackRequest, QuantumOptions, RouteRequest
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.settings import Settings
from monkey_coder.storage.port import DecisionRow, Store

WORDS = ("parser", "shader", "queue", "cache", "lexer", "socket", "index", "cursor")


@dataclass
class Teacher:
    """Asks an engine, tries what it says in a made-up world where every second model is good, and reports."""

    core: Core
    store: Store
    seed: int = 0
    asked: int = 0
    reported: list[str] = field(default_factory=list)

    def decide(self, count: int) -> list[dict]:
        """Have so many different tasks decided and logged."""
        models = self.core.live().table.refs[:4]
        requests = []
        for _ in range(count):
            self.asked += 1
            prompt = f"Write a {WORDS[self.asked % len(WORDS)]} that handles case {self.asked} of {self.seed}"
            requests.append(
                RouteRequest(
                    request=ExecuteRequest(prompt=prompt, task_type="code_generation", allowed_models=models),
                    quantum_config=QuantumOptions(cache="bypass", timeout_ms=1000),
                )
            )
        answers = []
        for start in range(0, count, 100):
            answers += self.core.manager.decide(requests[start : start + 100])
        return answers

    def report(self, answers: Sequence[dict], now: float, chance: float | None = None) -> None:
        """Report how each decided model did: by a chance of its own, or by this one."""
        rows = []
        for answer in answers:
            ref = f"{answer['provider']}/{answer['model']}"
            rng = np.random.default_rng([self.seed, len(self.reported)])
            own = 0.9 if self.core.live().table.index[ref] % 2 else 0.2
            said = FeedbackRequest(
                decision_id=answer["decision_id"],
                success=bool(rng.random() < (own if chance is None else chance)),
                cost_usd=0.001,
                latency_ms=900.0,
            )
            rows.append(outcome_row(said, Reporter("tester", now)))
            self.reported.append(answer["decision_id"])
        self.store.append_outcomes(rows)


@contextmanager
def teaching(state_dir: Path, store: Store, seed: int = 0, epsilon: float = 0.6) -> Iterator[Teacher]:
    """An engine that explores much and logs to a store."""

    def put(make: Callable[[], DecisionRow]) -> None:
        store.append_decisions([make()])

    with open_core(Settings(state_dir=state_dir), [DecisionLog(put, time.time)], store) as core:
        core.live.update(lambda now: replace(now, epsilon=MappingProxyType(dict.fromkeys(TASK_TYPES, epsilon))))
        yield Teacher(core, store, seed)
