"""`GET /v1/quantum/decisions/{id}` and its `/explain`: what was known, why this, why not that, where it would flip."""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from monkey_coder.bootstrap import Engine
from monkey_coder.errors import UnknownModelError
from monkey_coder.models import ModelRef
from monkey_coder.quantum.decision_log import find_decision, recent_precedents
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.decision_views import decision_view
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.explanation import DecisionView, Explanation
from monkey_coder.quantum.replay import Replay

router = APIRouter(prefix="/v1/quantum/decisions")

# All of these wait for the store, and think: as plain functions they run in the thread pool.


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _record(decision_id: Annotated[str, Path()], engine: Annotated[Engine, Depends(_engine)]) -> DecisionRecord:
    return find_decision(decision_id, engine.manager.ids, engine.store, time.time())


RunningEngine = Annotated[Engine, Depends(_engine)]
LoggedDecision = Annotated[DecisionRecord, Depends(_record)]


@router.get("/{decision_id}", summary="What was known, what was chosen, and what else could have been")
def decision(record: LoggedDecision) -> DecisionView:
    """Show a decision of the last 30 days; it is there within a second of its answer, from any process."""
    return decision_view(record)


@router.get("/{decision_id}/explain", summary="Why this model, why not that one, and where the choice would flip")
def explanation(
    record: LoggedDecision,
    engine: RunningEngine,
    instead: Annotated[ModelRef | None, Query(description="The model that was expected instead.")] = None,
) -> Explanation:
    """Explain a decision from its record; flip points come from deciding it again with the strategies of today."""
    snapshot = engine.manager.snapshot()
    known = {*snapshot.table.refs, *record.refs}
    if instead is not None and instead not in known:
        raise UnknownModelError("instead", instead, get_close_matches(instead, known, n=3, cutoff=0.6))
    return explain(
        record,
        Replay(record, snapshot),
        instead,
        lambda embedding, most: recent_precedents(engine.store, embedding, most),
    )
