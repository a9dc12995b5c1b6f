"""What the parts of the engine agree on: the batch they look at, the opinions they return, and the ports.

All arrays of one batch share two axes: requests (B rows) and the models of the catalog (M columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.lean_values import lean, lean_with_room, once
from monkey_coder.models import Preferences, RouteRequest, RoutingDecision, TaskType

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

Clock = Callable[[], float]
"""Monotonic seconds; only differences mean something."""

UNTRIED, REJECTED, ACCEPTED, UNANSWERED = 0, -1, 1, -2
"""Values of `RouteBatch.attempts`. A model that did not answer is not tried again, which says nothing of the task."""

SETBACK_LOGITS: Final = 2.0
"""By how many logits, before outcomes tell, the failure of a model that was sure to succeed lowers the chances of all
others; that of a weaker one lowers them in proportion. In public tables of outcomes it is some 1.5 to 2.5 where only
the kind of task is known."""

HALF_TRUST_EVIDENCE: Final = 20.0
"""Outcomes behind an estimate at which it deserves confidence one half."""

_HALF_TRUST: Final = np.array(HALF_TRUST_EVIDENCE, dtype=np.float32)  # as an array: a plain number takes twice the time


@lean_with_room
class RouteBatch:
    """Everything a strategy may look at, for a batch of requests.

    Attributes:
        table: The models, one a column.
        state: (B, S) encoded request; see `monkey_coder.quantum.state_encoder` for the layout.
        embedding: (B, D) static embedding of the prompt, unit length (all zero for text without tokens).
        model_features: (M, F) encoded model; same source.
        task: (B,) index into `monkey_coder.models.TASK_TYPES`.
        complexity: (B,) 0..1.
        candidates: (B, M) whether the model passed every gate.
        attempts: (B, M) int8: UNTRIED, REJECTED, ACCEPTED or UNANSWERED.
        attempts_left: (B,) verified attempts that the caller may still make, this one included; 1: it cannot verify.
        success: (B, M) prior P(success) of each model for the request's task type.
        evidence: (B, M) how many outcomes that prior is worth.
        cost_usd: (B, M) expected cost of one attempt in USD.
        latency_s: (B, M) expected latency of one attempt in seconds.
        cost_weight: (B,) lambda, success per USD.
        latency_weight: (B,) mu, success per second.
        quality_floor: (B,) lowest acceptable P(success); 0 where there is none.
        setback_logits: How much a failure lowers the chances of all models; see `SETBACK_LOGITS`.
    """

    table: ModelTable
    state: FloatArray
    embedding: FloatArray
    model_features: FloatArray
    task: IntArray
    complexity: FloatArray
    candidates: BoolArray
    attempts: NDArray[np.int8]
    attempts_left: IntArray
    success: FloatArray
    evidence: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    cost_weight: FloatArray
    latency_weight: FloatArray
    quality_floor: FloatArray
    setback_logits: float = SETBACK_LOGITS

    def __len__(self) -> int:
        return len(self.state)

    @once
    def untried(self) -> bool:
        """Whether no request has seen an attempt yet."""
        return not np.count_nonzero(self.attempts)

    @once
    def most_attempts(self) -> int:
        """The highest of `attempts_left`; 0 without requests."""
        return max(self.attempts_left.tolist(), default=0)

    @once
    def has_floor(self) -> bool:
        """Whether any request has a quality floor."""
        return any(self.quality_floor.tolist())

    @once
    def choices(self) -> IntArray:
        """(B,) how many candidates each request has."""
        return np.asarray(self.candidates.sum(axis=1))

    @once
    def price(self) -> FloatArray:
        """(B, M) successes that the cost of an attempt takes off its utility."""
        return self.cost_weight[:, None] * self.cost_usd

    @once
    def delay(self) -> FloatArray:
        """(B, M) successes that the latency of an attempt takes off its utility."""
        return self.latency_weight[:, None] * self.latency_s

    @once
    def prior_trust(self) -> FloatArray:
        """(B,) how far the candidates' priors can be trusted; see `trust`."""
        return self.trust(self.evidence)

    def trust(self, evidence: FloatArray) -> FloatArray:
        """(B,) how far estimates from (B, M) outcomes can be trusted: n / (n + 20), the mean over the candidates."""
        shares = evidence / (evidence + _HALF_TRUST)
        mean = np.add.reduce(shares, axis=1, where=self.candidates) / np.maximum(self.choices, 1)
        return np.asarray(mean, dtype=np.float32)

    def take(self, rows: Sequence[int]) -> RouteBatch:
        """The same models with some of the requests."""
        shared = {"table", "model_features", "setback_logits"}
        return RouteBatch(
            **{f.name: getattr(self, f.name) if f.name in shared else getattr(self, f.name)[rows] for f in fields(self)}
        )


@lean
class Scores:
    """One strategy's opinion on every candidate of a batch.

    Attributes:
        utility: (B, M) expected utility in successes (reward.py): comparable between strategies, at most 1.
        confidence: (B,) how far the strategy trusts its own ranking, 0..1.
        abstains: (B,) requests on which the strategy has no opinion; its other entries there mean nothing.
        success: (B, M) calibrated P(success), or None when the strategy does not estimate one.
        evidence: (B, M) outcomes behind `success`, which set the width of its interval, or None.
    """

    utility: FloatArray
    confidence: FloatArray
    abstains: BoolArray
    success: FloatArray | None = None
    evidence: FloatArray | None = None


class Strategy(Protocol):
    """A plug-in that scores all candidates of a batch in one vectorised call.

    Asking changes nothing: a strategy is stateless between calls, or swaps whole snapshots.
    """

    @property
    def name(self) -> str:
        """What requests, metrics and explanations call it."""
        ...

    def score(self, batch: RouteBatch) -> Scores:
        """Return an opinion on every request; entries of models that are no candidates are ignored."""
        ...


class TextEmbedder(Protocol):
    """Turns texts into vectors, the same ones in every process."""

    dimensions: int

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return (len(texts), dimensions) unit vectors; a text without known tokens is all zero."""
        ...


class RoutingEngine(Protocol):
    """The quantum engine as the Gary8D router sees it: handed in, never imported."""

    def route(self, request: RouteRequest) -> RoutingDecision:
        """Decide one request.

        Raises:
            RouterError: No model is eligible, or the request names something unknown.
        """
        ...


@lean
class Deliberation:
    """What the decisions of a batch were made from, beyond the batch; N strategies, B requests and M models.

    Attributes:
        preferences: B, as the callers stated them.
        exclusions: (B, M) uint8: 0 for a candidate, else 1 + the index into `gates.REASONS`.
        input_tokens: (B,) tokens of prompt and files.
        output_tokens: (B,) expected tokens of the answer.
        usd: (B, M) expected cost of one attempt as answers tell it, without what was learned of it.
        budget_usd: (B,) left to spend; infinite where there is no budget.
        last: (B,) column that the request's session used last, -1 where there is none.
        stays: (B,) whether the session keeps that one although another has the higher utility.
        bonus: (B, M) successes added to every strategy's utility, for preferred providers.
        strategies: N names.
        utility: (N, B, M) as voted upon, the bonus included; meaningless where a strategy does not vote.
        chances: N times (B, M) P(success) as the strategy estimates it, or None.
        confidence: (N, B) each strategy's own confidence.
        reliability: (N, B) how far the strategy has deserved its confidence so far.
        voting: (N, B) False where a strategy was not asked, failed, came late or abstained.
        arrival: (N,) rank of arrival, 0 first.
        success: (B, M) P(success) as all strategies together estimate it.
        low: (B, M) lower end of its 90% interval.
        high: (B, M) upper end.
        collapsed: (B, M) utility as the collapse made it.
        order: (B, M) columns, best first, before exploration; candidates before the others.
        first: (N, B) column that each strategy put first; meaningless where it does not vote.
    """

    preferences: Sequence[Preferences]
    exclusions: NDArray[np.uint8]
    input_tokens: IntArray
    output_tokens: IntArray
    usd: NDArray[np.float64]
    budget_usd: NDArray[np.float64]
    last: IntArray
    stays: BoolArray
    bonus: FloatArray
    strategies: tuple[str, ...]
    utility: FloatArray
    chances: tuple[FloatArray | None, ...]
    confidence: FloatArray
    reliability: FloatArray
    voting: BoolArray
    arrival: IntArray
    success: FloatArray
    low: FloatArray
    high: FloatArray
    collapsed: FloatArray
    order: IntArray
    first: IntArray


@dataclass(frozen=True, slots=True, eq=False)  # compared by what it is: thousands refer to the same one
class Reuse:
    """That an answer repeats an earlier decision.

    Attributes:
        origin: Id of that decision; its row in the log has what it was made from.
        task: Its task type.
        shared: What the answer has in common with that decision's, as a JSON object; None where that is not at hand.
    """

    origin: str
    task: TaskType
    shared: bytes | None = None


@lean
class DecisionEvent:
    """One decision, as the listeners see it. Holds no prompt text.

    Attributes:
        answer: The answer in contract form (design section 7).
        batch: The batch it was decided in, for those who log states; `row` is its place there. None when the engine
            broke before there was one, and the heuristic answered; and where the answer came from the cache.
        row: Row in `batch`.
        distribution: (M,) probability with which each model would have been served.
        duration_s: Time in the engine in seconds.
        deliberation: What the whole batch was decided from, rows as in `batch`; None when the heuristic answered, or
            the cache.
        reuse: What the answer repeats, when it came from the cache; else None.
    """

    answer: Mapping[str, Any]
    batch: RouteBatch | None
    row: int
    distribution: FloatArray
    duration_s: float
    deliberation: Deliberation | None = None
    reuse: Reuse | None = None


class Repeat(NamedTuple):
    """One answer from the cache, for those who hear of thousands a second and want little of each.

    Attributes:
        decision_id: Of the answer.
        episode_id: Of the answer.
        tier: Where it came from, as answers say it.
        degraded: What should have worked and did not.
        seconds: Time in the engine.
        reuse: What it repeats; the same object for all repeats of one entry that are told together.
        said: What the answer has in common with the first one; not to be changed.
    """

    decision_id: str
    episode_id: str
    tier: str
    degraded: tuple[str, ...]
    seconds: float
    reuse: Reuse
    said: Mapping[str, Any]

    def event(self) -> DecisionEvent:
        """The same for listeners that know only decisions."""
        answer = {
            "decision_id": self.decision_id,
            "episode_id": self.episode_id,
            **self.said,
            "cache": self.tier,
            "propensity": 1.0,
            "degraded": list(self.degraded),
            "execution_time_ms": round(self.seconds * 1e3, 3),
        }
        return DecisionEvent(answer, None, 0, _CERTAIN, self.seconds, reuse=self.reuse)


_CERTAIN: Final = np.ones(1, dtype=np.float32)
"""Distribution over the one model that a repeated answer can serve."""


@runtime_checkable
class RepeatListener(Protocol):
    """Gets answers from the cache in this form, and not as decisions."""

    def on_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Take note of answers from the cache; must be quick and must not raise."""
        ...


class DecisionListener(Protocol):
    """Gets one event per decision: metrics, the decision log, the live feed."""

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Take note of the decisions of one batch; must be quick and must not raise."""
        ...


@dataclass(frozen=True, slots=True)
class OutcomeEvent:
    """The first report about one model's answer, joined with its decision.

    Attributes:
        report: What tells the report from all others, also of the same outcome (`OutcomeRow.key` of the store).
        model: Ref of the model that answered.
        score: What came of it, 0..1; None where nothing was said about quality.
        cost_usd: What it cost; None where that was not said.
        origin: Id of the decision that was made: the reported one, or the one that it repeats.
        received_at: When the report came, in seconds since 1970.
    """

    report: Hashable
    model: str
    score: float | None
    cost_usd: float | None
    origin: str = ""
    received_at: float = math.inf


class OutcomeListener(Protocol):
    """Gets one event per outcome, in every process that follows the outcomes."""

    def on_outcomes(self, events: Sequence[OutcomeEvent]) -> None:
        """Take note of outcomes; must be quick and must not raise."""
        ...
