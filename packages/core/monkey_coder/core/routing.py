"""Gary8D, the heuristic router: the baseline, the fallback, and the front door to the engine.

It asks of a model only what the task needs: from level and kind of the task follows the success that is
required, and the cheapest model that reaches it is chosen (`monkey_coder.core.ranking` holds the rules).
The engine, the gates, and the formulas of utility and interval are handed in: nothing here knows how they work.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from http import HTTPStatus
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.named_models import require_known_models
from monkey_coder.catalog.table import ModelTable
from monkey_coder.core.complexity import analyse, estimate_tokens, persona_for
from monkey_coder.core.ranking import heuristic_confidence, heuristic_ranking, required_shares
from monkey_coder.errors import AllUnavailableError, NoEligibleModelError, RouterError
from monkey_coder.models import (
    TASK_TYPES,
    Alternative,
    ComplexityReport,
    Degradation,
    Exclusion,
    ExecuteRequest,
    Expected,
    Preferences,
    RouteRequest,
    RoutingDecision,
    TaskAnalysis,
)
from monkey_coder.ports import BoolArray, Clock, FloatArray, IntArray, RoutingEngine

_log = logging.getLogger(__name__)


class GateReport(Protocol):
    """What the gates found for a batch; see `monkey_coder.quantum.gates.Gated`."""

    @property
    def candidates(self) -> BoolArray:
        """(B, M) whether a model passed every gate."""
        ...

    @property
    def cost_usd(self) -> NDArray[np.float64]:
        """(B, M) expected cost of one attempt."""
        ...

    def only_unavailable(self, row: int) -> bool:
        """Whether models would fit the request, but all of those are unavailable."""
        ...

    def exclusions(self, row: int, request: RouteRequest) -> tuple[Exclusion, ...]:
        """The exclusions of one request in words."""
        ...


class Gate(Protocol):
    """Holds every model against every hard rule; `monkey_coder.quantum.gates.apply_gates`."""

    def __call__(
        self,
        requests: Sequence[RouteRequest],
        table: ModelTable,
        input_tokens: IntArray,
        output_tokens: IntArray,
        rejected: BoolArray,
    ) -> GateReport:
        """Return the report for a batch; its arguments are described at `apply_gates`."""
        ...


class Worth(Protocol):
    """The formula of utility; `monkey_coder.quantum.reward.worth`."""

    def __call__(
        self,
        preferences: Sequence[Preferences],
        success: FloatArray,
        cost_usd: FloatArray,
        latency_s: FloatArray,
        candidates: BoolArray,
    ) -> FloatArray:
        """Return (B, M) utilities in successes, at each request's own preferences and candidates."""
        ...


class Interval(Protocol):
    """The 90% interval of a probability; `monkey_coder.quantum.interval.wilson`."""

    def __call__(self, success: FloatArray, evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper ends, in the shape of the arguments, with `success` between them."""
        ...


class AdvancedRouter:
    """Decides one request in process: by the engine when the flag is on, by the heuristic otherwise.

    Safe to share between threads: it holds no state but what it was handed.
    """

    def __init__(
        self,
        table: ModelTable | Callable[[], ModelTable],
        gate: Gate,
        worth: Worth,
        interval: Interval,
        engine: RoutingEngine | None = None,
        *,
        quantum_enabled: bool = False,
        executor: Executor | None = None,
        timeout_s: float = 0.25,
        clock: Clock = time.perf_counter,
        make_ids: Callable[[int], Sequence[str]] = lambda count: [secrets.token_urlsafe() for _ in range(count)],
        config_version: int = 1,
    ) -> None:
        """Wire the router.

        Args:
            table: The models, or what returns those of the moment.
            gate: The hard rules.
            worth: The formula of utility.
            interval: The formula of the interval of a success.
            engine: The quantum engine; needed when the flag is on.
            quantum_enabled: The feature flag: whether the engine decides.
            executor: Where the engine runs, so that it can be late; needed when the flag is on. Calls that came
                too late stay on their thread until they end.
            timeout_s: Seconds after which the engine is late.
            clock: Monotonic seconds.
            make_ids: Returns so many new decision ids.
            config_version: Reported in every decision.

        Raises:
            ValueError: The flag is on without engine or executor.
        """
        if quantum_enabled and (engine is None or executor is None):
            raise ValueError("quantum_enabled needs an engine and an executor to run it on; hand both in")
        self._models: Callable[[], ModelTable] = (lambda: table) if isinstance(table, ModelTable) else table
        self._gate = gate
        self._worth = worth
        self._interval = interval
        self._quantum = (engine, executor) if quantum_enabled and engine and executor else None
        self._timeout_s = timeout_s
        self._clock = clock
        self._make_ids = make_ids
        self._config_version = config_version

    def route_request(self, request: ExecuteRequest | RouteRequest) -> RoutingDecision:
        """Decide a request.

        Args:
            request: The task alone, or with preferences, episode and options.

        Returns:
            The engine's decision when the flag is on; the heuristic's when it is off, or, with `quantum` among
            `degraded`, when the engine failed or was late.

        Raises:
            RouterError: What the caller must know about: no eligible model, an unknown model, overload.
        """
        whole = request if isinstance(request, RouteRequest) else RouteRequest(request=request)
        if self._quantum is None:
            return self.heuristic(whole)
        started = self._clock()
        engine, executor = self._quantum
        pending = None
        try:
            pending = executor.submit(engine.route, whole)
            return pending.result(timeout=self._timeout_s)
        except Exception as error:  # whatever broke the engine or made it late, the heuristic can answer
            if isinstance(error, RouterError) and error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            _log.warning("the engine gave no answer within %g s; the heuristic decides", self._timeout_s, exc_info=True)
        if pending is not None:
            pending.cancel()
        return self._decide(whole, ("quantum",), started)

    def heuristic(self, request: RouteRequest) -> RoutingDecision:
        """Decide a request by the Gary8D rules alone.

        Raises:
            UnknownModelError: The request names a model that is not in the catalog.
            NoEligibleModelError: Every model is excluded.
            AllUnavailableError: Models would fit, but none of them is available.
        """
        return self._decide(request, (), self._clock())

    def _decide(self, request: RouteRequest, degraded: tuple[Degradation, ...], started: float) -> RoutingDecision:
        task, table = request.request, self._models()
        require_known_models(request, table)
        analysis = analyse(task)
        tokens_in, tokens_out = np.array([estimate_tokens(task, analysis)], dtype=np.int64).T
        tried, failures = _attempts(request, table)
        report = self._gate([request], table, tokens_in, tokens_out, tried[None, :])
        candidates = report.candidates
        excluded = report.exclusions(0, request)
        if not candidates.any():
            raise (AllUnavailableError if report.only_unavailable(0) else NoEligibleModelError)(excluded)

        column = TASK_TYPES.index(analysis.task_type)
        success, evidence = table.success[column][None, :], table.evidence[column][None, :]
        cost = report.cost_usd.astype(np.float32)
        utility = self._worth([request.preferences], success, cost, table.latency_s[None, :], candidates)
        low, high = self._interval(success, evidence)
        floor = request.preferences.quality_floor
        rejections = int(failures.sum())
        wanted = frozenset(task.preferred_providers)  # np.isin would make arrays as wide as the caller's longest name
        order, required = heuristic_ranking(
            success,
            cost,
            utility,
            candidates,
            np.array([analysis.complexity], dtype=np.float32),
            required_shares([analysis], [rejections]),
            rejected=failures[None, :],
            preferred=np.array([[name in wanted for name in table.providers]]) if wanted else None,
            floor=None if floor is None else low >= floor,
            providers=np.unique(table.providers, return_inverse=True)[1],
        )
        chosen, need = int(order[0, 0]), float(required[0])
        ranked = [
            Alternative(
                provider=table.providers[model],
                model=table.refs[model].partition("/")[2],
                score=float(utility[0, model]),
                expected=Expected(
                    success=float(success[0, model]),
                    success_low=float(low[0, model]),
                    success_high=float(high[0, model]),
                    cost_usd=float(report.cost_usd[0, model]),
                    latency_ms=1000.0 * float(table.latency_s[model]),
                ),
            )
            for model in order[0].tolist()
            if model >= 0
        ]
        (decision_id,) = self._make_ids(1)
        return RoutingDecision(
            decision_id=decision_id,
            episode_id=request.episode.episode_id or decision_id,
            provider=ranked[0].provider,
            model=ranked[0].model,
            persona=persona_for(task, analysis),
            confidence=heuristic_confidence(
                float(success[0, chosen]), float(evidence[0, chosen]), need, analysis.evidence
            ),
            expected=ranked[0].expected,
            strategy_used="gary8d",
            collapse_strategy="gary8d",
            collapse_reasoning=_reasoning(analysis, ranked, need, rejections, floor),
            explored=False,
            propensity=1.0,
            alternatives=tuple(ranked[1:]),
            excluded=excluded,
            thread_results=(),
            complexity=ComplexityReport(score=analysis.complexity, level=analysis.level),
            context_type=analysis.context_type,
            cache="bypass",
            policy_version=None,
            config_version=self._config_version,
            experiment=None,
            degraded=degraded,
            execution_time_ms=max(0.0, 1000.0 * (self._clock() - started)),
        )


def _attempts(request: RouteRequest, table: ModelTable) -> tuple[BoolArray, BoolArray]:
    """(M,) models tried without success, and those of them whose answer was at fault, not their availability."""
    tried, failed = np.zeros(len(table), np.bool_), np.zeros(len(table), np.bool_)
    for attempt in request.episode.attempts:
        if not attempt.success:
            tried[table.index[attempt.model]] = True
            failed[table.index[attempt.model]] |= attempt.error_type is None
    return tried, failed


def _reasoning(
    analysis: TaskAnalysis, ranked: Sequence[Alternative], need: float, rejections: int, floor: float | None
) -> str:
    first = ranked[0]
    parts = [f"A {analysis.level} {analysis.task_type} task (complexity {analysis.complexity:.2f})"]
    if rejections:
        parts.append(f", {rejections} failed attempt{'s' if rejections > 1 else ''} harder than it looked,")
    parts.append(
        f" needs P(success) {need:.2f}: of {len(ranked)} candidates, {first.provider}/{first.model}"
        f" ({first.expected.success:.2f}) is the cheapest that reaches it and is worth its price"
        f" of {first.expected.cost_usd:.6f} USD."
    )
    if floor is not None and first.expected.success_low < floor:
        parts.append(f" No candidate is sure to reach the quality floor of {floor:.2f}.")
    return "".join(parts)
