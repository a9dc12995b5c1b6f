"""From the events of a batch to the bytes of its decisions, in the thread that writes the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import TASK_TYPES, Preferences
from monkey_coder.ports import DecisionEvent, Deliberation, FloatArray, Repeat, RouteBatch
from monkey_coder.quantum.record_bytes import FOLLOWS, Common, Packed, common_bytes, pack, repeated_bytes
from monkey_coder.quantum.record_layout import MARKS, PER_MODEL, SCALARS, Layout
from monkey_coder.quantum.state_encoder import ENCODING_VERSION

_ALONE: Final = Layout(0, 0, 0)
_NO_ARRAYS: Final = bytes(4 * _ALONE.sizes[0] + _ALONE.sizes[1])
_UNSAID: Final = tuple(vars(Preferences()).values())
_ran: Final = itemgetter("strategy", "status", "execution_time_ms")


MOST_REPEATED: Final = 1_024
"""Answers from the cache whose bytes are kept, of about four kilobytes each: few have most of the hits."""

_REPEATED: Final = ("decision_id", "episode_id", "cache", "propensity", "degraded", "execution_time_ms")
"""What an answer from the cache says for itself."""


def payloads_of(events: Sequence[DecisionEvent], made_at: float) -> list[bytes]:
    """Turn the events of a batch into bytes that `decode` reads.

    Args:
        events: In any order.
        made_at: When they were decided, in seconds since 1970.

    Returns:
        In the order of the events.
    """
    payloads: list[bytes] = []
    for _, together in groupby(events, key=lambda event: id(event.deliberation)):
        same = list(together)
        batch, told = same[0].batch, same[0].deliberation
        if batch is None or told is None:
            payloads += [_alone(event, made_at) for event in same]
        else:
            payloads += _together(same, batch, told, made_at)
    return payloads


def payload_of(repeat: Repeat, made_at: float) -> bytes:
    """Turn an answer from the cache into bytes that `decode` reads; its share of what many have in common is small.

    Args:
        repeat: With its reuse's `shared`.
        made_at: When it was given, in seconds since 1970.
    """
    reuse = repeat.reuse
    shared = b"{}" if reuse.shared is None else reuse.shared
    said = (repeat.decision_id, repeat.episode_id, repeat.tier, 1.0, repeat.degraded, round(repeat.seconds * 1e3, 3))
    own = (said, 0, (), made_at, _UNSAID, reuse.task, 1, 0, 0, None, -1, False, reuse.origin)
    return pack(_repeated(shared), own, _NO_ARRAYS)


@lru_cache(maxsize=MOST_REPEATED)
def _repeated(shared: bytes) -> Packed:
    return repeated_bytes(Common((), (), _ALONE, 0, ENCODING_VERSION, _REPEATED, shared))


def _alone(event: DecisionEvent, made_at: float) -> bytes:
    """An answer that was not decided in a batch, whole."""
    answer, reuse = event.answer, event.reuse
    if reuse is not None:
        task = reuse.task
    else:
        task = "general" if event.batch is None else TASK_TYPES[event.batch.task[event.row]]
    names, said = tuple(answer), list(answer.values())
    own = (
        said,
        0,
        (),
        made_at,
        _UNSAID,
        task,
        1 if event.batch is None else int(event.batch.attempts_left[event.row]),
        0,
        0,
        None,
        -1,
        False,
        None if reuse is None else reuse.origin,
    )
    return pack(common_bytes(Common((), (), _ALONE, 0, ENCODING_VERSION, names)), own, _NO_ARRAYS)


def _together(events: Sequence[DecisionEvent], batch: RouteBatch, told: Deliberation, made_at: float) -> list[bytes]:
    """Answers of one batch, without what follows from its arrays."""
    extra, of_models = _extra(told)
    names, said = _said(tuple(events[0].answer))
    layout = Layout(len(batch.table), len(told.strategies), batch.state.shape[1], extra)
    dimensions = batch.embedding.shape[1]
    common = common_bytes(Common(batch.table.refs, told.strategies, layout, dimensions, ENCODING_VERSION, names))
    arrays = np.concatenate([_numbers(events, batch, told, of_models).view(np.uint8), _marks(batch, told)], axis=1)
    tasks, left, inputs, outputs, budgets, last, stays = (
        each.tolist()
        for each in (
            batch.task,
            batch.attempts_left,
            told.input_tokens,
            told.output_tokens,
            told.budget_usd,
            told.last,
            told.stays,
        )
    )
    return [
        pack(
            common,
            (
                said(answer),
                len(answer["alternatives"]),
                list(map(_ran, answer["thread_results"])),
                made_at,
                tuple(vars(told.preferences[row]).values()),
                TASK_TYPES[tasks[row]],
                left[row],
                inputs[row],
                outputs[row],
                None if budgets[row] == math.inf else budgets[row],
                last[row],
                stays[row],
                None,
            ),
            arrays[row].tobytes(),
        )
        for event in events
        for answer, row in [(event.answer, event.row)]
    ]


@lru_cache(maxsize=8)
def _said(names: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
    """What is kept of an answer as it is: the names, and what reads their values."""
    kept = tuple(name for name in names if name not in FOLLOWS)
    return kept, itemgetter(*kept)


def _extra(told: Deliberation) -> tuple[tuple[str, ...], list[FloatArray]]:
    """What is not the same, or not there, in every batch, and its name: next to nothing is written of the rest."""
    found = {"bonus": told.bonus} if np.count_nonzero(told.bonus) else {}
    votes: list[list[bool]] = told.voting.tolist()
    found |= {f"utility {place}": told.utility[place] for place, voted in enumerate(votes) if any(voted)}
    found |= {f"chances {place}": each for place, each in enumerate(told.chances) if each is not None}
    return tuple(found), list(found.values())


def _numbers(
    events: Sequence[DecisionEvent], batch: RouteBatch, told: Deliberation, extra: Sequence[FloatArray]
) -> FloatArray:
    """(B, floats of the layout)."""
    distribution = np.zeros(batch.candidates.shape, dtype=np.float32)
    for event in events:
        distribution[event.row] = event.distribution
    per_model: dict[str, NDArray[np.generic]] = {
        "prior": batch.success,
        "evidence": batch.evidence,
        "cost_usd": batch.cost_usd,
        "latency_s": batch.latency_s,
        "distribution": distribution,
        "success": told.success,
        "low": told.low,
        "high": told.high,
        "collapsed": told.collapsed,
    }
    scalars: tuple[FloatArray, ...] = tuple(getattr(batch, name)[:, None] for name in SCALARS)
    arrival = np.empty((len(batch), len(told.arrival)), dtype=np.float32)
    arrival[:] = told.arrival
    parts: list[NDArray[np.generic]] = [
        *scalars,
        told.confidence.T,
        told.reliability.T,
        arrival,
        batch.state,
        *(per_model[name] for name in PER_MODEL),
        *extra,
    ]
    numbers: FloatArray = np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
    return numbers


def _marks(batch: RouteBatch, told: Deliberation) -> NDArray[np.uint8]:
    """(B, bytes of the layout)."""
    available = np.empty(batch.candidates.shape, dtype=np.bool_)
    available[:] = batch.table.available
    per_model: dict[str, NDArray[np.generic]] = {
        "usd": told.usd.astype("<f8", copy=False),
        "order": told.order.astype("<u2"),
        "exclusions": told.exclusions,
        "attempts": batch.attempts,
        "available": available,
    }
    first = np.ascontiguousarray(told.first.T, dtype="<u2")
    parts = (*(per_model[name] for name in MARKS), first, np.ascontiguousarray(told.voting.T))
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1)
