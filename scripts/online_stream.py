"""A stream of tasks with known outcomes, sent through the engine one by one; it learns from each answer alone.

The engine is the one of the web process: the manager with all its strategies, and the follower of outcomes with all its
learners. Only the store is a list in memory, and outcomes are read in fours, as a process does that looks now and then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.models import TASK_TYPES, ExecuteRequest, FeedbackRequest, Preferences, QuantumOptions, RouteRequest
from monkey_coder.ports import TextEmbedder
from monkey_coder.quantum.budget_pacing import BudgetPacer
from monkey_coder.quantum.capability_profiler import Profiles
from monkey_coder.quantum.exploration import decayed, explore
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.learners import Learners
from monkey_coder.quantum.live_learning import JoinedOutcome, LiveLearner
from monkey_coder.quantum.model_evidence import OnlineOptions
from monkey_coder.quantum.outcome_record import OutcomeRecord, Reporter, outcome_row
from monkey_coder.quantum.outlook import Forecast, Outlook
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.selection_learning import OutcomeFollower
from monkey_coder.quantum.snapshot import DEFAULT_EPSILON, EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager
from monkey_coder.storage.port import OutcomeRow, Store, StreamedOutcome

UNLIMITED = 2**40
READ_AT_ONCE = 4
"""Outcomes that wait until the follower looks."""


@dataclass(frozen=True, eq=False)
class Tasks:
    """N tasks and what each of M models makes of them.

    Attributes:
        prompts: N texts.
        refs: M models.
        scores: (N, M) 0..1.
        cost_usd: (N, M).
        input_usd: (M,) USD per input token.
        output_usd: (M,) USD per output token.
    """

    prompts: Sequence[str]
    refs: tuple[str, ...]
    scores: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    input_usd: NDArray[np.float64]
    output_usd: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """What came of T tasks in order: score, cost, and the column of the model chosen."""

    score: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    chosen: NDArray[np.int64]


class Stream:
    """As much of a store as the follower reads: outcomes in order, and nothing else."""

    def __init__(self) -> None:
        self._rows: list[OutcomeRow] = []

    def append_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        """Add reports."""
        self._rows += rows

    def read_outcomes(self, after: str, limit: int) -> list[StreamedOutcome]:
        """Up to `limit` reports after a position."""
        start = int(after.split("-")[0] or 0)
        rows = self._rows[start : start + limit]
        return [StreamedOutcome(str(start + place + 1), row) for place, row in enumerate(rows)]

    def decision_payloads(self, _: Sequence[str]) -> Mapping[str, bytes]:
        """No decision is read from here: the process remembers its own."""
        return {}

    def documents(self, _: str) -> Mapping[str, Any]:
        """Nobody set anything."""
        return {}


class Quick:
    """Gives the vectors of known texts again.

    Args:
        texts: Distinct.
        vectors: (N, D).
    """

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors
        self.dimensions = vectors.shape[1]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(len(texts), D)."""
        return np.asarray(self._vectors[[self._rows[text] for text in texts]])


def unknown_models(tasks: Tasks, success: float = 0.5, evidence: float = 1.0) -> ModelTable:
    """The models as a catalog that knows their prices, and next to nothing of what they can do."""
    count = len(tasks.refs)
    return ModelTable(
        refs=tasks.refs,
        input_usd=tasks.input_usd,
        output_usd=tasks.output_usd,
        request_usd=np.zeros(count),
        context_window=np.full(count, UNLIMITED, dtype=np.int64),
        max_output=np.full(count, UNLIMITED, dtype=np.int64),
        capabilities=np.ones((count, len(CAPABILITIES)), dtype=np.bool_),
        regions=(frozenset(),) * count,
        success=np.full((len(TASK_TYPES), count), success, dtype=np.float32),
        evidence=np.full((len(TASK_TYPES), count), evidence, dtype=np.float32),
        latency_s=np.zeros(count, dtype=np.float32),
        available=np.ones(count, dtype=np.bool_),
    )


class Deployment:
    """One web process in small.

    Args:
        manager: Decides.
        follower: Learns.
        stream: What it reads.
        live: The snapshot that both share.
    """

    def __init__(
        self, manager: QuantumRoutingManager, follower: OutcomeFollower, stream: Stream, live: LiveSnapshot
    ) -> None:
        self.manager, self.follower, self.stream, self.live = manager, follower, stream, live
        self._waiting = 0

    def decide(self, prompt: str, preferences: Preferences) -> Mapping[str, Any]:
        """Route one prompt."""
        options = QuantumOptions(timeout_ms=1000)
        (answer,) = self.manager.decide(
            [RouteRequest(request=ExecuteRequest(prompt=prompt), preferences=preferences, quantum_config=options)]
        )
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(self, answer: Mapping[str, Any], score: float, cost_usd: float) -> None:
        """Report what came of it, and learn from it soon."""
        report = FeedbackRequest(decision_id=answer["decision_id"], quality=score, cost_usd=cost_usd)
        self.stream.append_outcomes([outcome_row(report, Reporter("anonymous", time.time()))])
        self._waiting += 1
        if self._waiting == READ_AT_ONCE:
            self._waiting = 0
            self.follower.step()


@contextmanager
def deployment(
    table: ModelTable,
    embedder: TextEmbedder,
    seed: int,
    target_usd: float | None = None,
    options: OnlineOptions | None = None,
    *,
    follows: bool = True,
) -> Iterator[Deployment]:
    """Open one that knows nothing but its catalog.

    Args:
        table: The catalog.
        embedder: For prompts.
        seed: Of exploration.
        target_usd: USD a task.
        options: Of the online model.
        follows: Whether it learns request by request; else by profiles alone.
    """
    strategies = configured_strategies(None, None)
    live = LiveSnapshot(EngineSnapshot(table=table, strategies=strategies, max_alternatives=0))
    threads = ThreadManager(2 * len(strategies), time.monotonic)
    providers = ProviderManager(table.refs, time.time, np.random.default_rng(seed))
    monitor = PerformanceMonitor()
    pacer = None if target_usd is None else BudgetPacer(target_usd)
    learners = Learners(Profiles(), providers, monitor, LiveLearner(pacer, options) if follows else None)
    ids = SignedIds(b"of this run, and of nothing else", time.time, os.urandom)
    stream = Stream()
    follower = OutcomeFollower(cast("Store", stream), table, learners, live, ids.issued_at, time.time, time.monotonic)
    try:
        manager = QuantumRoutingManager(
            snapshot=live,
            embedder=embedder,
            threads=threads,
            ids=ids,
            heuristic=_no_heuristic,
            clock=time.monotonic,
            rng=np.random.default_rng(seed),
            listeners=(monitor, providers, follower.recent),
        )
        yield Deployment(manager, follower, stream, live)
    finally:
        threads.close()


def _no_heuristic(_: RouteRequest) -> Any:  # noqa: ANN401 - it never returns
    raise RuntimeError("the engine broke; its log says how")


def play(
    tasks: Tasks,
    order: NDArray[np.int64],
    process: Deployment,
    preferences: Preferences,
    changes: Mapping[int, Any] | None = None,
) -> Run:
    """Send tasks through a deployment.

    Args:
        tasks: With their outcomes.
        order: (T,) rows, in the order in which they come.
        process: Decides and learns.
        preferences: Of every request.
        changes: By place in the order: what is called with (tasks, process) beforehand, and returns the tasks to go on
            with.
    """
    score, cost = np.empty(len(order)), np.empty(len(order))
    chosen = np.empty(len(order), dtype=np.int64)
    column = {ref: place for place, ref in enumerate(tasks.refs)}
    for step, row in enumerate(order):
        if changes and step in changes:
            tasks = changes[step](tasks, process)
        answer = process.decide(tasks.prompts[row], preferences)
        chosen[step] = at = column[f"{answer['provider']}/{answer['model']}"]
        score[step], cost[step] = tasks.scores[row, at], tasks.cost_usd[row, at]
        process.report(answer, float(score[step]), float(cost[step]))
    return Run(score, cost, chosen)


def play_parts(
    tasks: Tasks,
    order: NDArray[np.int64],
    vectors: NDArray[np.float32],
    seed: int,
    target_usd: float,
    options: OnlineOptions | None = None,
    changes: Mapping[int, Tasks] | None = None,
    joins: tuple[int, int] | None = None,
) -> Run:
    """The same with the learning parts alone, without the other strategies: a tenth of the time.

    Args:
        tasks: With their outcomes.
        order: (T,) rows, in the order in which they come.
        vectors: (N, D) embeddings of all tasks.
        seed: Of exploration.
        target_usd: USD a task.
        options: Of the online model.
        changes: By place in the order: the outcomes from then on.
        joins: A column, and the place in the order before which that model cannot be had.
    """
    table = unknown_models(tasks)
    snapshot, rng = EngineSnapshot(table, {}), np.random.default_rng(seed)
    requests = [RouteRequest(request=ExecuteRequest(prompt=prompt)) for prompt in tasks.prompts]
    prepared = prepare(requests, snapshot, Quick(tasks.prompts, vectors))
    batch, gated, dimensions = prepared.batch, prepared.gated, vectors.shape[1]
    learner = LiveLearner(BudgetPacer(target_usd), options)
    learned = learner.learned(table)
    score, cost = np.empty(len(order)), np.empty(len(order))
    chosen = np.empty(len(order), dtype=np.int64)
    for step, row in enumerate(order):
        one, task = slice(row, row + 1), batch.task[row : row + 1]
        tasks = (changes or {}).get(step, tasks)
        candidates = batch.candidates[one].copy()
        if joins is not None and step < joins[1]:
            candidates[:, joins[0]] = False
        success, usd, optimism = batch.success[one], batch.cost_usd[one], None
        if learned.estimate is not None:
            success, usd = learned.estimate.expect(batch.state[one], task, gated.cost_usd[one])
            optimism = learned.estimate.optimism
        weight = 0.0 if learned.pace is None else learned.pace.cost_weight
        utility = (success - weight * usd).astype(np.float32)
        name = TASK_TYPES[int(task[0])]
        epsilon = np.array([decayed(DEFAULT_EPSILON, learned.experience.get(name, 0.0))], np.float32)
        winner = np.where(candidates, utility, -np.inf).argmax(axis=1)
        served = explore(winner, utility, candidates, epsilon, rng, optimism)
        chosen[step] = at = int(served.column[0])
        score[step], cost[step] = tasks.scores[row, at], tasks.cost_usd[row, at]
        forecast = Forecast(table.refs, success[0], usd[0], batch.candidates[row], opens=True)
        tokens = int(gated.input_tokens[row]), int(gated.output_tokens[row])
        outlook = Outlook(batch.state[row], dimensions, *tokens, forecast=partial(_given, forecast))
        record = OutcomeRecord("anonymous", 0.0, quality=float(score[step]), cost_usd=float(cost[step]))
        learner.learn([JoinedOutcome(str(step), table.refs[at], record, name, outlook, further=False)], table)
        if step % READ_AT_ONCE == READ_AT_ONCE - 1:
            learned = learner.learned(table)
    return Run(score, cost, chosen)


def _given(forecast: Forecast) -> Forecast:
    return forecast


def failing(column: int, factor: float, tasks: Tasks) -> Tasks:
    """The same tasks with one model's scores multiplied."""
    scores = tasks.scores.copy()
    scores[:, column] *= factor
    return replace(tasks, scores=scores)
