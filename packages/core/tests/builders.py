"""Small values to test with: models, requests, batches, strategies that behave as told, and a clock to set."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import orjson
from servers import PATIENCE_S

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.models import TASK_TYPES, Expected, RouteRequest, RoutingDecision
from monkey_coder.ports import DecisionListener, FloatArray, RouteBatch, Scores, Strategy, TextEmbedder
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.thread_manager import ThreadManager

PATIENT = {"timeout_ms": 1000}  # as much as callers may ask for
SECRET = b"a secret for tests only, 32 bytes"[:32]


@dataclass(frozen=True)
class Model:
    """One column of a table, with defaults that pass every gate."""

    ref: str
    success: float | Mapping[str, float] = 0.5
    evidence: float = 50.0
    input_usd: float = 1e-6
    output_usd: float = 4e-6
    request_usd: float = 0.0
    context_window: int = 128_000
    max_output: int = 16_000
    can: frozenset[str] = frozenset(CAPABILITIES)
    regions: frozenset[str] = frozenset()
    latency_s: float = 2.0
    available: bool = True

    def chance(self, task: str) -> float:
        return self.success.get(task, 0.5) if isinstance(self.success, Mapping) else self.success


CHEAP = Model("tiny/cheap", success=0.4, input_usd=1e-7, output_usd=4e-7, latency_s=1.0)
MIDDLE = Model("mid/middle", success=0.6)
DEAR = Model("big/dear", success=0.9, input_usd=1e-5, output_usd=5e-5, latency_s=8.0)


def table(*models: Model) -> ModelTable:
    """The models as columns; three of different price and strength when none are given."""
    models = models or (CHEAP, MIDDLE, DEAR)
    return ModelTable(
        refs=tuple(m.ref for m in models),
        input_usd=np.array([m.input_usd for m in models]),
        output_usd=np.array([m.output_usd for m in models]),
        request_usd=np.array([m.request_usd for m in models]),
        context_window=np.array([m.context_window for m in models], dtype=np.int64),
        max_output=np.array([m.max_output for m in models], dtype=np.int64),
        capabilities=np.array([[name in m.can for name in CAPABILITIES] for m in models]),
        regions=tuple(m.regions for m in models),
        success=np.array([[m.chance(task) for m in models] for task in TASK_TYPES], dtype=np.float32),
        evidence=np.array([[m.evidence for m in models] for _ in TASK_TYPES], dtype=np.float32),
        latency_s=np.array([m.latency_s for m in models], dtype=np.float32),
        available=np.array([m.available for m in models]),
    )


def route_request(
    prompt: str = "Fix the failing test",
    *,
    preferences: Mapping[str, Any] | None = None,
    attempts: Sequence[Mapping[str, Any]] = (),
    episode_id: str | None = None,
    options: Mapping[str, Any] | None = None,
    **task: Any,
) -> RouteRequest:
    """A request; further keywords are fields of `request`, `options` those of `quantum_config`."""
    return RouteRequest.model_validate(
        {
            "request": {"prompt": prompt, **task},
            "preferences": preferences or {},
            "episode": {"attempts": list(attempts), "episode_id": episode_id},
            "quantum_config": options or {},
        },
        strict=False,
    )


def route_batch(
    success: Sequence[Sequence[float]],
    cost_usd: Sequence[Sequence[float]] | None = None,
    latency_s: Sequence[Sequence[float]] | None = None,
    *,
    candidates: Sequence[Sequence[bool]] | None = None,
    evidence: float = 20.0,
    complexity: float = 0.5,
    cost_weight: float = 0.0,
    latency_weight: float = 0.0,
    quality_floor: float = 0.0,
) -> RouteBatch:
    """A batch whose models have the given chances; all are candidates, free and instant unless said."""
    chances = np.array(success, dtype=np.float32)
    rows, columns = chances.shape
    models = table(*(Model(f"p{column}/m") for column in range(columns)))

    def whole(values: Any, otherwise: float) -> FloatArray:
        return np.full(chances.shape, otherwise, np.float32) if values is None else np.array(values, dtype=np.float32)

    def each(value: float) -> FloatArray:
        return np.full(rows, value, dtype=np.float32)

    return RouteBatch(
        table=models,
        state=np.zeros((rows, 1), dtype=np.float32),
        embedding=np.zeros((rows, 1), dtype=np.float32),
        model_features=encode_models(models),
        task=np.zeros(rows, dtype=np.int64),
        complexity=each(complexity),
        candidates=np.ones(chances.shape, dtype=np.bool_) if candidates is None else np.array(candidates),
        attempts=np.zeros(chances.shape, dtype=np.int8),
        attempts_left=np.ones(rows, dtype=np.int64),
        success=chances,
        evidence=np.full(chances.shape, evidence, dtype=np.float32),
        cost_usd=whole(cost_usd, 0.0),
        latency_s=whole(latency_s, 0.0),
        cost_weight=each(cost_weight),
        latency_weight=each(latency_weight),
        quality_floor=each(quality_floor),
    )


@dataclass(frozen=True)
class HashEmbedder:
    """A stand-in for the static embedder: quick, and a different unit vector for every text."""

    dimensions: int = 8

    def embed(self, texts: Sequence[str]) -> FloatArray:
        rows = [np.random.default_rng(crc32(text.encode())).normal(size=self.dimensions) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimensions)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class SetClock:
    """A clock that stands still until it is set."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Fixed:
    """A strategy with the same opinion about every request.

    Attributes:
        utility: One per model.
        success: One per model, or None.
        instant: Whether it answers before the time of the others begins to count, however busy the machine is.
    """

    name: str
    utility: Sequence[float]
    confidence: float = 0.8
    abstains: bool = False
    success: Sequence[float] | None = None
    evidence: float | None = None
    instant: bool = False

    def score(self, batch: RouteBatch) -> Scores:
        shape = (len(batch), len(batch.table))

        def each(values: float | Sequence[float]) -> FloatArray:
            return np.array(np.broadcast_to(np.asarray(values, dtype=np.float32), shape))

        return Scores(
            utility=each(self.utility),
            confidence=np.full(len(batch), self.confidence, dtype=np.float32),
            abstains=np.full(len(batch), self.abstains),
            success=None if self.success is None else each(self.success),
            evidence=None if self.evidence is None else each(self.evidence),
        )


@dataclass(frozen=True)
class Failing:
    """A strategy that raises."""

    name: str = "failing"
    error: Exception = field(default_factory=lambda: ValueError("no such luck"))
    instant: bool = False

    def score(self, batch: RouteBatch) -> Scores:
        raise self.error


@dataclass
class Held:
    """A strategy that works until it is let go: `entered` says that it got a worker, `release` lets it end."""

    name: str = "held"
    entered: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    then: Callable[[RouteBatch], Scores] | None = None
    calls: int = 0

    def score(self, batch: RouteBatch) -> Scores:
        self.calls += 1
        self.entered.set()
        try:
            assert self.release.wait(PATIENCE_S), "nobody let go of the strategy"
            return (self.then or Fixed(self.name, [0.5]).score)(batch)
        finally:
            self.left.set()


def heuristic_decision(models: ModelTable, column: int = 0) -> RoutingDecision:
    """What a heuristic that always takes the same model would answer."""
    provider, _, name = models.refs[column].partition("/")
    return RoutingDecision(
        decision_id="heuristic",
        episode_id="heuristic",
        provider=provider,
        model=name,
        persona="developer",
        confidence=0.5,
        expected=Expected(success=0.5, success_low=0.4, success_high=0.6, cost_usd=0.001, latency_ms=1000.0),
        strategy_used="gary8d",
        collapse_strategy="gary8d",
        collapse_reasoning="The heuristic always takes this one.",
        explored=False,
        propensity=1.0,
        alternatives=(),
        excluded=(),
        thread_results=(),
        complexity={"score": 0.5, "level": "moderate"},
        context_type="debugging",
        cache="bypass",
        policy_version=None,
        config_version=1,
        experiment=None,
        degraded=(),
        execution_time_ms=0.1,
    )


@contextmanager
def engine(
    *strategies: Strategy,
    models: ModelTable | None = None,
    epsilon: float | Mapping[str, float] = 0.0,
    heuristic: Callable[[RouteRequest], RoutingDecision] | None = None,
    embedder: TextEmbedder | None = None,
    listeners: Sequence[DecisionListener] = (),
    seed: int = 0,
    **snapshot: Any,
) -> Iterator[QuantumRoutingManager]:
    """A manager that asks the given strategies; the objective ones when none are given."""
    known = table() if models is None else models
    asked = strategies or objective_strategies()
    now = EngineSnapshot(
        table=known,
        strategies={strategy.name: strategy for strategy in asked},
        epsilon=epsilon if isinstance(epsilon, Mapping) else dict.fromkeys(TASK_TYPES, epsilon),
        **snapshot,
    )
    threads = ThreadManager(2 * len(asked), time.monotonic)
    try:
        yield QuantumRoutingManager(
            snapshot=lambda: now,
            embedder=embedder or HashEmbedder(),
            threads=threads,
            ids=SignedIds(SECRET, time.time, os.urandom),
            heuristic=heuristic or (lambda _: heuristic_decision(known)),
            clock=time.monotonic,
            rng=np.random.default_rng(seed),
            listeners=listeners,
        )
    finally:
        threads.close()


# Reading answers


def ask(prompt: str = "Fix the failing test", options: dict[str, Any] | None = None, **request: Any) -> RouteRequest:
    """A request with more time than callers may ask for, unless it says how much.

    A busy machine may leave a thread without a turn for seconds, and hardly any test is about that.
    """
    made = route_request(prompt, options=options, **request)
    if options and "timeout_ms" in options:
        return made
    patient = made.quantum_config.model_copy(update={"timeout_ms": int(1e3 * PATIENCE_S)})
    return made.model_copy(update={"quantum_config": patient})


def chosen(answer: Any) -> str:
    return f"{answer['provider']}/{answer['model']}"


def refs_of(decision: RoutingDecision) -> list[str]:
    alternatives = [f"{a.provider}/{a.model}" for a in decision.alternatives]
    return [decision.ref, *alternatives, *(e.model for e in decision.excluded)]


def in_contract(answer: Any) -> RoutingDecision:
    """Check that an answer is a decision, and stays one over JSON."""
    decision = RoutingDecision.model_validate(answer, strict=False)
    assert RoutingDecision.model_validate_json(orjson.dumps(answer), strict=False) == decision
    return decision
