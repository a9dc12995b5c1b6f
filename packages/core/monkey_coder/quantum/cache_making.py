"""Which decisions are worth keeping, for how long, and as what: from a decision's event to its entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES
from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.cache_entry import PER_HIT, CachedDecision, availability

HALF_MARGIN: Final = 0.05
"""Margin, in successes, at which half of what can be had for it is had."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long entries live.

    Attributes:
        shortest_s: Of a decision that strategies do not agree on.
        longest_s: Of one that could not be clearer.
        jitter: Every lifetime is drawn within this part above and below, so that entries do not expire together.
    """

    shortest_s: float = 10.0
    longest_s: float = 600.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.shortest_s <= self.longest_s or not 0.0 <= self.jitter < 1.0:
            raise ValueError("shortest_s must be above 0 and not above longest_s, jitter from 0 to below 1")

    def draw(self, stability: float, rng: np.random.Generator) -> float:
        """Seconds that an entry of this stability (0..1) lives."""
        plain: float = self.shortest_s * (self.longest_s / self.shortest_s) ** stability
        return plain * (1.0 + self.jitter * float(rng.uniform(-1.0, 1.0)))


def stability(margin: float, agreement: float, width: float) -> float:
    """How little there is that could soon turn a decision, 0..1.

    Args:
        margin: Utility of the winner minus that of the runner-up, in successes, at least 0.
        agreement: Share of the strategies with an opinion that put the winner first.
        width: Of the interval of the winner's P(success), 0..1: narrow where many outcomes confirm it.
    """
    return agreement * margin / (margin + HALF_MARGIN) * (1.0 - width)


def entry_of(
    event: DecisionEvent, made_at: float, price: float, lifetimes: Lifetimes, rng: np.random.Generator
) -> CachedDecision | None:
    """Make the entry of a decision, or None when it must not be given again.

    Not given again is what was explored, what something was broken for, what an experiment assigned, what a session
    was kept at against the ranking, what the heuristic answered, and calls that are spread over several deployments.

    Args:
        event: The decision.
        made_at: Seconds since 1970.
        price: Price of money by which spend is paced, in successes per USD; 0 without pacing.
        lifetimes: How long entries live.
        rng: For the jitter.
    """
    answer, batch, told, row = event.answer, event.batch, event.deliberation, event.row
    if batch is None or told is None:
        return None
    if answer["explored"] or answer["degraded"] or answer["experiment"] is not None or told.stays[row]:
        return None
    table, winner = batch.table, int(told.order[row][0])
    ref = table.refs[winner]
    if f"{answer['provider']}/{answer['model']}" != ref or _has_twins(table, winner):
        return None
    others = batch.candidates[row].copy()
    others[winner] = False
    best = told.collapsed[row][others].max(initial=-np.inf)
    margin = max(0.0, min(1.0, float(told.collapsed[row, winner]) - float(best)))
    opinions = [thread["model"] for thread in answer["thread_results"] if thread["model"] is not None]
    agreement = opinions.count(ref) / len(opinions) if opinions else 0.0
    steady = stability(margin, agreement, float(told.high[row, winner] - told.low[row, winner]))
    task = int(batch.task[row])
    return CachedDecision(
        origin=answer["decision_id"],
        made_at=made_at,
        expires_at=made_at + lifetimes.draw(steady, rng),
        ref=ref,
        alternatives=tuple(f"{a['provider']}/{a['model']}" for a in answer["alternatives"]),
        unavailable=tuple(e["model"] for e in answer["excluded"] if e["reason"] == "unavailable"),
        had=availability(table),
        task=TASK_TYPES[task],
        margin=margin,
        agreement=agreement,
        policy_version=answer["policy_version"],
        price=price,
        prior=table.success[task],
        answer=_reusable(answer),
    )


def _has_twins(table: ModelTable, column: int) -> bool:
    """Whether a model has other deployments, over which its calls are to be spread."""
    name = table.deployment_of[column] if table.deployment_of else None
    return name is not None and table.deployment_of.count(name) > 1


def _reusable(answer: object) -> bytes:
    """JSON of what all hits say alike; a hit is served for certain."""
    assert isinstance(answer, dict)
    told = {name: value for name, value in answer.items() if name not in PER_HIT}
    return orjson.dumps(told | {"propensity": 1.0})
