"""The learned routers' training, once per comparison, and the policy alone as a competitor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from os import urandom
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import RouterError
from monkey_coder.evaluation.engine import as_requests, as_table, snapshot_of
from monkey_coder.evaluation.protocol import (
    STOP,
    EpisodeState,
    Models,
    RouterContext,
    RouterFactory,
    Routers,
    Tasks,
    TrainingView,
)
from monkey_coder.models import COLLAPSE_NAMES, TASK_TYPES, CollapseName, RouteRequest, RoutingDecision
from monkey_coder.ports import TextEmbedder
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.outcome_memory import OutcomeMemory
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.reward import utility
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy, TrainedParts
from monkey_coder.quantum.thread_manager import ThreadManager
from monkey_coder.quantum.training_data import OutcomeData, outcomes_of_prompts

BATCH = 512


@dataclass(frozen=True, eq=False)
class Learned:
    """What training on a comparison's training rows left behind.

    Attributes:
        parts: The policy.
        memory: Outcomes by nearest neighbours.
        reliability: How far each strategy deserves trust.
    """

    parts: TrainedParts
    memory: OutcomeMemory
    reliability: Mapping[str, float]


Train = Callable[[OutcomeData, TrainingView], Learned]
"""Trains a policy; the command hands in the real pipeline, so that nothing here loads torch."""


@dataclass
class Trainer:
    """Trains once for each training view, however many routers ask.

    Attributes:
        embedder: For prompts.
        train: The pipeline.
    """

    embedder: TextEmbedder
    train: Train
    _view: TrainingView | None = field(default=None, repr=False)
    _learned: Learned | None = field(default=None, repr=False)

    def learned(self, view: TrainingView) -> Learned:
        """What was learned from these very rows."""
        if self._learned is None or self._view is not view:
            self._view, self._learned = view, self.train(outcome_data(view, self.embedder), view)
        return self._learned

    def ask(
        self, policy: ServedPolicy, state: EpisodeState, cost_weight: float, known: frozenset[str]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """What a policy would try next, (n,), and whether that is worth more than keeping the rejected answer, (n,).

        Where the task is of a kind that is not `known`, the training means decide. Where a prompt is merely far from
        the training prompts, the policy itself plans on the means.
        """
        snapshot = snapshot_of(state.models, {}, attempts=state.attempts)
        requests = as_requests(state, cost_weight)
        best = np.empty(len(requests), dtype=np.intp)
        worth_it = np.ones(len(requests), dtype=np.bool_)
        for start in range(0, len(requests), BATCH):
            here = slice(start, start + BATCH)
            batch = prepare(requests[here], snapshot, self.embedder).batch
            valued = policy.value(batch)
            abstains = np.array([state.tasks.names[task] not in known for task in state.open[here]], dtype=np.bool_)
            means = utility(batch.success, batch.cost_usd, batch.latency_s, batch.cost_weight, batch.latency_weight)
            q = np.where(batch.candidates, np.where(abstains[:, None], means, valued.q), -np.inf)
            best[here] = q.argmax(axis=1)
            if state.tried.shape[1]:
                worth_it[here] = q.max(axis=1) >= np.where(abstains, 0.0, valued.stop)
        return best, worth_it


def outcome_data(view: TrainingView, embedder: TextEmbedder) -> OutcomeData:
    """The training rows of a comparison as training reads them."""
    return outcomes_of_prompts(
        view.tasks.prompts,
        [TASK_TYPES[kind] for kind in view.tasks.types],
        view.tasks.names,
        view.scores,
        view.costs,
        as_table(view.models),
        embedder,
    )


@dataclass
class Dqn:
    """The learned policy alone; on kinds of tasks that it was not trained on it follows the training means.

    Attributes:
        trainer: Shared with the other learned routers.
    """

    trainer: Trainer
    name: str = "dqn"
    seeded: ClassVar[bool] = False
    _policy: ServedPolicy | None = field(default=None, repr=False)
    _known: frozenset[str] = frozenset()
    _models: Models | None = field(default=None, repr=False)

    def fit(self, train: TrainingView) -> None:
        """Train, or take what another router's fit on the same rows has trained."""
        self._known = frozenset(train.tasks.names)
        learned = self.trainer.learned(train)
        snapshot = snapshot_of(train.models, {}, attempts=train.attempts)
        self._policy = ServedPolicy.bind(learned.parts, snapshot.table.refs, snapshot.model_features)
        self._models = train.models

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Take the model of the highest Q, or stop where keeping the rejected answer is worth more."""
        if self._policy is None:
            raise RuntimeError("fit before you choose")
        best, worth_it = self.trainer.ask(self._policy, state, cost_weight, self._known)
        return np.where(worth_it, best, STOP)

    def preference(self, tasks: Tasks, strong: int, weak: int) -> NDArray[np.float64]:
        """P(success) of the strong model minus that of the weak one."""
        if self._policy is None or self._models is None:
            raise RuntimeError("fit before you ask")
        nothing = np.empty((len(tasks), 0))
        state = EpisodeState(
            tasks, self._models, np.arange(len(tasks)), nothing.astype(np.intp), nothing, attempts=1, seed=0
        )
        snapshot = snapshot_of(self._models, {}, attempts=1)
        batch = prepare(as_requests(state, 0.0), snapshot, self.trainer.embedder).batch
        success = self._policy.value(batch).success.astype(np.float64)
        return np.asarray(success[:, strong] - success[:, weak])


@dataclass
class Quantum:
    """The whole engine with its defaults: a caller's requests go through the same manager, gates and collapse.

    It stops after a rejection where the policy finds that no further attempt is worth its price.

    Attributes:
        trainer: Shared with the other learned routers.
        collapse: How opinions become a decision; the engine's default unless said.
    """

    trainer: Trainer
    collapse: CollapseName | None = None
    name: str = "quantum"
    seeded: ClassVar[bool] = False
    _manager: QuantumRoutingManager | None = field(default=None, repr=False)
    _policy: ServedPolicy | None = field(default=None, repr=False)
    _known: frozenset[str] = frozenset()

    def fit(self, train: TrainingView) -> None:
        """Build an engine around the training means and what was learned."""
        self._known = frozenset(train.tasks.names)
        learned = self.trainer.learned(train)
        plain = snapshot_of(train.models, {}, attempts=train.attempts)
        self._policy = ServedPolicy.bind(learned.parts, plain.table.refs, plain.model_features)
        strategies = configured_strategies(self._policy, learned.memory)
        snapshot = replace(plain, strategies=strategies, reliability=learned.reliability)
        if self.collapse is not None:
            snapshot = replace(snapshot, collapse=self.collapse)
        self._manager = QuantumRoutingManager(
            snapshot=lambda: snapshot,
            embedder=self.trainer.embedder,
            threads=ThreadManager(len(strategies), time.monotonic),
            ids=SignedIds(bytes(32), time.time, urandom),
            heuristic=_no_heuristic,
            clock=time.monotonic,
        )

    def choose(self, state: EpisodeState, cost_weight: float) -> NDArray[np.intp]:
        """Ask the engine about every open task."""
        if self._manager is None or self._policy is None:
            raise RuntimeError("fit before you choose")
        requests = as_requests(state, cost_weight, self._known)
        column = {name: place for place, name in enumerate(state.models.names)}
        chosen = np.empty(len(requests), dtype=np.intp)
        for start in range(0, len(requests), BATCH):
            for row, answer in enumerate(self._manager.decide(requests[start : start + BATCH]), start):
                if isinstance(answer, RouterError):
                    raise answer
                chosen[row] = column[answer["model"]]
        if state.tried.shape[1]:
            chosen[~self.trainer.ask(self._policy, state, cost_weight, self._known)[1]] = STOP
        return chosen


def learned_routers(train: Train) -> Routers:
    """The routers that learn a policy; they share one training for each set of training rows.

    Args:
        train: The pipeline.
    """
    trainers: list[Trainer] = []

    def shared(context: RouterContext) -> Trainer:
        if not trainers:
            trainers.append(Trainer(context.embedder(), train))
        return trainers[0]

    routers: dict[str, RouterFactory] = {
        "dqn": lambda context: Dqn(shared(context)),
        "quantum": lambda context: Quantum(shared(context)),
    }
    for collapse in COLLAPSE_NAMES:
        routers[f"quantum:{collapse}"] = partial(_with_collapse, shared, collapse)
    return routers


def _with_collapse(
    shared: Callable[[RouterContext], Trainer], collapse: CollapseName, context: RouterContext
) -> Quantum:
    return Quantum(shared(context), collapse, f"quantum:{collapse}")


def _no_heuristic(_: RouteRequest) -> RoutingDecision:
    raise RuntimeError("the engine failed in an evaluation, where nothing may stand in for it")
