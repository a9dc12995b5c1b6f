"""Writing decisions down: from the arrays of a batch to answers in contract form, one true sentence included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.core.complexity import persona_for
from monkey_coder.lean_values import lean
from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.collapse_strategies import Ballots, Ranking
from monkey_coder.quantum.exploration import Served
from monkey_coder.quantum.preparation import Prepared
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.thread_manager import ThreadOutcome
from monkey_coder.quantum.told_models import CONFIDENCE_DIGITS, described, figures, rounded, split, thread_result

Answer = dict[str, Any]
"""A decision as the fields of `monkey_coder.models.RoutingDecision`."""

_BROKEN: Final[Mapping[str, str]] = {"TIMEOUT": "deadline", "FAILED": "strategy"}


@lean
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

    def take(self, rows: Sequence[int]) -> Estimates:
        """The estimates for some of the requests."""
        return Estimates(self.success[rows], self.low[rows], self.high[rows])


@lean
class Decided:
    """All that the answers of one group of requests are made from; rows as in `prepared.batch`.

    Attributes:
        collapse: Name of the collapse.
        ballots: What the strategies said.
        ranking: What the collapse made of it.
        served: What is served, after exploration.
        estimates: What is expected of every model.
        reaching: (B,) how many candidates surely reach the quality floor; -1 where there is none.
        stays: (B,) whether a session keeps its model although another has the higher utility.
    """

    collapse: str
    ballots: Ballots
    ranking: Ranking
    served: Served
    estimates: Estimates
    reaching: IntArray
    stays: BoolArray


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
    ranking, served, ballots = decided.ranking, decided.served, decided.ballots
    refs = snapshot.table.refs
    names = split(refs)
    order = _chain(decided, snapshot.max_alternatives)
    chains: list[list[int]] = order.tolist()
    batch, estimates = prepared.batch, decided.estimates
    expectations = (estimates.success, estimates.low, estimates.high, batch.latency_s, ranking.utility)
    told = figures(expectations, prepared.gated.cost_usd, order)
    counts: list[int] = batch.choices.tolist()
    ranked: list[list[int]] = ranking.order[:, :2].tolist()
    sure, *sure_alone = rounded(np.concatenate([ranking.confidence[None], ballots.confidence]), CONFIDENCE_DIGITS)
    tallies = zip(
        ranking.decider.tolist(),
        ranking.support.tolist(),
        ranking.voters.tolist(),
        decided.reaching.tolist(),
        decided.stays.tolist(),
        sure,
        served.explored.tolist(),
        rounded(served.propensity, 6),
        strict=True,
    )
    threads = _thread_results(ballots, ranking, outcomes, refs, sure_alone)
    degraded_by_all = degradations(None, outcomes)
    answers: list[Answer] = []
    for row, (decider, support, voters, reaching, stays, confidence, explored, propensity) in enumerate(tallies):
        request, analysis = prepared.requests[row], prepared.analyses[row]
        options = request.quantum_config
        chain = [names[column] for column in chains[row][: counts[row]]]
        chosen, *alternatives = described(chain, told[row])
        answers.append(
            {
                "decision_id": ids[row][0],
                "episode_id": ids[row][1],
                "provider": chosen["provider"],
                "model": chosen["model"],
                "persona": persona_for(request.request, analysis),
                "confidence": confidence,
                "expected": chosen["expected"],
                "strategy_used": ballots.strategies[decider],
                "collapse_strategy": decided.collapse,
                "collapse_reasoning": sentence(
                    decided.collapse,
                    refs[ranked[row][0]],
                    ballots.strategies[decider],
                    support,
                    voters,
                    reaching,
                    refs[ranked[row][-1]] if stays else None,
                    refs[chains[row][0]] if explored else None,
                ),
                "explored": explored,
                "propensity": propensity,
                "alternatives": alternatives,
                "excluded": [exclusion.model_dump() for exclusion in prepared.gated.exclusions(row, request)]
                if counts[row] < len(refs)
                else [],
                "thread_results": threads[row]
                if options.strategies is None
                else [result for result in threads[row] if result["strategy"] in options.strategies],
                "complexity": {"score": round(analysis.complexity, 4), "level": analysis.level},
                "context_type": analysis.context_type,
                "cache": "bypass" if options.cache == "bypass" else "miss",
                "policy_version": snapshot.policy_version,
                "config_version": snapshot.config_version,
                "experiment": None,
                "degraded": list(degraded_by_all)
                if options.strategies is None
                else degradations(options.strategies, outcomes),
            }
        )
    return answers


def _thread_results(
    ballots: Ballots,
    ranking: Ranking,
    outcomes: Sequence[ThreadOutcome],
    refs: Sequence[str],
    confidence: Sequence[Sequence[float]],
) -> list[list[dict[str, Any]]]:
    """What every strategy did, for each row; `confidence` is theirs, rounded, in lists of the rows'."""
    about = [
        (strategy, status, None if seconds is None else round(seconds * 1e3, 3))
        for strategy, status, _, seconds, _, _ in outcomes
    ]
    firsts: list[list[int]] = ranking.first.T.tolist()
    voting: list[list[bool]] = ballots.voting.T.tolist()
    return [
        [
            {
                "strategy": strategy,
                "status": status,
                "model": refs[first] if votes else None,
                "confidence": sure if votes else None,
                "execution_time_ms": time_ms,
            }
            for (strategy, status, time_ms), first, votes, sure in zip(about, *row, strict=True)
        ]
        for row in zip(firsts, voting, zip(*confidence, strict=True), strict=True)
    ]


def silent_results(requested: Sequence[str] | None, outcomes: Sequence[ThreadOutcome]) -> list[dict[str, Any]]:
    """What the strategies did that a request asked, when none of them gave it an opinion."""
    return [
        thread_result(outcome.strategy, outcome.status, _milliseconds(outcome), None, None)
        for outcome in outcomes
        if was_asked(requested, outcome.strategy)
    ]


def _milliseconds(outcome: ThreadOutcome) -> float | None:
    return None if outcome.seconds is None else round(outcome.seconds * 1e3, 3)


def was_asked(requested: Sequence[str] | None, strategy: str) -> bool:
    """Whether a request wanted this strategy's opinion."""
    return requested is None or strategy in requested


def degradations(requested: Sequence[str] | None, outcomes: Sequence[ThreadOutcome]) -> list[str]:
    """What should have worked for a request and did not."""
    asked = outcomes if requested is None else [outcome for outcome in outcomes if outcome.strategy in requested]
    statuses = {outcome.status for outcome in asked}
    return [reason for status, reason in _BROKEN.items() if status in statuses]


def sentence(
    collapse: str,
    winner: str,
    decider: str,
    support: int,
    voters: int,
    reaching: int,
    instead_of: str | None,
    tried_instead: str | None,
) -> str:
    """Say in one true sentence how the collapse came to its decision.

    Args:
        collapse: Its name.
        winner: Ref of the model that it put first.
        decider: The strategy that carried the decision.
        support: How many strategies put the winner first.
        voters: How many strategies voted.
        reaching: How many candidates surely reach the quality floor; -1 where there is none.
        instead_of: Ref of the model that would have won, had the session not kept its own.
        tried_instead: Ref of the model that exploration serves instead of the winner.
    """
    share = f"{support} of {voters} strategies put it first"
    if instead_of:
        said = f"the session stays with {winner}: {instead_of} is not better by more than switching costs"
    elif reaching > 0:
        said = f"{winner} is the cheapest of {reaching} candidates that surely reach the quality floor"
    elif reaching == 0:
        said = f"no candidate surely reaches the quality floor; {winner} comes closest"
    elif collapse == "best_score":
        said = f"{winner} is the choice of {decider}, the most confident strategy; {share}"
    elif collapse == "first_success":
        said = f"{winner} is the choice of {decider}, the first strategy to answer"
    elif collapse == "combined":
        said = f"{winner} has the best mean rank; {share}"
    elif collapse == "consensus" and 2 * support > voters:
        said = f"a majority agrees on {winner}; {share}"
    elif collapse == "consensus":
        said = f"there is no majority, and {winner} leads among the models named most often; {share}"
    else:
        said = f"{winner} has the highest weighted utility; {share}"
    return f"{said}; to learn, {tried_instead} is tried instead." if tried_instead else f"{said}."


def _chain(decided: Decided, length: int) -> NDArray[np.int64]:
    """(B, K) the served model first, then the ranking without it, as far as answers tell of it."""
    order = decided.ranking.order
    if decided.served.column.tolist() != order[:, 0].tolist():  # in a third of the time of arrays
        keyed = np.where(order == decided.served.column[:, None], -1, np.arange(order.shape[1]))
        order = order[np.arange(len(order))[:, None], np.argsort(keyed, axis=1, kind="stable")]
    return order[:, : length + 1]
