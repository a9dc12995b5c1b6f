"""`POST /v1/quantum/feedback` and its batch: checked at once, durable before the answer, learned from soon after."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from monkey_coder.app.problems import INTERNAL, error_response
from monkey_coder.bootstrap import Engine
from monkey_coder.errors import (
    RouterError,
    StoreUnavailableError,
    UnknownDecisionError,
    UnknownModelError,
    UnsupportedMediaTypeError,
)
from monkey_coder.models import FeedbackBatchRequest, FeedbackRequest
from monkey_coder.quantum.decision_log import LIFETIME_S
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.report_groups import Result
from monkey_coder.storage.port import Appended, OutcomeRow
from monkey_coder.validation import from_validation

FEEDBACK_PATH: Final = "/v1/quantum/feedback"
FEEDBACK_BATCH_PATH: Final = "/v1/quantum/feedback/batch"

MOST_ON_LOOP: Final = 4_096
"""Bytes of a batch of reports that are read in the event loop; more are read aside, so that nobody waits for them."""

Body = TypeVar("Body", bound=BaseModel)
Accepted = Appended | RouterError

_ACCEPTED: Final = Response(b'{"accepted":true}', 202, media_type="application/json")
_KNOWN: Final = Response(b'{"accepted":true}', 200, media_type="application/json")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Checked:
    """Reports that were looked at: what is wrong with each, or None; and the rows of those that are good."""

    errors: Sequence[RouterError | None]
    rows: Sequence[OutcomeRow]


async def respond_feedback(body: bytes, content_type: str, engine: Engine, reporter: str) -> Response:
    """Take one report of `reporter`: 202 when it is durable, 200 when it was known already."""
    begun = begin_feedback(body, content_type, engine, reporter)
    return begun if isinstance(begun, Response) else finish_feedback((await engine.reports.store([begun]))[0])


def begin_feedback(body: bytes, content_type: str, engine: Engine, reporter: str) -> OutcomeRow | Response:
    """The row of one report of `reporter`, to be stored; or the response that tells what is wrong with it."""
    try:
        report, now = _read(FeedbackRequest, body, content_type), time.time()
        error = _error(report, engine, now)
        if error is None:
            return outcome_row(report, Reporter(reporter, now))
    except RouterError as unreadable:
        error = unreadable
    engine.metrics.on_feedback(error.code)
    return error_response(error)


def finish_feedback(result: Result) -> Response:
    """What the reporter is told once its report is durable, or could not be stored."""
    accepted = _accepted(result)
    if isinstance(accepted, RouterError):
        return error_response(accepted)
    return _KNOWN if accepted is Appended.DUPLICATE else _ACCEPTED


async def respond_feedback_batch(body: bytes, content_type: str, engine: Engine, reporter: str) -> Response:
    """Take many reports; each gets its own result, in order. 503 when the store failed any: then send all again."""

    def check() -> _Checked:
        return _check(_read(FeedbackBatchRequest, body, content_type).reports, engine, Reporter(reporter, time.time()))

    try:
        checked = await asyncio.to_thread(check) if len(body) > MOST_ON_LOOP else check()
    except RouterError as error:
        engine.metrics.on_feedback(error.code)
        return error_response(error)
    results = await _stored(checked, engine)
    for result in results:
        if isinstance(result, StoreUnavailableError):
            return error_response(result)
    status = 202 if any(isinstance(r, Appended) and r is not Appended.DUPLICATE for r in results) else 200
    return Response(orjson.dumps({"results": [_told(r) for r in results]}), status, media_type="application/json")


def _check(reports: Sequence[FeedbackRequest], engine: Engine, reporter: Reporter) -> _Checked:
    """Check ids and models of reports; may be called from any thread."""
    errors = [_error(report, engine, reporter.now) for report in reports]
    good = (report for report, error in zip(reports, errors, strict=True) if error is None)
    return _Checked(errors, [outcome_row(report, reporter) for report in good])


async def _stored(checked: _Checked, engine: Engine) -> list[Accepted]:
    """Wait until the good ones are durable; returns for each what became of it, or the error that its reporter sees."""
    written = iter(await engine.reports.store(checked.rows) if checked.rows else ())
    for error in checked.errors:
        if error is not None:
            engine.metrics.on_feedback(error.code)
    return [_accepted(next(written)) if error is None else error for error in checked.errors]


def _accepted(result: Result) -> Accepted:
    """The same; of what is not meant for reporters they are told that it happened, and the log of the server why."""
    if isinstance(result, Appended | RouterError):
        return result
    _log.error("a report could not be stored", exc_info=result)
    return RouterError(INTERNAL)


def _error(report: FeedbackRequest, engine: Engine, now: float) -> RouterError | None:
    issued_at = engine.manager.ids.issued_at(report.decision_id)
    if issued_at is None:
        return UnknownDecisionError("this is no decision id of this deployment")
    if now - issued_at > LIFETIME_S:
        return UnknownDecisionError(
            f"outcomes are taken for {LIFETIME_S / 86_400:.0f} days, and that decision is older"
        )
    if report.model is not None:
        refs = engine.manager.snapshot().table.index
        if report.model not in refs and report.model not in engine.following.catalog.retired:
            return UnknownModelError("model", report.model, get_close_matches(report.model, refs, n=3, cutoff=0.6))
    return None


def _read(kind: type[Body], body: bytes, content_type: str) -> Body:
    """Read a body that is declared to be JSON: what a form of some web page can send blindly is not."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error


def _told(result: Accepted) -> dict[str, Any]:
    if isinstance(result, RouterError):
        return {"accepted": False, "problem": result.problem().model_dump()}
    return {"accepted": True, "problem": None}
