"""Decides a logged decision again, as often as wanted and with parts of it changed, by the rules of the live engine.

The strategies, the collapse, the quality floor and the session rule are the very ones that decide requests; what the
request was comes from the record. Nothing is explored, and nobody is hurried.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import TASK_TYPES, CollapseName
from monkey_coder.ports import IntArray, RouteBatch, Scores
from monkey_coder.quantum.collapse_strategies import COLLAPSES, Ballots
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.flip_points import NOBODY, Variants
from monkey_coder.quantum.polling import estimate
from monkey_coder.quantum.quality_floor import acceptable, apply_quality_floor
from monkey_coder.quantum.session_affinity import NO_SESSION, stay_or_switch
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import ENCODING_VERSION, StateLayout, encode_preferences
from monkey_coder.quantum.thread_manager import ThreadOutcome

MOST_ROWS: Final = 512
"""Variants decided at a time, which bounds the memory."""

_Number = TypeVar("_Number", bound=np.generic)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replay:
    """One decision, ready to be made again.

    Attributes:
        record: What was known and decided.
        snapshot: The engine as it is now: its strategies decide.
    """

    record: DecisionRecord
    snapshot: EngineSnapshot

    @cached_property
    def obstacle(self) -> str | None:
        """Why this decision cannot be made again; None when it can."""
        record = self.record
        if not record.refs:
            return "the heuristic decided, not the strategies"
        if record.encoding_version != ENCODING_VERSION:
            return (
                f"the request is kept in encoding {record.encoding_version}, "
                f"and the strategies of today read encoding {ENCODING_VERSION}"
            )
        gone = [ref for ref, was in zip(record.refs, record.candidates, strict=True) if was and ref not in self._index]
        if gone:
            return f"the catalog no longer has {', '.join(gone)}"
        if not self._strategies:
            return "none of the strategies that decided exists any more"
        return None

    def deployments_of(self, ref: str) -> frozenset[str]:
        """Refs of all deployments of the same model today, this one included."""
        table = self.snapshot.table
        column = table.index.get(ref)
        members = next((each for each in table.deployments if column is not None and column in each), ())
        return frozenset({ref, *(table.refs[member] for member in members)})

    def winners(self, variants: Variants) -> IntArray:
        """Decide variants of the record.

        Args:
            variants: V of them.

        Returns:
            (V,) the winning column of the record, `NOBODY` where there is no candidate, or no strategy with an opinion.
        """
        columns = np.full(len(variants), NOBODY, dtype=np.int64)
        decidable = np.flatnonzero(variants.candidates.any(axis=1))
        for start in range(0, len(decidable), MOST_ROWS):
            rows = decidable[start : start + MOST_ROWS]
            columns[rows] = self._decide(variants, rows)
        return columns

    @property
    def _index(self) -> dict[str, int]:
        return self.snapshot.table.index

    @cached_property
    def _strategies(self) -> list[int]:
        """Places in the record of the strategies that had a say and are still there."""
        record = self.record
        return [
            place
            for place, name in enumerate(record.strategies)
            if record.voting[place] and name in self.snapshot.strategies
        ]

    @cached_property
    def _columns(self) -> IntArray:
        """(today's models,) the column of each in the record; -1 for one that was not in the catalog."""
        was = {ref: column for column, ref in enumerate(self.record.refs)}
        return np.array([was.get(ref, -1) for ref in self.snapshot.table.refs], dtype=np.int64)

    def _decide(self, variants: Variants, rows: IntArray) -> IntArray:
        batch = self._batch(variants, rows)
        outcomes = [self._ask(self.record.strategies[place], batch) for place in self._strategies]
        ballots = self._ballots(outcomes, batch)
        estimates = estimate(batch, ballots, outcomes)
        ranking = COLLAPSES[cast("CollapseName", self.record.answer["collapse_strategy"])](ballots)
        ranking, reaching = apply_quality_floor(ranking, ballots, estimates, batch)
        winner = ranking.order[:, 0]
        if self.record.last != NO_SESSION:
            held = self._index.get(self.record.refs[self.record.last], NO_SESSION)
            holders = np.where(reaching == 0, batch.candidates.T, acceptable(estimates, batch).T).T
            # The price of a session moves with that of its model.
            tokens = self.record.input_tokens * variants.session_price[rows]
            winner, _ = stay_or_switch(
                winner, np.full(len(batch), held), ranking.utility, holders, cast("IntArray", tokens), batch
            )
        return np.where(ballots.voting.any(axis=0), self._columns[winner], NOBODY)

    def _ask(self, name: str, batch: RouteBatch) -> ThreadOutcome:
        try:
            scores: Scores = self.snapshot.strategies[name].score(batch)
        except Exception:  # noqa: BLE001 - a plug-in may raise anything; as in a live decision it then has no say
            _log.exception("strategy %s failed on a replay", name)
            return ThreadOutcome(name, "FAILED")
        return ThreadOutcome(name, "SUCCESS", scores)

    def _ballots(self, outcomes: list[ThreadOutcome], batch: RouteBatch) -> Ballots:
        record, places = self.record, self._strategies
        shape = (len(places), *batch.candidates.shape)
        utility = np.zeros(shape, dtype=np.float32)
        confidence = np.zeros(shape[:2], dtype=np.float32)
        voting = np.zeros(shape[:2], dtype=np.bool_)
        for row, outcome in enumerate(outcomes):
            if outcome.scores is not None:
                utility[row] = outcome.scores.utility
                confidence[row] = outcome.scores.confidence
                voting[row] = ~outcome.scores.abstains
        utility += self._spread(record.bonus)
        return Ballots(
            strategies=tuple(outcome.strategy for outcome in outcomes),
            utility=utility,
            confidence=confidence,
            reliability=np.broadcast_to(record.reliability[places][:, None], shape[:2]),
            voting=voting,
            arrival=record.arrival[places],
            candidates=batch.candidates,
            cost_usd=batch.cost_usd,
        )

    def _batch(self, variants: Variants, rows: IntArray) -> RouteBatch:
        record, count = self.record, len(rows)
        cost_weight, latency_weight = variants.cost_weight[rows], variants.latency_weight[rows]
        state = np.tile(record.state, (count, 1))
        state[:, StateLayout(record.dimensions).preferences :] = encode_preferences(
            cost_weight,
            latency_weight,
            variants.cost_ref[rows],
            variants.latency_ref[rows],
            variants.quality_floor[rows],
        )

        def each(values: NDArray[_Number]) -> NDArray[_Number]:
            return np.tile(self._spread(values), (count, 1))

        return RouteBatch(
            table=self.snapshot.table,
            state=state,
            embedding=state[:, : record.dimensions],
            model_features=self.snapshot.model_features,
            task=np.full(count, TASK_TYPES.index(record.task), dtype=np.int64),
            complexity=np.full(count, record.complexity, dtype=np.float32),
            candidates=self._spread(variants.candidates[rows]),
            attempts=each(record.attempts),
            attempts_left=np.full(count, record.attempts_left, dtype=np.int64),
            success=each(record.prior),
            evidence=each(record.evidence),
            cost_usd=self._spread(variants.cost_usd[rows]),
            latency_s=each(record.latency_s),
            cost_weight=cost_weight,
            latency_weight=latency_weight,
            quality_floor=variants.quality_floor[rows],
            setback_logits=self.snapshot.setback_logits,
        )

    def _spread(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """From the columns of the record to those of today's table, along the last axis; 0 for new models."""
        there: NDArray[_Number] = values[..., np.maximum(self._columns, 0)]
        there[..., self._columns < 0] = 0
        return there
