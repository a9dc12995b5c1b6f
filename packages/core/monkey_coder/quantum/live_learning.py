"""What a web process learns from each outcome beside the profiles: the online model, and the pace of spending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TaskType
from monkey_coder.quantum.budget_pacing import BudgetPacer, Pace, Prospect
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.online_model import Lesson, OnlineOptions
from monkey_coder.quantum.outcome_record import OutcomeRecord
from monkey_coder.quantum.outlook import Outlook
from monkey_coder.quantum.state_encoder import TASK_INDEX
from monkey_coder.quantum.voices import Estimate, Voices

_EXPERIENCE_FADE: Final = 0.9999
"""Factor on the experience of a task type with each of its outcomes."""


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

    def learn(
        self,
        identity: str,
        model: str,
        record: OutcomeRecord,
        task: TaskType,
        outlook: Outlook,
        base: ModelTable,
        *,
        further: bool,
    ) -> None:
        """Learn from one outcome.

        Args:
            identity: What tells outcomes apart.
            model: Ref of the model that answered.
            record: What became of it.
            task: Type of the task.
            outlook: What was foreseen.
            base: The models with the priors of the catalog; outcomes of others are passed over.
            further: Whether it corrects an earlier one: then it is not paid for again.
        """
        column = base.index.get(model)
        if column is None:
            return
        if self._model is None:
            self._model = Voices(ContextMap.of(outlook.dimensions), self._options)
        if outlook.dimensions != self._model.contexts.layout.dimensions:
            return
        row = TASK_INDEX[task]
        if record.score is not None and not further:
            self._experience[task] = _EXPERIENCE_FADE * self._experience.get(task, 0.0) + 1.0
        foreseen_usd = float(
            base.request_usd[column]
            + outlook.input_tokens * base.input_usd[column]
            + outlook.output_tokens * base.output_usd[column]
        )
        answered = record.error_type is None
        self._model.learn(
            identity,
            Lesson(
                ref=model,
                context=self._model.contexts.read(outlook.state[None])[0],
                prior=float(base.success[row, column]),
                worth=float(base.evidence[row, column]),
                score=record.score,
                cost_usd=record.cost_usd if answered else None,
                expected_usd=foreseen_usd,
                reporter=record.reporter,
            ),
        )
        if self._pacer is not None and not further:
            self._pace(self._pacer, model, record, outlook, foreseen_usd)

    def _pace(
        self, pacer: BudgetPacer, model: str, record: OutcomeRecord, outlook: Outlook, foreseen_usd: float
    ) -> None:
        paid = record.cost_usd
        if paid is None:
            answered = record.error_type is None
            expected = outlook.cost_usd[outlook.refs.index(model)] if model in outlook.refs else foreseen_usd
            paid = float(expected) if answered else 0.0
        optimism = np.zeros(len(outlook.refs), np.float32)
        if self._known is not None and self._known.refs == outlook.refs:
            optimism = self._known.optimism
        prospect = Prospect(outlook.value, optimism, outlook.cost_usd, outlook.candidates)
        pacer.observe(prospect, paid, opens=outlook.opens)

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
