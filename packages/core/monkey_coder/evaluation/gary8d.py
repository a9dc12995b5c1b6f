"""The heuristic router as a competitor: told the training means as capabilities, it follows its own fallback order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monkey_coder.core.complexity import analyse
from monkey_coder.core.ranking import heuristic_ranking, required_shares
from monkey_coder.evaluation.protocol import EpisodeState, PerTasks, Tasks, TrainingView
from monkey_coder.models import TASK_TYPES, ExecuteRequest, TaskAnalysis


@dataclass
class Gary8D:
    """The rules of `monkey_coder.core.ranking` on training means; every model counts as its own provider."""

    name: str = "gary8d"
    seeded: ClassVar[bool] = False
    _read: PerTasks[tuple[TaskAnalysis, ...]] = field(default_factory=PerTasks, repr=False)
    _ranked: PerTasks[NDArray[np.int64]] = field(default_factory=PerTasks, repr=False)

    def fit(self, train: TrainingView) -> None:  # noqa: ARG002 - it has rules, and learns nothing beyond the means
        """Forget the rankings made with other means."""
        self._ranked = PerTasks()

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Take the next place of its ranking."""
        order = self._ranked.get(state.tasks, cost_weight, lambda: self._rank(state, cost_weight))
        return order[state.open, state.tried.shape[1]].astype(np.intp)

    def preference(self, tasks: Tasks, strong: int, weak: int) -> NDArray[np.float64]:  # noqa: ARG002 - any two models
        """How complex the prompt looks."""
        return np.array([each.complexity for each in self._analyses(tasks)])

    def _analyses(self, tasks: Tasks) -> tuple[TaskAnalysis, ...]:
        return self._read.get(tasks, "analyses", lambda: _analyse_all(tasks))

    def _rank(self, state: EpisodeState, cost_weight: float) -> NDArray[np.int64]:
        """(N, M) every task's ranking, for a caller who will make all the attempts if need be."""
        models, analyses = state.models, self._analyses(state.tasks)
        shape = (len(state.tasks), len(models))
        order, _ = heuristic_ranking(
            success=np.broadcast_to(models.prior, shape),
            cost_usd=np.broadcast_to(models.price, shape),
            utility=np.broadcast_to(models.utility(cost_weight), shape),
            candidates=np.ones(shape, dtype=np.bool_),
            complexity=np.array([each.complexity for each in analyses], dtype=np.float32),
            shares=required_shares(analyses),
            attempts=state.attempts,
        )
        return order


def _analyse_all(tasks: Tasks) -> tuple[TaskAnalysis, ...]:
    return tuple(
        analyse(ExecuteRequest(prompt=prompt, task_type=TASK_TYPES[kind]))
        for prompt, kind in zip(tasks.prompts, tasks.types, strict=True)
    )
