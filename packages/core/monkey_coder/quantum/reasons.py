"""Why a decision fell as it did, and why not on another model: true sentences from the numbers that were compared."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.collapse_strategies import best_first
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.decision_views import ballots_of, voters_of
from monkey_coder.quantum.explanation import Instead
from monkey_coder.quantum.provider_bonus import FAILED_MALUS


def why(record: DecisionRecord, same: Collection[str] = ()) -> tuple[str, ...]:
    """Why a decision fell as it did: how it was made, what was expected, and what stood next.

    Args:
        record: The decision.
        same: Refs of all deployments of the model that the collapse put first: to call one of them is not to explore.
    """
    said = [str(record.answer["collapse_reasoning"])]
    if not record.refs:
        return tuple(said)
    said.append(_expectation(record, record.winner))
    if record.answer["explored"]:
        own = [column for column, ref in enumerate(record.refs) if column == record.winner or ref in same]
        others = 1.0 - float(record.distribution[own].sum())
        said.append(
            f"It was not served: with probability {number(others)} another candidate is tried, to learn, "
            f"and this time that was {record.served}."
        )
    ranked = [column for column in record.order.tolist() if record.candidates[column]]
    if len(ranked) > 1:
        said.append(f"The runner-up is {record.refs[ranked[1]]}. {' '.join(_reasons(record, ranked[1]))}")
    else:
        said.append("It is the only candidate.")
    return tuple(said)


def why_not(record: DecisionRecord, ref: str, same: Collection[str] = ()) -> Instead:
    """Why a decision did not fall on a model.

    Args:
        record: The decision.
        ref: The model; it need not have been in the catalog.
        same: As for `why`.
    """
    if ref not in record.refs:
        if ref == record.served:
            return Instead(model=ref, standing="served", reasons=("It is what was served.",))
        reason = (
            "It was not in the catalog when this was decided."
            if record.refs
            else "The heuristic decided, and what it thought of the others is not logged."
        )
        return Instead(model=ref, standing="unknown", reasons=(reason,))
    column = record.refs.index(ref)
    for exclusion in record.answer["excluded"]:
        if exclusion["model"] == ref:
            reason = f"It was excluded by the gate {exclusion['reason']}: {exclusion['detail']}."
            return Instead(model=ref, standing="excluded", reasons=(reason,))
    if ref == record.served:
        reasons = ("It is what was served.", *why(record, same))
        return Instead(model=ref, standing="served", reasons=reasons)
    if column == record.winner:
        return Instead(model=ref, standing="first", reasons=why(record, same))
    return Instead(model=ref, standing="candidate", reasons=_reasons(record, column))


def _reasons(record: DecisionRecord, column: int) -> tuple[str, ...]:
    """Why a candidate stands behind the winner."""
    if record.stays:
        first = int(record.order[1])
        said = (
            f"The session used {record.refs[record.winner]} last, and switching to {record.refs[first]}, "
            "which would have won, costs more than it brings.",
        )
        return said if column == first else (*said, *_behind(record, column, first))
    return _behind(record, column, record.winner)


def _behind(record: DecisionRecord, column: int, first: int) -> tuple[str, ...]:
    """Why a candidate stands behind the one that the rules put first."""
    decisive = _by_floor if record.quality_floor > 0 else _BY_COLLAPSE[record.answer["collapse_strategy"]]
    return (decisive(record, column, first), _comparison(record, column, first))


def _by_floor(record: DecisionRecord, column: int, first: int) -> str:
    floor, low, best = record.quality_floor, float(record.low[column]), float(record.low[first])
    name = record.refs[first]
    if best < floor:
        none = f"No candidate surely reaches the quality floor of {number(floor)};"
        if low == best:
            return f"{none} it comes as close as {name}{_TIED}"
        bound = f"the lower bound of its P(success), {number(low)}"
        return f"{none} {bound}, is further from it than the {number(best)} of {name}."
    if low < floor:
        return f"The lower bound of its P(success), {number(low)}, does not reach the quality floor of {number(floor)}."
    cost, least = float(record.cost_usd[column]), float(record.cost_usd[first])
    if number(cost) == number(least):
        return f"It reaches the quality floor of {number(floor)} too, at the same cost as {name}{_TIED}"
    return (
        f"It reaches the quality floor of {number(floor)} too, but is expected to cost {number(cost)} USD, "
        f"{number(cost - least)} more than {name}."
    )


def _by_mean(record: DecisionRecord, column: int, first: int) -> str:
    weights = ballots_of(record).weights[:, 0].astype(np.float64)
    shares = weights / max(float(weights.sum()), 1e-12)
    views = ", ".join(
        f"{record.strategies[place]} ({shares[place]:.0%} of the vote) {_signed(utility[column] - utility[first])}"
        for place in voters_of(record).tolist()
        for utility in [record.utility[place].astype(np.float64)]
    )
    return f"{_gap(record.collapsed, column, first, 'weighted utility', record)} Against {record.refs[first]}: {views}."


def _by_decider(record: DecisionRecord, column: int, first: int) -> str:
    decider = str(record.answer["strategy_used"])
    said = _gap(record.collapsed, column, first, f"utility by {decider}", record)
    return f"{decider} decided alone. {said}"


def _by_votes(record: DecisionRecord, column: int, first: int) -> str:
    choices = ballots_of(record).first[record.voting, 0]
    mine, theirs = int(np.sum(choices == column)), int(np.sum(choices == first))
    said = f"{mine} of {len(choices)} strategies put it first, {theirs} put {record.refs[first]} first."
    return said if mine != theirs else f"{said} {_gap(record.collapsed, column, first, 'weighted utility', record)}"


def _by_rank(record: DecisionRecord, column: int, first: int) -> str:
    ballots = ballots_of(record)
    weights = ballots.weights[:, 0].astype(np.float64)
    order = best_first(ballots.utility, ballots)[:, 0]
    ranks = np.argsort(order, axis=1)
    mean = weights @ ranks / max(float(weights.sum()), 1e-12) + 1.0
    mine, theirs = float(mean[column]), float(mean[first])
    said = f"Its mean rank among the strategies is {number(mine)}, that of {record.refs[first]} {number(theirs)}."
    close = abs(mine - theirs) < 1e-5  # ranks are compared to the sixth digit
    return f"{said} {_gap(record.collapsed, column, first, 'weighted utility', record)}" if close else said


_BY_COLLAPSE = {
    "weighted": _by_mean,
    "best_score": _by_decider,
    "first_success": _by_decider,
    "consensus": _by_votes,
    "combined": _by_rank,
}
_TIED = "; of equals the cheaper goes first, then the one that stands first in the catalog."


def _gap(utility: FloatArray, column: int, first: int, name: str, record: DecisionRecord) -> str:
    mine, theirs = float(utility[column]), float(utility[first])
    if mine == theirs:
        return f"Its {name} is {number(mine)}, the same as that of {record.refs[first]}{_TIED}"
    way = "lower" if mine < theirs else "higher"
    difference = number(abs(mine - theirs))
    return f"Its {name} is {number(mine)}, {way} by {difference} than the {number(theirs)} of {record.refs[first]}."


def _expectation(record: DecisionRecord, column: int) -> str:
    chance = f"{number(record.success[column])} ({number(record.low[column])} to {number(record.high[column])})"
    price, time = number(record.cost_usd[column]), number(record.latency_s[column])
    return (
        f"{record.refs[column]} is expected to succeed with probability {chance}, for {price} USD and within {time} s; "
        f"a USD counts as {number(record.cost_weight)} successes and a second as {number(record.latency_weight)}."
    )


def _comparison(record: DecisionRecord, column: int, first: int) -> str:
    """What the two differ in, in the request's own money."""
    success = float(record.success[column]) - float(record.success[first])
    cost = record.cost_weight * (float(record.cost_usd[column]) - float(record.cost_usd[first]))
    latency = record.latency_weight * (float(record.latency_s[column]) - float(record.latency_s[first]))
    bonus = float(record.bonus[column]) - float(record.bonus[first])
    parts = [
        f"P(success) {number(record.success[column])} against {number(record.success[first])} ({_signed(success)})",
        f"{number(record.cost_usd[column])} against {number(record.cost_usd[first])} USD ({_signed(-cost)})",
        f"{number(record.latency_s[column])} against {number(record.latency_s[first])} s ({_signed(-latency)})",
    ]
    if bonus:
        why = "preferred provider" if abs(bonus) < FAILED_MALUS / 2.0 else "a provider that just failed"
        parts.append(f"{why} ({_signed(bonus)})")
    total = success - cost - latency + bonus
    differences = ", ".join(parts)
    return (
        f"In successes, by the joint estimates and the request's own weights: {differences}; in all {_signed(total)}."
    )


def number(value: float | np.floating) -> str:
    """A number for a sentence: four significant digits."""
    return f"{float(value):.4g}"


def _signed(value: float) -> str:
    return f"{value:+.4g}"
