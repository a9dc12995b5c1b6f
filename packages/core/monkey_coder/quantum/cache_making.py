"""Which decisions are worth keeping, for how long, and as what: from a decision's event to its entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES
from monkey_coder.ports import DecisionEvent, Deliberation, RouteBatch
from monkey_coder.quantum.cache_entry import PER_HIT, CachedDecision, availability
from monkey_coder.quantum.cache_lifetimes import Lifetimes

FloatArray = NDArray[np.floating[Any]]

HALF_MARGIN: Final = 0.05
"""Margin, in successes, at which half of what can be had for it is had."""


def stability(margin: FloatArray, agreement: FloatArray, width: FloatArray) -> FloatArray:
    """How little there is that could soon turn decisions, 0..1 each.

    Args:
        margin: Utility of the winner minus that of the runner-up, in successes, at least 0.
        agreement: Share of the strategies with an opinion that put the winner first.
        width: Of the interval of the winner's P(success), 0..1: narrow where many outcomes confirm it.
    """
    return np.asarray(agreement * margin / (margin + HALF_MARGIN) * (1.0 - width))


def entries_of(
    events: Sequence[DecisionEvent], made_at: float, price: float, lifetimes: Lifetimes, rng: np.random.Generator
) -> dict[str, CachedDecision]:
    """Make the entries of decisions, by their ids; those are missing that must not be given again.

    Not given again is what was explored, what something was broken for, what an experiment assigned, what a session
    was kept at against the ranking, what the heuristic answered, and calls that are spread over several deployments.

    Args:
        events: The decisions.
        made_at: Seconds since 1970.
        price: Price of money by which spend is paced, in successes per USD; 0 without pacing.
        lifetimes: How long entries live.
        rng: For the jitter.
    """
    made: dict[str, CachedDecision] = {}
    for _, together in groupby(events, key=lambda event: id(event.deliberation)):
        same = list(together)
        batch, told = same[0].batch, same[0].deliberation
        if batch is not None and told is not None:
            made |= _made(same, batch, told, made_at, price, lifetimes, rng)
    return made


def _made(
    events: Sequence[DecisionEvent],
    batch: RouteBatch,
    told: Deliberation,
    made_at: float,
    price: float,
    lifetimes: Lifetimes,
    rng: np.random.Generator,
) -> dict[str, CachedDecision]:
    table, rows = batch.table, np.arange(len(batch))
    winners = told.order[:, 0]
    rivals = np.where(batch.candidates, told.collapsed, -np.inf)
    rivals[rows, winners] = -np.inf
    margins = np.clip(told.collapsed[rows, winners] - rivals.max(axis=1), 0.0, 1.0)
    agreements = np.zeros(len(batch))
    for event in events:
        agreements[event.row] = _agreement(event.answer, table.refs[winners[event.row]])
    width = told.high[rows, winners] - told.low[rows, winners]
    lives = lifetimes.drawn(stability(margins, agreements, width), rng)
    had = availability(table)
    priors = {task: table.success[task].copy() for task in set(batch.task.tolist())}
    chains: list[list[int]] = told.order.tolist()
    tasks: list[int] = batch.task.tolist()
    stays: list[bool] = told.stays.tolist()
    made = {}
    for event in events:
        answer, row = event.answer, event.row
        winner, *others = (table.refs[column] for column in chains[row][: 1 + len(answer["alternatives"])])
        if answer["explored"] or answer["degraded"] or answer["experiment"] is not None or stays[row]:
            continue
        if f"{answer['provider']}/{answer['model']}" != winner or _has_twins(table, chains[row][0]):
            continue
        made[answer["decision_id"]] = CachedDecision(
            origin=answer["decision_id"],
            made_at=made_at,
            expires_at=made_at + lives[row],
            ref=winner,
            alternatives=tuple(others),
            unavailable=tuple(e["model"] for e in answer["excluded"] if e["reason"] == "unavailable"),
            had=had,
            task=TASK_TYPES[tasks[row]],
            margin=float(margins[row]),
            agreement=float(agreements[row]),
            policy_version=answer["policy_version"],
            price=price,
            prior=priors[tasks[row]],
            answer=orjson.dumps({name: value for name, value in answer.items() if name not in PER_HIT}),
        )
    return made


def _agreement(answer: Mapping[str, Any], winner: str) -> float:
    """Share of the strategies with an opinion that put the winner first."""
    opinions = [thread["model"] for thread in answer["thread_results"] if thread["model"] is not None]
    return opinions.count(winner) / len(opinions) if opinions else 0.0


def _has_twins(table: ModelTable, column: int) -> bool:
    """Whether a model has other deployments, over which its calls are to be spread."""
    name = table.deployment_of[column] if table.deployment_of else None
    return name is not None and table.deployment_of.count(name) > 1
