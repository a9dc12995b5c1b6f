"""One report as the store keeps it: everything the reporter said, who it was, and when it came."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import ErrorType, FeedbackRequest
from monkey_coder.storage.port import OutcomeRow

DECIDED_MODEL: Final = ""
"""Stands in a row for the decided model, which the reporter did not name and this process need not know yet."""

ANONYMOUS: Final = "anonymous"
"""The reporter, while there are no API keys."""


@checked_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class OutcomeRecord:
    """A report.

    Attributes:
        reporter: Whose word it is.
        received_at: When it came, in seconds since 1970.
        success: Whether the answer was good.
        quality: How good, 0..1.
        cost_usd: What it cost.
        latency_ms: How long the call took.
        input_tokens: Of prompt and files.
        output_tokens: Of the answer.
        error_type: Why there was no answer.
        final: Whether the episode ends here.
    """

    reporter: str
    received_at: float
    success: bool | None = None
    quality: float | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error_type: ErrorType | None = None
    final: bool = False

    @property
    def score(self) -> float | None:
        """What P(success) is learned from, 0..1; None where nothing was said about quality.

        An error with no success beside it tells of availability alone.
        """
        if self.success is None:
            return self.quality if self.error_type is None else None
        if not self.success and self.error_type is not None:
            return None
        return float(self.success)

    def encode(self) -> bytes:
        """The payload of its row."""
        return _encoded(self.reporter, self.received_at, self)

    @classmethod
    def decode(cls, payload: bytes) -> OutcomeRecord:
        """Read the payload of a row.

        Raises:
            StoreFormatError: The bytes are damaged or foreign.
        """
        try:
            return _ADAPTER.validate_json(payload)
        except ValidationError as error:
            raise StoreFormatError(f"a logged outcome cannot be read: {error}") from error


_ADAPTER: Final = TypeAdapter(OutcomeRecord)
_SAID: Final = tuple(each.name for each in fields(OutcomeRecord) if each.name not in ("reporter", "received_at"))


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports, and when: what a report does not say itself.

    Attributes:
        name: Of the API key, or `ANONYMOUS`.
        now: Seconds since 1970.
    """

    name: str
    now: float


def outcome_row(report: FeedbackRequest, reporter: Reporter) -> OutcomeRow:
    """The row of a report. A time in the future counts as now: it must not outlast all corrections."""
    occurred_at = report.occurred_at_s
    return OutcomeRow(
        decision_id=report.decision_id,
        model=DECIDED_MODEL if report.model is None else report.model,
        occurred_at=reporter.now if occurred_at is None else min(occurred_at, reporter.now),
        payload=_encoded(reporter.name, reporter.now, report),
        outcome_id=None if report.outcome_id is None else f"{reporter.name}:{report.outcome_id}",
    )


def _encoded(reporter: str, received_at: float, said: FeedbackRequest | OutcomeRecord) -> bytes:
    told = {name: value for name in _SAID if (value := getattr(said, name)) is not None}
    return orjson.dumps({"reporter": reporter, "received_at": received_at, **told})
