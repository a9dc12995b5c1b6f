"""What is said about a decision: the values of `GET /v1/quantum/decisions/{id}` and of its `/explain`.

Numbers are as the engine held them (float32). Utilities are in successes, money in US dollars.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from monkey_coder.models import (
    Exclusion,
    Expected,
    ModelRef,
    Probability,
    RoutingDecision,
    StrategyName,
    TaskType,
    ThreadStatus,
    Usd,
    Value,
)

Quantity = Literal["cost_weight", "quality_floor", "price"]


class Opinion(Value):
    """What one strategy thought of one model."""

    strategy: StrategyName
    utility: Annotated[float, Field(description="In successes; what its provider adds or takes is included.")]
    success: Annotated[Probability | None, Field(description="Its own P(success); null when it estimates none.")]


class ModelView(Value):
    """One model of the catalog, as the decision saw it."""

    model: ModelRef
    rank: Annotated[
        int | None, Field(ge=1, description="Place in the collapsed ranking, before exploration; null if excluded.")
    ]
    probability: Annotated[Probability, Field(description="With which it would have been served.")]
    utility: Annotated[float | None, Field(description="As the collapse made it; null if excluded.")]
    expected: Expected
    prior: Annotated[Probability, Field(description="P(success) for this kind of task, before any strategy.")]
    prior_evidence: Annotated[float, Field(ge=0.0, description="Outcomes that the prior is worth.")]
    bonus: Annotated[float, Field(description="Successes added for its provider: preferred, or (below 0) failed.")]
    attempt: Annotated[
        Literal["rejected", "accepted", "unanswered"] | None, Field(description="How an earlier attempt ended.")
    ]
    opinions: Annotated[tuple[Opinion, ...], Field(description="Of the strategies that had a say; none if excluded.")]


class StrategyView(Value):
    """One strategy, as the decision saw it."""

    strategy: StrategyName
    status: ThreadStatus
    voted: bool
    model: Annotated[ModelRef | None, Field(description="What it puts first.")]
    confidence: Probability | None
    reliability: Annotated[float | None, Field(ge=0.0, description="How far it had deserved its confidence so far.")]
    weight: Annotated[Probability, Field(description="Its share in means over strategies.")]


class StatedPreferences(Value):
    """The preferences that applied: either `value_usd` or the three weights."""

    quality: float | None
    cost: float | None
    latency: float | None
    value_usd: float | None
    quality_floor: Probability | None
    max_cost_usd: Usd | None


class DecisionView(Value):
    """All that is known of one decision, but the prompt, which nobody keeps, and its encoding."""

    decision: RoutingDecision
    made_at: Annotated[float, Field(description="Seconds since 1970.")]
    task_type: TaskType
    preferences: StatedPreferences
    cost_weight: Annotated[float, Field(ge=0.0, description="Lambda, success per USD.")]
    latency_weight: Annotated[float, Field(ge=0.0, description="Mu, success per second.")]
    budget_left_usd: Annotated[Usd | None, Field(description="What could still be spent; null without a budget.")]
    input_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]
    attempts_left: Annotated[int, Field(ge=1, description="Verified attempts the caller could make, with this one.")]
    winner: Annotated[ModelRef, Field(description="What the collapse put first; exploration may serve another.")]
    models: Annotated[
        tuple[ModelView, ...], Field(description="Candidates by rank, then the excluded; empty if Gary8D decided.")
    ]
    strategies: tuple[StrategyView, ...]
    encoding_version: Annotated[int, Field(description="Of the state vector that is kept with the decision.")]


class FlipPoint(Value):
    """The nearest value at which the choice is another one. Both values were tried."""

    at: Annotated[float, Field(ge=0.0, description="Here another model is chosen.")]
    until: Annotated[float, Field(ge=0.0, description="Here the choice is still the same.")]
    model: Annotated[ModelRef | None, Field(description="What is chosen at `at`; null: no model would be left.")]
    cost: Annotated[
        float | None, Field(ge=0.0, description="Cost weight: `at` as preferences.cost, other weights as they were.")
    ] = None
    value_usd: Annotated[
        float | None, Field(gt=0.0, description="Cost weight: `at` as the worth of a solved task in USD.")
    ] = None
    factor: Annotated[
        float | None, Field(ge=0.0, description="Price: `at` as a multiple of the price that it had.")
    ] = None
    sentence: str


class FlipAxis(Value):
    """One quantity, everything else as it was: how far it could move before another model had been chosen."""

    quantity: Annotated[
        Quantity,
        Field(
            description="cost_weight: lambda, success per USD. quality_floor: P(success), 0 is none. "
            "price: expected USD of this request with `model`."
        ),
    ]
    model: Annotated[ModelRef | None, Field(description="Whose price; null for the others.")]
    now: Annotated[float, Field(ge=0.0, description="As it was.")]
    lowest: Annotated[float, Field(ge=0.0, description="Lower end of what was tried.")]
    highest: Annotated[float, Field(ge=0.0, description="Upper end of what was tried.")]
    lower: Annotated[FlipPoint | None, Field(description="Nearest flip below; null: none down to `lowest`.")]
    higher: Annotated[FlipPoint | None, Field(description="Nearest flip above; null: none up to `highest`.")]


class Precedent(Value):
    """An earlier decision on a similar prompt."""

    decision_id: str
    similarity: Annotated[float, Field(ge=-1.0, le=1.0, description="Cosine of the two prompts' embeddings.")]
    model: Annotated[ModelRef, Field(description="What was served.")]
    success: Annotated[bool | None, Field(description="How it ended, where that is known.")]


class Instead(Value):
    """Why not that one."""

    model: ModelRef
    standing: Annotated[
        Literal["served", "first", "candidate", "excluded", "unknown"],
        Field(description="first: best, but another one was served; unknown: it was not in the catalog then."),
    ]
    reasons: Annotated[tuple[str, ...], Field(min_length=1)]


class Explanation(Value):
    """Why this model, why not that one, and where the choice would flip."""

    decision_id: str
    served: ModelRef
    winner: Annotated[ModelRef, Field(description="What the collapse put first; exploration may serve another.")]
    why: Annotated[tuple[str, ...], Field(min_length=1)]
    instead: Instead | None
    models: tuple[ModelView, ...]
    strategies: tuple[StrategyView, ...]
    excluded: tuple[Exclusion, ...]
    today: Annotated[
        ModelRef | None,
        Field(description="What the strategies of today choose for this request, and flips are measured from."),
    ]
    flips: tuple[FlipAxis, ...]
    precedents: tuple[Precedent, ...]
    notes: Annotated[tuple[str, ...], Field(description="What could not be computed, and why.")]
