"""The course of an episode as the client sees it: what was tried, what to ask next, what to report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from monkey_coder.models import Attempt, Episode, ErrorType, FeedbackRequest, RouteRequest, RoutingDecision


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one try; give `success`, `quality` or `error_type`.

    Attributes:
        success: Whether the answer passed.
        quality: How good it was, 0..1. Without `success`, it passed at one half.
        cost_usd: What it cost; None: what the engine expected counts against the budget.
        latency_ms: How long the call took.
        input_tokens: Of prompt and files.
        output_tokens: Of the answer.
        error_type: Why there was no answer.
    """

    success: bool | None = None
    quality: float | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error_type: ErrorType | None = None

    @property
    def passed(self) -> bool:
        """Whether the episode may end here."""
        if self.success is not None:
            return self.success
        return self.error_type is None and self.quality is not None and self.quality >= 0.5


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How an episode ended.

    Attributes:
        ended: By success, at the most attempts, or because no model was left within the budget and the rules.
        tries: Each decision with what became of it, in order.
    """

    ended: Literal["success", "attempts", "no_model"]
    tries: tuple[tuple[RoutingDecision, Tried], ...]

    @property
    def success(self) -> bool:
        """Whether the last try passed."""
        return self.ended == "success"

    @property
    def spent_usd(self) -> float:
        """What all tries cost; where one did not say, what had been expected."""
        return sum(cost_usd(decision, tried) for decision, tried in self.tries)


@dataclass
class Course:
    """An episode under way.

    Attributes:
        first: The request as it was before any try.
        max_attempts: The most tries.
        tries: Each decision with what became of it.
        episode_id: Joins them, unless the request names one.
    """

    first: RouteRequest
    max_attempts: int
    tries: list[tuple[RoutingDecision, Tried]] = field(default_factory=list)
    episode_id: str = field(default_factory=lambda: uuid4().hex)

    def request(self) -> RouteRequest:
        """What to ask next: the request with all that was tried."""
        attempts = tuple(
            Attempt(
                model=decision.ref,
                success=tried.passed,
                cost_usd=cost_usd(decision, tried),
                decision_id=decision.decision_id,
                error_type=tried.error_type,
            )
            for decision, tried in self.tries
        )
        before = self.first.episode
        episode = Episode(episode_id=before.episode_id or self.episode_id, attempts=before.attempts + attempts)
        return self.first.model_copy(update={"episode": episode})

    def note(self, decision: RoutingDecision, tried: Tried) -> FeedbackRequest:
        """Take note of a try; returns the report of it."""
        self.tries.append((decision, tried))
        return self.report(final=tried.passed or len(self.tries) == self.max_attempts)

    def report(self, *, final: bool) -> FeedbackRequest:
        """The report of the last try."""
        decision, tried = self.tries[-1]
        return FeedbackRequest(
            decision_id=decision.decision_id,
            model=decision.ref,
            success=tried.success,
            quality=tried.quality,
            cost_usd=tried.cost_usd,
            latency_ms=tried.latency_ms,
            input_tokens=tried.input_tokens,
            output_tokens=tried.output_tokens,
            error_type=tried.error_type,
            final=final,
        )

    def ended(self) -> EpisodeResult | None:
        """How it ended; None while it goes on."""
        if self.tries and self.tries[-1][1].passed:
            return EpisodeResult("success", tuple(self.tries))
        if len(self.tries) >= self.max_attempts:
            return EpisodeResult("attempts", tuple(self.tries))
        return None


def cost_usd(decision: RoutingDecision, tried: Tried) -> float:
    """What a try cost; where nobody said, what was expected, and nothing where there was no answer."""
    if tried.cost_usd is not None:
        return tried.cost_usd
    return 0.0 if tried.error_type is not None else decision.expected.cost_usd
