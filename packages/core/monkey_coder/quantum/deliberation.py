"""Gathers what the decisions of a batch were made from, for those who log and explain them."""

from __future__ import annotations

from collections.abc import Sequence

from monkey_coder.ports import Deliberation, FloatArray, IntArray
from monkey_coder.quantum.answers import Decided
from monkey_coder.quantum.preparation import Prepared
from monkey_coder.quantum.thread_manager import ThreadOutcome


def deliberation(
    prepared: Prepared,
    decided: Decided,
    outcomes: Sequence[ThreadOutcome],
    rows: Sequence[int] | None,
    last: IntArray,
    bonus: FloatArray,
) -> Deliberation:
    """Refer to everything that led to the decisions; next to nothing is copied.

    Args:
        prepared: The batch.
        decided: Its decisions.
        outcomes: What each strategy did in the fan-out, in the order of the ballots.
        rows: Where in the fan-out the requests of this batch stood; None: it was this batch.
        last: (B,) column that each session used last, -1 where there is none.
        bonus: (B, M) what each request said for and against providers.
    """
    gated, ballots, ranking = prepared.gated, decided.ballots, decided.ranking
    return Deliberation(
        preferences=[request.preferences for request in prepared.requests],
        exclusions=gated.codes,
        input_tokens=gated.input_tokens,
        output_tokens=gated.output_tokens,
        usd=gated.cost_usd,
        budget_usd=gated.budget_usd,
        last=last,
        stays=decided.stays,
        bonus=bonus,
        strategies=ballots.strategies,
        utility=ballots.utility,
        chances=tuple([_chances(outcome, rows) for outcome in outcomes]),
        confidence=ballots.confidence,
        reliability=ballots.reliability,
        voting=ballots.voting,
        arrival=ballots.arrival,
        success=decided.estimates.success,
        low=decided.estimates.low,
        high=decided.estimates.high,
        collapsed=ranking.utility,
        order=ranking.order,
        first=ranking.first,
    )


def _chances(outcome: ThreadOutcome, rows: Sequence[int] | None) -> FloatArray | None:
    if outcome.scores is None or outcome.scores.success is None:
        return None
    return outcome.scores.success if rows is None else outcome.scores.success[rows]
