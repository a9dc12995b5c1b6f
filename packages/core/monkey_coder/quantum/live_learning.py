"""What a web process learns from each outcome beside the profiles: the online model, and the pace of spending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TaskType
from monkey_coder.quantum.budget_pacing import BudgetPacer, Pace, Prospect
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.model_evidence import OnlineOptions
from monkey_coder.quantum.online_model import Lesson
from monkey_coder.quantum.outcome_record import OutcomeRecord
from monkey_coder.quantum.outlook import Forecast, Outlook
from monkey_coder.quantum.state_encoder import TASK_INDEX, given_to_rejected
from monkey_coder.quantum.voices import Estimate, Voices

_EXPERIENCE_FADE: Final = 0.9999
"""Factor on the experience of a task type with each of its outcomes."""


@dataclass(slots=True, eq=False)  # not frozen, which would make it slow to build: there are thousands a second
class JoinedOutcome:
    """One outcome with what must be known of its decision; not to be changed.

    Attributes:
        identity: What tells outcomes apart.
        model: Ref of the model that answered.
        record: What became of it.
        task: Type of the task.
        outlook: What was foreseen; None where nothing was.
        further: Whether it corrects an earlier one: then it is not paid for again.
    """

    identity: str
    model: str
    record: OutcomeRecord
    task: TaskType
    outlook: Outlook | None
    further: bool


@dataclass(frozen=True, eq=False)
class Learned:
    """What the next decisions shall rest on.

    Attributes:
        estimate: Of the online model; None before the first outcome.
        pace: Of spending; None without a target.
        experience: Outcomes of each task type that have not faded.
    """

    estimate: Estimate | None
    pace: Pace | None
    experience: Mapping[TaskType, float]


class LiveLearner:
    """Hands outcomes to the online model and the pacer. For one thread at a time.

    Args:
        pacer: Keeps spend at its target; None: there is no target.
        options: Of the online model.
    """

    def __init__(self, pacer: BudgetPacer | None = None, options: OnlineOptions | None = None) -> None:
        self._pacer = pacer
        self._options = options
        self._model: Voices | None = None
        self._known: Estimate | None = None
        self._experience: dict[TaskType, float] = {}

    def learn(self, outcomes: Sequence[JoinedOutcome], base: ModelTable) -> None:
        """Learn from outcomes, in order.

        Args:
            outcomes: Those without an outlook are passed over.
            base: The models with the priors of the catalog; outcomes of others are passed over.
        """
        known = [
            (outcome, outcome.outlook)
            for outcome in outcomes
            if outcome.outlook is not None and outcome.model in base.index
        ]
        if not known:
            return
        if self._model is None:
            self._model = Voices(ContextMap.of(known[0][1].dimensions), self._options)
        contexts = self._model.contexts
        known = [pair for pair in known if pair[1].dimensions == contexts.layout.dimensions]
        if not known:
            return
        rows = np.array([TASK_INDEX[outcome.task] for outcome, _ in known])
        columns = np.array([base.index[outcome.model] for outcome, _ in known])
        tokens = np.array([(outlook.input_tokens, outlook.output_tokens) for _, outlook in known])
        foreseen = base.request_usd[columns] + (
            tokens[:, 0] * base.input_usd[columns] + tokens[:, 1] * base.output_usd[columns]
        )
        states = np.array([outlook.state for _, outlook in known])
        figures = zip(
            known,
            contexts.read(states),
            base.success[rows, columns].tolist(),
            base.evidence[rows, columns].tolist(),
            foreseen.tolist(),
            given_to_rejected(states, contexts.layout).tolist(),
            strict=True,
        )
        lessons: list[tuple[str, Lesson]] = []
        for (outcome, outlook), context, prior, worth, foreseen_usd, given in figures:
            record = outcome.record
            score, cost_usd = record.score, None if record.error_type is not None else record.cost_usd
            if score is not None and not outcome.further:
                self._experience[outcome.task] = _EXPERIENCE_FADE * self._experience.get(outcome.task, 0.0) + 1.0
            lesson = Lesson(
                outcome.model,
                context,
                prior,
                worth,
                score,
                cost_usd,
                foreseen_usd,
                record.reporter,
                outcome.further,
                given,
            )
            lessons.append((outcome.identity, lesson))
            if self._pacer is not None and not outcome.further:
                self._pace(self._pacer, outcome.model, record, outlook.forecast(), foreseen_usd)
        self._model.learn_all(lessons)

    def _pace(
        self, pacer: BudgetPacer, model: str, record: OutcomeRecord, forecast: Forecast, foreseen_usd: float
    ) -> None:
        paid = record.cost_usd
        if paid is None:
            answered = record.error_type is None
            expected = forecast.cost_usd[forecast.refs.index(model)] if model in forecast.refs else foreseen_usd
            paid = float(expected) if answered else 0.0
        optimism = np.zeros(len(forecast.refs), np.float32)
        if self._known is not None and self._known.refs == forecast.refs:
            optimism = self._known.optimism
        prospect = Prospect(forecast.value, optimism, forecast.cost_usd, forecast.candidates)
        pacer.observe(prospect, paid, opens=forecast.opens)

    def learned(self, base: ModelTable) -> Learned:
        """What is known now, for the models of a table with the priors of the catalog."""
        pace = None if self._pacer is None else self._pacer.pace()
        if self._model is None:
            return Learned(None, pace, MappingProxyType({}))
        self._known = self._model.estimate(base)
        estimate = self._known
        if pace is not None and estimate is not None and pace.optimism != 1.0:
            estimate = estimate.with_optimism(pace.optimism)
        return Learned(estimate, pace, MappingProxyType(self._experience.copy()))
