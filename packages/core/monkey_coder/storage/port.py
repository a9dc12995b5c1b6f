"""The one port to everything that outlives a process.

Bytes go in and bytes come out; encoding lives above. Times are seconds since 1970. Every method is synchronous
and may wait for a disk or a network: call it from a thread, never from an event loop. A store may be shared by
threads, but not carried over a fork. Every method may raise `StoreUnavailableError` (try again later; what was
asked may or may not have been done) and `StoreFormatError` (what is stored is damaged or foreign); only other
errors are listed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

SCHEMA_VERSION: Final = 1
"""Raised whenever what is stored would be read wrongly by older code."""

Place = tuple[float, str]
"""Where an iteration over decisions stands: time and id of the last row seen."""

BEGINNING: Final[Place] = (-math.inf, "")
START: Final = "0"
"""The position before the first outcome."""

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One logged decision.

    Attributes:
        id: Of the decision; unique.
        time_s: When it was made; a finite number.
        payload: Whatever the caller wants back.
    """

    id: str
    time_s: float
    payload: bytes

    @property
    def place(self) -> Place:
        """What to continue an iteration from."""
        return (self.time_s, self.id)


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One report about a decision.

    Attributes:
        decision_id: The decision it is about; that one need not be logged yet.
        model: Ref of the model that answered.
        occurred_at: When it happened; a finite number. Orders reports of one identity.
        payload: Whatever the caller wants back.
        outcome_id: The reporter's own name for this report, or None. It counts once in the whole store, so a
            caller who serves reporters that do not know of each other puts the reporter's name in front.
    """

    decision_id: str
    model: str
    occurred_at: float
    payload: bytes
    outcome_id: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.occurred_at):
            raise ValueError(f"occurred_at must be a finite number, is {self.occurred_at}")

    @property
    def identity(self) -> str:
        """What makes two reports one: the reporter's name for it or, without one, decision and model."""
        if self.outcome_id is not None:
            return f"o{self.outcome_id}"
        return f"d{len(self.decision_id)}:{self.decision_id}{self.model}"

    @property
    def key(self) -> tuple[str, bytes]:
        """What tells it from every other report, those of the same identity included."""
        return self.identity, self.payload


class Appended(StrEnum):
    """What became of a report.

    Attributes:
        NEW: It is the first of its identity.
        REPLACED: It takes the place of an earlier report, which stays in the log.
        LATE: A report of the same or a later time stands; this one is only logged.
        DUPLICATE: It is known already; nothing changed.
    """

    NEW = "new"
    REPLACED = "replaced"
    LATE = "late"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class StreamedOutcome:
    """An outcome on its way to those who learn from it.

    Attributes:
        position: Place in the stream; opaque, ordered only by the stream itself.
        row: The report.
        replaces: The report that counted until this one came, to be unlearned; None for the first.
    """

    position: str
    row: OutcomeRow
    replaces: OutcomeRow | None = None


@dataclass(frozen=True, slots=True)
class PolicyCard:
    """A stored policy without its weights.

    Attributes:
        number: From 1 upwards; never used twice.
        time_s: When it was stored.
        card: The caller's description.
    """

    number: int
    time_s: float
    card: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a named value.

    Attributes:
        version: From 1 upwards.
        time_s: When it was stored.
        value: Whatever the caller wants back.
    """

    version: int
    time_s: float
    value: bytes


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept; whichever bound is met first holds.

    Attributes:
        max_decisions: Rows of the decision log.
        max_decision_age_s: By the time of the decision.
        max_outcomes: Rows of the outcome log. What is dropped is lost to readers that had not come so far.
        max_outcome_age_s: By the time of arrival. An outcome id that old counts as new again.
        policies: Newest policies; the current one is kept beyond them.
    """

    max_decisions: int = 1_000_000
    max_decision_age_s: float = 30 * _DAY_S
    max_outcomes: int = 2_000_000
    max_outcome_age_s: float = 90 * _DAY_S
    policies: int = 10


class DecisionLog(Protocol):
    """Decisions, to be looked up by id and read in order of time."""

    def append_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Store rows; one whose id is known changes nothing. A crash may lose those of the last second.

        Raises:
            ValueError: A row cannot be stored (time not finite, id not encodable); none was.
        """
        ...

    def decision(self, decision_id: str) -> bytes | None:
        """Return the payload, or None where there is no such decision (yet, or any more)."""
        ...

    def decision_payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """Return the payloads of many decisions by their ids, without those that are not there (yet, or any more)."""
        ...

    def recent_decisions(self, since_s: float, limit: int) -> Sequence[DecisionRow]:
        """Return the newest decisions made at `since_s` or later, newest first."""
        ...

    def decisions(self, after: Place, limit: int) -> Sequence[DecisionRow]:
        """Return up to `limit` decisions after a place, ordered by (time, id).

        Continue from the last row's `place`; empty means that there is no more. Rows may be logged some
        seconds late, and out of order: who follows the log should stay that far behind.
        """
        ...


class OutcomeLog(Protocol):
    """Reports about decisions, and the ordered stream of those that count."""

    def append_outcomes(self, rows: Sequence[OutcomeRow]) -> Sequence[Appended]:
        """Store reports, in order, and say what became of each. They survive a crash once this returns.

        Raises:
            ValueError: A row cannot be stored; none was.
        """
        ...

    def outcomes_of(self, decision_id: str) -> Sequence[OutcomeRow]:
        """Return all reports about a decision, replaced and late ones too, in order of arrival."""
        ...

    def read_outcomes(self, after: str, limit: int) -> Sequence[StreamedOutcome]:
        """Return outcomes after a position, oldest first: each reader keeps its own place."""
        ...


class PolicyShelf(Protocol):
    """Numbered policies and the pointer to the one that serves."""

    def put_policy(self, blob: bytes, card: bytes) -> int:
        """Store a policy, drop those beyond the bound, and return its number."""
        ...

    def policy(self, number: int) -> bytes | None:
        """Return the weights, or None where they are not (or no longer) kept."""
        ...

    def policies(self) -> Sequence[PolicyCard]:
        """Return all that are kept, oldest first."""
        ...

    def current_policy(self) -> int | None:
        """Return the number of the policy that serves."""
        ...

    def set_current_policy(self, number: int | None, expected: int | None) -> bool:
        """Let a policy serve, if the current one is still the expected; returns whether it is so now.

        Raises:
            ValueError: That policy is not kept.
        """
        ...


class Documents(Protocol):
    """Small shared states and versioned documents: named values that are changed by compare-and-set."""

    def put_document(self, kind: str, name: str, value: bytes, expected: int, keep: int = 0) -> bool:
        """Store version `expected` + 1, if `expected` is the version now (0: there is none).

        Args:
            kind: What belongs together, e.g. "breaker" or "configuration".
            name: Of the value within its kind.
            value: The new value.
            expected: Version that the change was made from.
            keep: How many earlier versions to keep.

        Returns:
            False when another writer was first; nothing was changed then.
        """
        ...

    def document(self, kind: str, name: str, version: int | None = None) -> Document | None:
        """Return the newest version, or the given one if it is kept."""
        ...

    def documents(self, kind: str) -> Mapping[str, Document]:
        """Return the newest version of every value of a kind."""
        ...

    def document_history(self, kind: str, name: str) -> Sequence[Document]:
        """Return all kept versions, newest first."""
        ...


class Leases(Protocol):
    """Who may do what only one process may do at a time.

    A lease ends by itself, also for a holder that was stopped and knows nothing of it. What must not be done
    twice is therefore guarded by a compare-and-set as well.
    """

    def acquire_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        """Take a lease that is free, or that this owner has; returns whether the owner holds it now."""
        ...

    def renew_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        """Hold a lease for `ttl_s` from now; False when this owner does not have it any more."""
        ...

    def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back; of no effect when this owner does not have it."""
        ...

    def lease_owner(self, name: str) -> str | None:
        """Return who holds a lease."""
        ...


class Store(DecisionLog, OutcomeLog, PolicyShelf, Documents, Leases, Protocol):
    """Everything at once, and its upkeep."""

    def trim(self, now_s: float, max_rows: int = 500) -> int:
        """Take one small step towards the retention; returns how many rows went, 0 when all bounds hold.

        Args:
            now_s: Ages are measured from here.
            max_rows: The most decisions, and the most outcomes, to remove.
        """
        ...

    def ping(self) -> None:
        """Return if the store answers."""
        ...

    def warnings(self) -> Sequence[str]:
        """Return what an operator should change before relying on this store; empty when all is well."""
        ...

    def close(self) -> None:
        """Let go of all files and connections."""
        ...


def require_storable(rows: Sequence[DecisionRow]) -> None:
    """Refuse rows that no store could order.

    Raises:
        ValueError: A time is not a finite number; the message names the decision.
    """
    for row in rows:
        if not math.isfinite(row.time_s):
            raise ValueError(f"decision {row.id!r}: its time must be a finite number, is {row.time_s}")
