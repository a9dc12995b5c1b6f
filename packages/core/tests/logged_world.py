"""The world of `colours` behind a running engine: decisions, outcomes of what was served, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from builders import ask, engine
from colours import CHANCES, COLOURS, MODELS, ColourEmbedder, quick
from deciding import MADE_AT, Recorder
from reporting import report

from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.log_training import LogOptions, LogTrainer
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_judge import JudgeOptions
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.storage.port import OutcomeRow, StreamedOutcome

WORTH = {"value_usd": 0.5}
"""A dear attempt costs 0.4 of a success, the others 0.04."""


def strategies_of(bundle: PolicyBundle | None) -> list[Any]:
    if bundle is None:
        return list(configured_strategies(None, None).values())
    policy = ServedPolicy.bind(bundle.parts, MODELS.refs, EngineSnapshot(MODELS, {}).model_features)
    return list(configured_strategies(policy, bundle.memory).values())


@dataclass
class Traffic:
    """Requests to an engine that explores, each answered by the served model and reported on.

    Attributes:
        seed: Of colours, exploration and outcomes.
        epsilon: Exploration.
        chances: P(success) of each model, by colour.
    """

    seed: int = 0
    epsilon: float = 0.3
    chances: dict[str, dict[str, float]] = field(default_factory=lambda: CHANCES)
    decided: dict[str, DecisionRecord] = field(default_factory=dict)
    told: int = 0

    def run(
        self, count: int, bundle: PolicyBundle | None = None, attempts: int = 1, version: int | None = None
    ) -> tuple[list[StreamedOutcome], float]:
        """Let so many callers come, each with up to so many attempts; the stream, and their mean utility."""
        began = self.told
        rng = np.random.default_rng([self.seed, began])
        recorder = Recorder()
        stream: list[StreamedOutcome] = []
        value = 0.0
        with engine(
            *strategies_of(bundle),
            models=MODELS,
            epsilon=self.epsilon,
            embedder=ColourEmbedder(),
            listeners=[recorder],
            seed=self.seed + self.told,
            policy_version=version,
        ) as manager:
            colours = rng.choice(COLOURS, count)
            prompts = [
                f"make it {colour}, number {10_000_000 + 10_000 * self.seed + self.told + i}"
                for i, colour in enumerate(colours)
            ]
            failed: dict[int, list[dict[str, Any]]] = {caller: [] for caller in range(count)}
            for _ in range(attempts):
                waiting = list(failed)
                for start in range(0, len(waiting), 64):
                    here = waiting[start : start + 64]
                    episodes = {"episode_id": None} if attempts == 1 else {}
                    asked = [
                        ask(
                            prompts[caller],
                            preferences=WORTH,
                            attempts=failed[caller],
                            **(episodes or {"episode_id": f"{self.seed} {began} {caller}"}),
                        )
                        for caller in here
                    ]
                    recorder.events.clear()
                    manager.decide(asked)
                    made = sorted(records_of(recorder.events, 0.0), key=lambda each: each.id)
                    by_id = {each.id: each for each in made}
                    for caller, event in zip(here, sorted(recorder.events, key=lambda each: each.row), strict=True):
                        row, record = self._answer(by_id[event.answer["decision_id"]], colours[caller], rng)
                        stream.append(row)
                        success = b'"success":true' in row.row.payload
                        cost = float(record.cost_usd[record.refs.index(record.served)])
                        value += float(success) - cost / WORTH["value_usd"]
                        if success:
                            del failed[caller]
                        else:
                            failed[caller] = [
                                *failed[caller],
                                {"model": record.served, "success": False, "cost_usd": cost},
                            ]
        return stream, value / count

    def _answer(
        self, record: DecisionRecord, colour: str, rng: np.random.Generator
    ) -> tuple[StreamedOutcome, DecisionRecord]:
        self.told += 1
        record = replace(record, made_at=MADE_AT + self.told)
        self.decided[record.id] = record
        success = bool(rng.random() < self.chances[colour][record.served])
        cost = float(record.cost_usd[record.refs.index(record.served)])
        row: OutcomeRow = report(record, at=0.5, success=success, cost_usd=cost)
        return StreamedOutcome(str(self.told), row), record


def trainer(attempts: int = 1, now_s: float = MADE_AT + 1e6, **judging: Any) -> LogTrainer:
    """One that trains in about two seconds; by its clock all episodes are over."""
    options = LogOptions(training=quick(attempts), judging=JudgeOptions(**judging), least_new=100)
    return LogTrainer(MODELS, options, 0, lambda: now_s)
