"""Writing decisions down: from the arrays of a batch to answers in contract form, one true sentence included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkey_coder.core.complexity import persona_for
from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.collapse_strategies import Ballots, Ranking
from monkey_coder.quantum.exploration import Served
from monkey_coder.quantum.preparation import Prepared
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.thread_manager import ThreadOutcome

Answer = dict[str, Any]
"""A decision as the fields of `monkey_coder.models.RoutingDecision`."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What is expected of each model, each (B, M).

    Attributes:
        success: P(success).
        low: Lower end of its 90% interval.
        high: Upper end.
    """

    success: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class Decided:
    """All that the answers of one group of requests are made from; rows as in `prepared.batch`.

    Attributes:
        collapse: Name of the collapse.
        ballots: What the strategies said.
        ranking: What the collapse made of it.
        served: What is served, after exploration.
        estimates: What is expected of every model.
        reaching: (B,) how many candidates surely reach the quality floor; -1 where there is none.
    """

    collapse: str
    ballots: Ballots
    ranking: Ranking
    served: Served
    estimates: Estimates
    reaching: IntArray


def write_answers(
    prepared: Prepared,
    decided: Decided,
    outcomes: Sequence[ThreadOutcome],
    snapshot: EngineSnapshot,
    ids: Sequence[tuple[str, str]],
) -> list[Answer]:
    """Write the answer of every row whose ballots had at least one vote.

    Args:
        prepared: The batch.
        decided: The decisions.
        outcomes: What each strategy did, in the order of `decided.ballots.strategies`.
        snapshot: Names and versions.
        ids: Decision id and episode id of each row.

    Returns:
        One answer per row, without `execution_time_ms`.
    """
    batch = prepared.batch
    order = _chain(decided)
    columns = order.tolist()
    numbers = _numbers(prepared, decided, order)
    candidate_counts: list[int] = np.sum(batch.candidates, axis=1).tolist()
    firsts = decided.ranking.first.T.tolist()
    confidences = np.round(decided.ballots.confidence.astype(np.float64), 4).T.tolist()
    voting = decided.ballots.voting.T.tolist()
    confidence = np.round(decided.ranking.confidence.astype(np.float64), 4).tolist()
    propensity = np.round(decided.served.propensity.astype(np.float64), 6).tolist()
    explored = decided.served.explored.tolist()
    deciders = decided.ranking.decider.tolist()
    times = [None if o.seconds is None else round(o.seconds * 1e3, 3) for o in outcomes]
    providers, names, refs = snapshot.table.providers, snapshot.model_names, snapshot.table.refs
    answers = []
    for row, request in enumerate(prepared.requests):
        analysis = prepared.analyses[row]
        ranked = [
            {
                "provider": providers[column],
                "model": names[column],
                "score": score,
                "expected": {
                    "success": success,
                    "success_low": low,
                    "success_high": high,
                    "cost_usd": cost,
                    "latency_ms": latency,
                },
            }
            for column, (success, low, high, cost, latency, score) in zip(
                columns[row][: min(candidate_counts[row], snapshot.max_alternatives + 1)], numbers[row], strict=False
            )
        ]
        chosen = ranked[0]
        answers.append(
            {
                "decision_id": ids[row][0],
                "episode_id": ids[row][1],
                "provider": chosen["provider"],
                "model": chosen["model"],
                "persona": persona_for(request.request, analysis),
                "confidence": confidence[row],
                "expected": chosen["expected"],
                "strategy_used": decided.ballots.strategies[deciders[row]],
                "collapse_strategy": decided.collapse,
                "collapse_reasoning": sentence(decided, row, refs),
                "explored": explored[row],
                "propensity": propensity[row],
                "alternatives": ranked[1:],
                "excluded": [e.model_dump() for e in prepared.gated.exclusions(row, request)]
                if candidate_counts[row] < len(refs)
                else [],
                "thread_results": [
                    {
                        "strategy": outcome.strategy,
                        "status": outcome.status,
                        "model": refs[firsts[row][s]] if voting[row][s] else None,
                        "confidence": confidences[row][s] if voting[row][s] else None,
                        "execution_time_ms": times[s],
                    }
                    for s, outcome in enumerate(outcomes)
                    if was_asked(request.quantum_config.strategies, outcome.strategy)
                ],
                "complexity": {"score": round(analysis.complexity, 4), "level": analysis.level},
                "context_type": analysis.context_type,
                "cache": "bypass" if request.quantum_config.cache == "bypass" else "miss",
                "policy_version": snapshot.policy_version,
                "config_version": snapshot.config_version,
                "experiment": None,
                "degraded": degradations(request.quantum_config.strategies, outcomes),
            }
        )
    return answers


def was_asked(requested: Sequence[str] | None, strategy: str) -> bool:
    """Whether a request wanted this strategy's opinion."""
    return requested is None or strategy in requested


def degradations(requested: Sequence[str] | None, outcomes: Sequence[ThreadOutcome]) -> list[str]:
    """What should have worked for a request and did not."""
    statuses = {outcome.status for outcome in outcomes if was_asked(requested, outcome.strategy)}
    reasons: Mapping[str, str] = {"TIMEOUT": "deadline", "FAILED": "strategy"}
    return [reason for status, reason in reasons.items() if status in statuses]


def sentence(decided: Decided, row: int, refs: Sequence[str]) -> str:
    """Say in one true sentence how the collapse came to its decision."""
    ranking = decided.ranking
    winner = refs[ranking.order[row, 0]]
    reaching = int(decided.reaching[row])
    if reaching > 0:
        said = f"{winner} is the cheapest of {reaching} candidates that surely reach the quality floor"
    else:
        said = _how_it_won(decided, row, winner)
        if reaching == 0:
            said = f"no candidate surely reaches the quality floor; {winner} comes closest"
    if decided.served.explored[row]:
        said += f"; to learn, {refs[decided.served.column[row]]} is tried instead"
    return said + "."


def _how_it_won(decided: Decided, row: int, winner: str) -> str:
    ranking = decided.ranking
    decider = decided.ballots.strategies[ranking.decider[row]]
    share = f"{ranking.support[row]} of {ranking.voters[row]} strategies put it first"
    match decided.collapse:
        case "best_score":
            return f"{winner} is the choice of {decider}, the most confident strategy; {share}"
        case "first_success":
            return f"{winner} is the choice of {decider}, the first strategy to answer"
        case "consensus":
            kind = "a majority agrees on" if ranking.majority[row] else "no majority, and the weighted mean prefers"
            return f"{kind} {winner}; {share}"
        case "combined":
            return f"{winner} has the best mean rank; {share}"
        case _:
            return f"{winner} has the highest weighted utility; {share}"


def _chain(decided: Decided) -> NDArray[np.int64]:
    """(B, M) the served model first, then the ranking without it."""
    order, column = decided.ranking.order, decided.served.column
    keyed = np.where(order == column[:, None], -1, np.arange(order.shape[1]))
    return np.take_along_axis(order, np.argsort(keyed, axis=1, kind="stable"), axis=1)


def _numbers(prepared: Prepared, decided: Decided, order: NDArray[np.int64]) -> list[list[list[float]]]:
    """Success, low, high, USD, milliseconds and utility of every model, in the order of the chain."""
    batch, estimates = prepared.batch, decided.estimates
    success = np.stack([estimates.success, estimates.low, estimates.high], axis=-1).astype(np.float64).round(4)
    cost = prepared.gated.cost_usd.round(8)
    latency = (batch.latency_s.astype(np.float64) * 1e3).round(1)
    utility = decided.ranking.utility.astype(np.float64).round(4)
    stacked = np.concatenate([success, cost[..., None], latency[..., None], utility[..., None]], axis=-1)
    numbers: list[list[list[float]]] = np.take_along_axis(stacked, order[..., None], axis=1).tolist()
    return numbers
