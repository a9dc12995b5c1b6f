"""What the engine would serve on logged decisions with another policy, or with none; by the rules of the live engine.

The strategies, the collapse and the quality floor are the very ones that decide requests; what a request was comes from
its record, and so does how far each strategy was trusted. Nothing is explored, and nobody is hurried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES, CollapseName
from monkey_coder.ports import FloatArray, IntArray, RouteBatch, Strategy
from monkey_coder.quantum.collapse_strategies import COLLAPSES, Ballots
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.polling import estimate
from monkey_coder.quantum.quality_floor import apply_quality_floor
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.thread_manager import ThreadOutcome

NOBODY: Final = -1
"""In place of a column, where no strategy had a say or no model was eligible."""

_BATCH: Final = 256


@dataclass(frozen=True, eq=False)
class Chooser:
    """The engine with one policy.

    Attributes:
        table: The models.
        strategies: Bound to the table, by name.
    """

    table: ModelTable
    strategies: Mapping[str, Strategy]

    @classmethod
    def of(cls, table: ModelTable, bundle: PolicyBundle | None) -> Self:
        """Build it.

        Args:
            table: The models.
            bundle: The policy; None: the engine without one.
        """
        if bundle is None:
            return cls(table, configured_strategies(None, None))
        policy = ServedPolicy.bind(bundle.parts, table.refs, encode_models(table))
        return cls(table, configured_strategies(policy, bundle.memory))

    def choose(self, records: Sequence[DecisionRecord]) -> IntArray:
        """(R,) the column of the table that would be served on each of R records of one state size, or `NOBODY`."""
        chosen = np.full(len(records), NOBODY, dtype=np.int64)
        by_collapse: dict[str, list[int]] = {}
        for row, record in enumerate(records):
            by_collapse.setdefault(str(record.answer["collapse_strategy"]), []).append(row)
        for collapse, rows in by_collapse.items():
            if collapse not in COLLAPSES:  # the heuristic decided, or another release
                continue
            for start in range(0, len(rows), _BATCH):
                here = rows[start : start + _BATCH]
                chosen[here] = self._decide([records[row] for row in here], cast("CollapseName", collapse))
        return chosen

    def _decide(self, records: Sequence[DecisionRecord], collapse: CollapseName) -> IntArray:
        batch = batch_of(records, self.table)
        outcomes = [ThreadOutcome(name, "SUCCESS", each.score(batch)) for name, each in self.strategies.items()]
        shape = (len(outcomes), *batch.candidates.shape)
        utility = np.empty(shape, dtype=np.float32)
        confidence, voting = np.empty(shape[:2], dtype=np.float32), np.empty(shape[:2], dtype=np.bool_)
        for place, outcome in enumerate(outcomes):
            assert outcome.scores is not None
            utility[place], confidence[place] = outcome.scores.utility, outcome.scores.confidence
            voting[place] = ~outcome.scores.abstains
        bonus = in_columns([(record.refs, record.bonus) for record in records], self.table.refs)
        ballots = Ballots(
            strategies=tuple(self.strategies),
            utility=np.nan_to_num(utility) + bonus.astype(np.float32),
            confidence=np.nan_to_num(confidence),
            reliability=self._reliability(records),
            voting=voting,
            arrival=np.arange(len(outcomes)),
            candidates=batch.candidates,
            cost_usd=batch.cost_usd,
        )
        ranking, _ = apply_quality_floor(
            COLLAPSES[collapse](ballots), ballots, estimate(batch, ballots, outcomes), batch
        )
        decided = batch.candidates.any(axis=1) & ballots.voting.any(axis=0)
        return np.where(decided, ranking.order[:, 0], NOBODY)

    def _reliability(self, records: Sequence[DecisionRecord]) -> FloatArray:
        """(N, B) as it was when each decision was made; 1 for a strategy that was not there."""
        known = [dict(zip(record.strategies, record.reliability.tolist(), strict=True)) for record in records]
        return np.array([[row.get(name, 1.0) for row in known] for name in self.strategies], dtype=np.float32)


def batch_of(records: Sequence[DecisionRecord], table: ModelTable) -> RouteBatch:
    """The requests of logged decisions of one state size as a batch; models that were not in the catalog are out."""

    def each(name: str) -> FloatArray:
        return in_columns([(record.refs, getattr(record, name)) for record in records], table.refs).astype(np.float32)

    def one(name: str) -> FloatArray:
        return np.array([getattr(record, name) for record in records], dtype=np.float32)

    state = np.array([record.state for record in records], dtype=np.float32)
    return RouteBatch(
        table=table,
        state=state,
        embedding=np.array([record.embedding for record in records], dtype=np.float32),
        model_features=encode_models(table),
        task=np.array([TASK_TYPES.index(record.task) for record in records], dtype=np.int64),
        complexity=one("complexity"),
        candidates=each("candidates") > 0.5,
        attempts=each("attempts").astype(np.int8),
        attempts_left=np.array([record.attempts_left for record in records], dtype=np.int64),
        success=each("prior"),
        evidence=each("evidence"),
        cost_usd=each("cost_usd"),
        latency_s=each("latency_s"),
        cost_weight=one("cost_weight"),
        latency_weight=one("latency_weight"),
        quality_floor=one("quality_floor"),
    )


def in_columns(
    rows: Sequence[tuple[tuple[str, ...], NDArray[Any]]], refs: Sequence[str], otherwise: float = 0.0
) -> NDArray[np.float64]:
    """Lay values per model of rows, each with its own models, under the columns of one table.

    Args:
        rows: R pairs of model refs and values, as many of each.
        refs: M model refs, the columns.
        otherwise: For models that a row does not have.

    Returns:
        (R, M).
    """
    places: dict[tuple[str, ...], tuple[IntArray, IntArray]] = {}
    laid = np.full((len(rows), len(refs)), otherwise, dtype=np.float64)
    column = {ref: place for place, ref in enumerate(refs)}
    for row, (models, values) in enumerate(rows):
        if models not in places:
            there = [(place, column[ref]) for place, ref in enumerate(models) if ref in column]
            both = np.array(there, dtype=np.int64).reshape(-1, 2)
            places[models] = (both[:, 0], both[:, 1])
        source, target = places[models]
        laid[row, target] = values[source]
    return laid
