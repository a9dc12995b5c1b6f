"""The format of a catalog file, checked field by field; `docs/reference/catalog.md` shows it with examples."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from monkey_coder.models import TASK_TYPES, ModelRef, Probability, TaskType, Value

Capability = Literal["tools", "vision", "json_mode", "reasoning"]
Tag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
PerMtok = Annotated[float, Field(ge=0.0, le=1e6, description="USD per million tokens.")]
Limit = Annotated[int, Field(ge=1, le=1_000_000_000, description="Tokens.")]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Quality(Value):
    """Prior P(success) per task type; a type that is not named has the default."""

    default: Probability
    code_generation: Probability | None = None
    code_review: Probability | None = None
    debugging: Probability | None = None
    refactoring: Probability | None = None
    testing: Probability | None = None
    documentation: Probability | None = None
    architecture: Probability | None = None
    security: Probability | None = None
    performance: Probability | None = None
    general: Probability | None = None

    def by_task(self) -> dict[TaskType, float]:
        """All task types, in the order of `TASK_TYPES`."""
        given: dict[str, float | None] = self.model_dump()
        return {task: self.default if (own := given[task]) is None else own for task in TASK_TYPES}


class PriceSpec(Value):
    """Own prices, each of which replaces the one that genai-prices knows."""

    input_mtok: PerMtok | None = None
    output_mtok: PerMtok | None = None
    cached_input_mtok: PerMtok | None = None
    request: Annotated[float | None, Field(ge=0.0, le=1e6, description="USD per call on top of the tokens.")] = None


class Sources(Value):
    """Where the numbers come from, in words a person can follow."""

    quality: Text
    limits: Text | None = None
    latency: Text | None = None


class ModelSpec(Value):
    """One model as the file describes it."""

    context_window: Annotated[Limit, Field(description="Prompt and answer together.")]
    max_output: Limit
    capabilities: Annotated[tuple[Capability, ...], Field(strict=False)] = ()
    regions: Annotated[tuple[Tag, ...], Field(strict=False, max_length=64)] = ()
    quality: Quality
    evidence: Annotated[float, Field(gt=0.0, le=1e6, description="Outcomes the prior is worth.")] = 10.0
    latency_s: Annotated[float, Field(gt=0.0, le=86_400.0)]
    sources: Sources
    price_id: Annotated[str | None, Field(pattern=r"^[^:\s]+:\S+$", description="provider:model.")] = None
    prices: PriceSpec = PriceSpec()
    deployment_of: Annotated[
        Text | None, Field(description="Entries with the same name here are one model in several places.")
    ] = None
    weight: Annotated[float, Field(gt=0.0, le=1e6, description="Share of traffic among those.")] = 1.0
    note: Text | None = None

    @model_validator(mode="after")
    def _answer_fits_the_window(self) -> Self:
        if self.max_output > self.context_window:
            raise ValueError(
                f"max_output {self.max_output} is larger than context_window {self.context_window};"
                " the window holds prompt and answer together"
            )
        return self


class ProviderSpec(Value):
    """What the file says of a provider as a whole."""

    health_url: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=500, description="What checks ask for.")]


class CatalogFile(Value):
    """A whole file, after it has been merged with what it extends."""

    models: Annotated[dict[ModelRef, ModelSpec], Field(min_length=1)]
    providers: dict[Tag, ProviderSpec] = Field(default_factory=dict)
