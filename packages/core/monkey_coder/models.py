"""The values that travel through the engine and over its HTTP API.

Every type here is frozen. Money is US dollars, durations say their unit in the name, probabilities
and weights lie in [0, 1]. A *model ref* is ``provider/model``; the model part may hold further slashes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

TaskType = Literal[
    "code_generation",
    "code_review",
    "debugging",
    "refactoring",
    "testing",
    "documentation",
    "architecture",
    "security",
    "performance",
    "general",
]
ContextType = Literal[
    "code_generation",
    "code_review",
    "debugging",
    "architecture",
    "security",
    "performance",
    "documentation",
    "testing",
    "refactoring",
]
ComplexityLevel = Literal["trivial", "simple", "moderate", "complex", "critical"]
Persona = Literal[
    "developer",
    "architect",
    "reviewer",
    "security_analyst",
    "performance_expert",
    "tester",
    "technical_writer",
]
StrategyName = str
CollapseName = Literal["best_score", "weighted", "consensus", "first_success", "combined"]
CacheMode = Literal["use", "bypass", "refresh"]
CacheResult = Literal["miss", "local", "redis", "similar", "bypass"]
ThreadStatus = Literal["PENDING", "RUNNING", "SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"]
ErrorType = Literal[
    "rate_limited",
    "timeout",
    "provider_error",
    "auth",
    "context_overflow",
    "content_filtered",
    "other",
]
Degradation = Literal["redis", "store", "deadline", "strategy", "learner", "quantum"]
ExclusionReason = Literal[
    "allowed_models",
    "excluded_model",
    "already_tried",
    "context_window",
    "max_output",
    "capability",
    "region",
    "budget",
    "unavailable",
]

TASK_TYPES: Final[tuple[TaskType, ...]] = get_args(TaskType)
CONTEXT_TYPES: Final[tuple[ContextType, ...]] = get_args(ContextType)
COMPLEXITY_LEVELS: Final[tuple[ComplexityLevel, ...]] = get_args(ComplexityLevel)
PERSONAS: Final[tuple[Persona, ...]] = get_args(Persona)
COLLAPSE_NAMES: Final[tuple[CollapseName, ...]] = get_args(CollapseName)

ModelRef = Annotated[str, Field(pattern=r"^[^/\s]+/\S.*$", max_length=200, examples=["anthropic/claude-haiku-4-5"])]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Usd = Annotated[float, Field(ge=0.0, le=1e9)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]
Identifier = Annotated[str, Field(min_length=1, max_length=200)]


class Value(BaseModel):
    """Base of every value: immutable, strict about types, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceFile(Value):
    """A file that goes along with the prompt; only its size matters to the router."""

    path: Annotated[str, Field(max_length=4096)]
    chars: Annotated[int, Field(ge=0, le=1_000_000_000, description="Length in characters.")]


class Requirements(Value):
    """What a model must be able to do to be a candidate at all."""

    tools: bool = False
    vision: bool = False
    json_mode: bool = False
    regions: Annotated[
        tuple[str, ...], Field(max_length=64, fail_fast=True, description="Any of these; empty: anywhere.")
    ] = ()


class ExecuteRequest(Value):
    """The task to place. Only ``prompt`` is required."""

    prompt: Annotated[str, Field(min_length=1)]
    task_type: TaskType | None = None
    persona: Persona | None = None
    files: Annotated[tuple[SourceFile, ...], Field(max_length=10_000, fail_fast=True)] = ()
    preferred_providers: Annotated[tuple[str, ...], Field(max_length=256, fail_fast=True)] = ()
    allowed_models: Annotated[tuple[ModelRef, ...], Field(max_length=4096, fail_fast=True)] = ()
    excluded_models: Annotated[tuple[ModelRef, ...], Field(max_length=4096, fail_fast=True)] = ()
    requires: Requirements = Requirements()
    input_tokens: Annotated[Tokens | None, Field(description="Overrides the estimate from prompt and files.")] = None
    expected_output_tokens: Tokens | None = None
    session_id: Identifier | None = None


class Preferences(Value):
    """How the caller weighs quality, cost and latency.

    Either ``value_usd`` (what a solved task is worth) or the three weights, which are scaled to sum to 1.
    """

    quality: Annotated[float, Field(gt=0.0, le=1e6)] = 0.6
    cost: Weight = 0.3
    latency: Weight = 0.1
    value_usd: Annotated[float | None, Field(gt=0.0, le=1e9, description="USD that a solved task is worth.")] = None
    quality_floor: Annotated[
        Probability | None, Field(description="Lowest acceptable P(success); the lower bound must reach it.")
    ] = None
    max_cost_usd: Annotated[Usd | None, Field(description="Budget of the whole episode in USD.")] = None

    @model_validator(mode="after")
    def _one_way_to_weigh(self) -> Self:
        given = {"quality", "cost", "latency"} & self.model_fields_set
        if self.value_usd is not None and given:
            raise ValueError(f"value_usd replaces the weights: leave out {', '.join(sorted(given))}")
        return self


class Attempt(Value):
    """One earlier try at this task, and how it ended."""

    model: ModelRef
    success: bool
    cost_usd: Usd | None = None
    decision_id: Identifier | None = None
    error_type: ErrorType | None = None


class Episode(Value):
    """What has been tried already."""

    episode_id: Identifier | None = None
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=100, fail_fast=True)] = ()


class QuantumOptions(Value):
    """How this one decision shall be made; null means the configured default."""

    strategies: Annotated[tuple[StrategyName, ...] | None, Field(min_length=1, max_length=32, fail_fast=True)] = None
    collapse_strategy: CollapseName | None = None
    max_threads: Annotated[int | None, Field(ge=1, le=64)] = None
    timeout_ms: Annotated[int, Field(ge=1, le=1000, description="Deadline of the fan-out.")] = 50
    explore: bool = True
    cache: CacheMode = "use"


class RouteRequest(Value):
    """Body of ``POST /v1/quantum/route``."""

    request: ExecuteRequest
    preferences: Preferences = Preferences()
    episode: Episode = Episode()
    quantum_config: QuantumOptions = QuantumOptions()


class RouteBatchRequest(Value):
    """Body of ``POST /v1/quantum/route/batch``."""

    requests: Annotated[tuple[RouteRequest, ...], Field(min_length=1, max_length=256, fail_fast=True)]


class Expected(Value):
    """What the engine expects of one candidate."""

    success: Probability
    success_low: Annotated[Probability, Field(description="Lower end of the 90% interval.")]
    success_high: Annotated[Probability, Field(description="Upper end of the 90% interval.")]
    cost_usd: Usd
    latency_ms: Annotated[float, Field(ge=0.0)]


class Alternative(Value):
    """A runner-up; ``score`` is its expected utility in successes (at most 1, below 0 when not worth its price)."""

    provider: str
    model: str
    score: float
    expected: Expected


class Exclusion(Value):
    """A catalog model that was not a candidate, and why."""

    model: ModelRef
    reason: ExclusionReason
    detail: str


class ThreadResult(Value):
    """What one strategy did in the fan-out."""

    strategy: StrategyName
    status: ThreadStatus
    model: ModelRef | None = None
    confidence: Probability | None = None
    execution_time_ms: Annotated[float | None, Field(ge=0.0)] = None


class ComplexityReport(Value):
    """How hard the task looks."""

    score: Probability
    level: ComplexityLevel


class ExperimentArm(Value):
    """The experiment this decision belonged to."""

    id: str
    arm: str


class RoutingDecision(Value):
    """Answer of ``POST /v1/quantum/route``."""

    decision_id: str
    episode_id: str
    provider: str
    model: str
    persona: Persona
    confidence: Probability
    expected: Expected
    strategy_used: StrategyName
    collapse_strategy: str
    collapse_reasoning: str
    explored: bool
    propensity: Probability
    alternatives: tuple[Alternative, ...]
    excluded: tuple[Exclusion, ...]
    thread_results: tuple[ThreadResult, ...]
    complexity: ComplexityReport
    context_type: ContextType
    cache: CacheResult
    policy_version: int | None
    config_version: int
    experiment: ExperimentArm | None
    degraded: tuple[Degradation, ...]
    execution_time_ms: Annotated[float, Field(ge=0.0)]

    @property
    def ref(self) -> str:
        """The chosen model as ``provider/model``."""
        return f"{self.provider}/{self.model}"


class Problem(BaseModel):
    """An error as RFC 9457 ``application/problem+json``; ``code`` is stable and may be matched on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str


class BatchResult(Value):
    """What became of one request of a batch: a decision or a problem."""

    decision: RoutingDecision | None
    problem: Problem | None


class RouteBatchAnswer(Value):
    """Answer of ``POST /v1/quantum/route/batch``, in the order of the requests."""

    results: tuple[BatchResult, ...]


class FeedbackRequest(Value):
    """Body of ``POST /v1/quantum/feedback``: what became of a decision.

    At least one of ``success``, ``quality`` and ``error_type`` is required. Where both are given, ``success`` is
    what P(success) is learned from. An error tells of a provider's availability, and nothing of quality.
    """

    decision_id: Identifier
    outcome_id: Annotated[Identifier | None, Field(description="The reporter's name for this report.")] = None
    model: Annotated[ModelRef | None, Field(description="Which candidate answered; null: the decided one.")] = None
    success: bool | None = None
    quality: Probability | None = None
    cost_usd: Usd | None = None
    latency_ms: Annotated[float | None, Field(ge=0.0, le=1e9)] = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    error_type: ErrorType | None = None
    occurred_at: Annotated[
        AwareDatetime | Annotated[float, Field(ge=0.0, le=1e10)] | None,
        Field(description="RFC 3339 with a time zone, or seconds since 1970; null: when the report arrives."),
    ] = None
    final: Annotated[bool, Field(description="Whether the episode ends here, whatever came of it.")] = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.success is None and self.quality is None and self.error_type is None:
            raise ValueError("success, quality or error_type is required")
        return self

    @property
    def occurred_at_s(self) -> float | None:
        """`occurred_at` in seconds since 1970."""
        return self.occurred_at.timestamp() if isinstance(self.occurred_at, datetime) else self.occurred_at


class FeedbackBatchRequest(Value):
    """Body of ``POST /v1/quantum/feedback/batch``."""

    reports: Annotated[tuple[FeedbackRequest, ...], Field(min_length=1, max_length=1000, fail_fast=True)]


class FeedbackAnswer(Value):
    """Answer of ``POST /v1/quantum/feedback``: the report is durable."""

    accepted: Literal[True] = True


class FeedbackResult(Value):
    """What became of one report of a batch."""

    accepted: bool
    problem: Problem | None


class FeedbackBatchAnswer(Value):
    """Answer of ``POST /v1/quantum/feedback/batch``, in the order of the reports."""

    results: tuple[FeedbackResult, ...]


class OverrideRequest(Value):
    """Body of ``POST /v1/quantum/providers/{name}/override``."""

    state: Annotated[
        Literal["auto", "drained", "available"],
        Field(description="drained: no decisions; available: whatever the breakers say; auto: as they say."),
    ]
    reason: Annotated[str | None, Field(max_length=500)] = None


class TaskAnalysis(NamedTuple):
    """What reading the prompt told about the task, without any model; made for every decision, never parsed."""

    complexity: float
    """From 0, trivial, to 1, critical."""
    level: ComplexityLevel
    task_type: TaskType
    context_type: ContextType
    evidence: float
    """How much of the text spoke for the inferred type, 0..1; 1 when the caller named it."""
