"""From a record's arrays to what is shown of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from monkey_coder.models import Expected, Preferences, RoutingDecision, Usd
from monkey_coder.ports import ACCEPTED, REJECTED, UNANSWERED, IntArray
from monkey_coder.quantum.collapse_strategies import Ballots
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.explanation import DecisionView, ModelView, Opinion, StatedPreferences, StrategyView

_ENDED: Final[Mapping[int, Literal["rejected", "accepted", "unanswered"]]] = {
    REJECTED: "rejected",
    ACCEPTED: "accepted",
    UNANSWERED: "unanswered",
}


def decision_view(record: DecisionRecord) -> DecisionView:
    """Everything about one decision."""
    return DecisionView(
        decision=RoutingDecision.model_validate(record.answer, strict=False),
        made_at=record.made_at,
        task_type=record.task,
        preferences=_stated(record.preferences),
        cost_weight=record.cost_weight,
        latency_weight=record.latency_weight,
        budget_left_usd=_or_none(record.budget_usd),
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        attempts_left=record.attempts_left,
        winner=winner_of(record),
        models=model_views(record),
        strategies=strategy_views(record),
        encoding_version=record.encoding_version,
    )


def _stated(preferences: Preferences) -> StatedPreferences:
    weighed = preferences.value_usd is None
    return StatedPreferences(
        quality=preferences.quality if weighed else None,
        cost=preferences.cost if weighed else None,
        latency=preferences.latency if weighed else None,
        value_usd=preferences.value_usd,
        quality_floor=preferences.quality_floor,
        max_cost_usd=preferences.max_cost_usd,
    )


def winner_of(record: DecisionRecord) -> str:
    """Ref of what the collapse put first; of what was served where there was no collapse."""
    return record.refs[record.winner] if record.refs else record.served


def model_views(record: DecisionRecord) -> tuple[ModelView, ...]:
    """Every model of the catalog: candidates by rank, then the excluded in catalog order."""
    candidates, order = record.candidates, record.order.tolist()
    ranked = [column for column in order if candidates[column]]
    places = {column: rank for rank, column in enumerate(ranked, start=1)}
    excluded = [column for column in range(len(record.refs)) if column not in places]
    shares = np.clip(record.distribution, 0.0, 1.0).tolist()
    return tuple(
        ModelView(
            model=record.refs[column],
            rank=places.get(column),
            probability=shares[column],
            utility=_number(record.collapsed[column]) if column in places else None,
            expected=expected_of(record, column),
            prior=_share(record.prior[column]),
            prior_evidence=float(record.evidence[column]),
            bonus=float(record.bonus[column]),
            attempt=_ENDED.get(int(record.attempts[column])),
            opinions=_opinions(record, column) if column in places else (),
        )
        for column in (*ranked, *excluded)
    )


def expected_of(record: DecisionRecord, column: int) -> Expected:
    """What was expected of one model."""
    return Expected(
        success=_share(record.success[column]),
        success_low=_share(record.low[column]),
        success_high=_share(record.high[column]),
        cost_usd=float(record.cost_usd[column]),
        latency_ms=float(record.latency_s[column]) * 1e3,
    )


def strategy_views(record: DecisionRecord) -> tuple[StrategyView, ...]:
    """Every strategy that was asked; only its status where it had no say."""
    if record.refs:
        weights = ballots_of(record).weights[:, 0].astype(np.float64)
        weights /= max(float(weights.sum()), 1e-12)
    else:
        weights = np.zeros(0)
    place_of = {name: place for place, name in enumerate(record.strategies)}
    views = []
    for result in record.answer["thread_results"]:
        place = place_of.get(result["strategy"])
        voted = place is not None and bool(record.voting[place])
        views.append(
            StrategyView(
                strategy=result["strategy"],
                status=result["status"],
                voted=voted,
                model=result["model"],
                confidence=result["confidence"],
                reliability=None if place is None else float(record.reliability[place]),
                weight=_share(weights[place]) if voted else 0.0,
            )
        )
    return tuple(views)


def ballots_of(record: DecisionRecord) -> Ballots:
    """What the strategies said, as the collapse saw it; one row."""
    return Ballots(
        strategies=record.strategies,
        utility=record.utility[:, None, :],
        confidence=record.confidence[:, None],
        reliability=record.reliability[:, None],
        voting=record.voting[:, None],
        arrival=record.arrival,
        candidates=record.candidates[None],
        cost_usd=record.cost_usd[None],
    )


def voters_of(record: DecisionRecord) -> IntArray:
    """Places of the strategies that had a say."""
    return np.flatnonzero(record.voting)


def _opinions(record: DecisionRecord, column: int) -> tuple[Opinion, ...]:
    return tuple(
        Opinion(
            strategy=record.strategies[place],
            utility=_number(record.utility[place, column]),
            success=None if math.isnan(chance := float(record.chances[place, column])) else _share(chance),
        )
        for place in voters_of(record).tolist()
    )


def _share(value: Any) -> float:  # noqa: ANN401 - any number of numpy's or Python's
    """A probability that rounding may have carried past an end."""
    return min(max(float(value), 0.0), 1.0)


def _number(value: Any) -> float:  # noqa: ANN401
    """A number that JSON can carry; a plug-in's utility may be infinite."""
    return float(np.nan_to_num(value))


def _or_none(value: Usd) -> float | None:
    return None if math.isinf(value) else value
