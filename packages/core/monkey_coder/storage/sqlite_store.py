"""The embedded store: one SQLite file in WAL mode, shared by the processes of one machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from typing_extensions import override

from monkey_coder.storage.port import (
    Appended,
    DecisionRow,
    Document,
    OutcomeRow,
    Place,
    PolicyCard,
    Retention,
    Store,
    StreamedOutcome,
    require_storable,
)
from monkey_coder.storage.sqlite_file import SqliteFile

_OUTCOME: Final = "decision_id, model, occurred_at, payload, outcome_id"
_INSERT: Final = (
    f"INSERT INTO outcomes (identity, late, appended_at, {_OUTCOME}, replaced_at, replaced_payload) "  # noqa: S608 constants
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_STREAMED: Final = f"seq, {_OUTCOME}, replaced_at, replaced_payload"
_STANDING: Final = "SELECT identity, occurred_at, payload, max(seq) FROM outcomes WHERE identity"
"""The other columns are from the row of max()."""


class SqliteStore(Store):
    """Keeps everything in one file.

    Decisions, outcomes, policies and documents survive a power cut once a method returns, and all else the end of
    any process. Put the file on a local disk: SQLite's locks and its shared memory do not work over a network.
    """

    def __init__(
        self,
        path: Path,
        wall_clock: Callable[[], float],
        retention: Retention | None = None,
        busy_timeout_s: float = 30.0,
    ) -> None:
        """Open the file, and make it first where there is none.

        Args:
            path: Of the file.
            wall_clock: Seconds since 1970; leases of all processes are measured by it.
            retention: How much is kept; default `Retention()`.
            busy_timeout_s: How long a writer waits for those of other processes.

        Raises:
            StoreFormatError: The file is damaged, another program's, or of another schema.
            StoreUnavailableError: The file cannot be made or opened.
        """
        self._file = SqliteFile(path, busy_timeout_s)
        self._now = wall_clock
        self._retention = retention or Retention()

    @override
    def append_decisions(self, rows: Sequence[DecisionRow]) -> None:
        require_storable(rows)
        with self._file.write(durable=True) as db:
            added = db.executemany(
                "INSERT INTO decisions VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                [(row.id, row.time_s, row.payload) for row in rows],
            ).rowcount
            # counted here, because counting a million rows takes SQLite 40 ms
            db.execute("UPDATE logged SET decisions = decisions + ?", (max(added, 0),))

    @override
    def decision(self, decision_id: str) -> bytes | None:
        found = self._one("SELECT payload FROM decisions WHERE id = ?", decision_id)
        return found[0] if found else None

    @override
    def decision_payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        # through JSON, for a list of parameters would be another statement for each length
        wanted = json.dumps(ids)
        return dict(self._all("SELECT id, payload FROM decisions WHERE id IN (SELECT value FROM json_each(?))", wanted))

    @override
    def recent_decisions(self, since_s: float, limit: int) -> Sequence[DecisionRow]:
        found = self._all(
            "SELECT id, time_s, payload FROM decisions WHERE time_s >= ? ORDER BY time_s DESC, id DESC LIMIT ?",
            since_s,
            limit,
        )
        return [DecisionRow(*row) for row in found]

    @override
    def decisions(self, after: Place, limit: int) -> Sequence[DecisionRow]:
        found = self._all(
            "SELECT id, time_s, payload FROM decisions WHERE (time_s, id) > (?, ?) ORDER BY time_s, id LIMIT ?",
            *after,
            limit,
        )
        return [DecisionRow(*row) for row in found]

    @override
    def append_outcomes(self, rows: Sequence[OutcomeRow]) -> Sequence[Appended]:
        now = self._now()
        with self._file.write(durable=True) as db:
            return _append(db, rows, now)

    @override
    def outcomes_of(self, decision_id: str) -> Sequence[OutcomeRow]:
        found = self._all(f"SELECT {_OUTCOME} FROM outcomes WHERE decision_id = ? ORDER BY seq", decision_id)  # noqa: S608 constants
        return [OutcomeRow(*row) for row in found]

    @override
    def read_outcomes(self, after: str, limit: int) -> Sequence[StreamedOutcome]:
        found = self._all(
            f"SELECT {_STREAMED} FROM outcomes WHERE seq > ? AND NOT late ORDER BY seq LIMIT ?",  # noqa: S608 constants
            int(after),
            limit,
        )
        return [_streamed(row) for row in found]

    @override
    def put_policy(self, blob: bytes, card: bytes) -> int:
        with self._file.write(durable=True) as db:
            added = db.execute("INSERT INTO policies (time_s, card, blob) VALUES (?, ?, ?)", (self._now(), card, blob))
            db.execute(
                "DELETE FROM policies WHERE number NOT IN (SELECT number FROM policies ORDER BY number DESC LIMIT ?) "
                "AND number IS NOT (SELECT number FROM current_policy)",
                (self._retention.policies,),
            )
            return int(added.lastrowid or 0)

    @override
    def policy(self, number: int) -> bytes | None:
        found = self._one("SELECT blob FROM policies WHERE number = ?", number)
        return found[0] if found else None

    @override
    def policies(self) -> Sequence[PolicyCard]:
        return [PolicyCard(*row) for row in self._all("SELECT number, time_s, card FROM policies ORDER BY number")]

    @override
    def current_policy(self) -> int | None:
        found = self._one("SELECT number FROM current_policy")
        return found[0] if found else None

    @override
    def set_current_policy(self, number: int | None, expected: int | None) -> bool:
        with self._file.write(durable=True) as db:
            if number is not None and not db.execute("SELECT 1 FROM policies WHERE number = ?", (number,)).fetchone():
                raise ValueError(f"policy {number} is not kept; choose one of those listed")
            changed = db.execute("UPDATE current_policy SET number = ? WHERE number IS ?", (number, expected))
            return changed.rowcount == 1

    @override
    def put_document(self, kind: str, name: str, value: bytes, expected: int, keep: int = 0) -> bool:
        with self._file.write(durable=True) as db:
            newest = "SELECT coalesce(max(version), 0) FROM documents WHERE kind = ? AND name = ?"
            if db.execute(newest, (kind, name)).fetchone()[0] != expected:
                return False
            version = expected + 1
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (kind, name, version, self._now(), value))
            db.execute(
                "DELETE FROM documents WHERE kind = ? AND name = ? AND version < ?", (kind, name, version - keep)
            )
            return True

    @override
    def document(self, kind: str, name: str, version: int | None = None) -> Document | None:
        found = self._one(
            "SELECT version, time_s, value FROM documents WHERE kind = ? AND name = ? "
            "AND version = coalesce(?, version) ORDER BY version DESC LIMIT 1",
            kind,
            name,
            version,
        )
        return Document(*found) if found else None

    @override
    def documents(self, kind: str) -> Mapping[str, Document]:
        # of a row with max() SQLite takes the other columns from the row that holds it
        found = self._all(
            "SELECT name, max(version), time_s, value FROM documents WHERE kind = ? GROUP BY name ORDER BY name", kind
        )
        return {name: Document(*rest) for name, *rest in found}

    @override
    def document_history(self, kind: str, name: str) -> Sequence[Document]:
        found = self._all(
            "SELECT version, time_s, value FROM documents WHERE kind = ? AND name = ? ORDER BY version DESC", kind, name
        )
        return [Document(*row) for row in found]

    @override
    def acquire_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        now = self._now()
        with self._file.write(durable=False) as db:
            taken = db.execute(
                "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, "
                "expires_at = excluded.expires_at WHERE owner = excluded.owner OR expires_at <= ?",
                (name, owner, now + ttl_s, now),
            )
            return taken.rowcount == 1

    @override
    def renew_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        now = self._now()
        with self._file.write(durable=False) as db:
            renewed = db.execute(
                "UPDATE leases SET expires_at = ? WHERE name = ? AND owner = ? AND expires_at > ?",
                (now + ttl_s, name, owner, now),
            )
            return renewed.rowcount == 1

    @override
    def release_lease(self, name: str, owner: str) -> None:
        with self._file.write(durable=False) as db:
            db.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (name, owner))

    @override
    def lease_owner(self, name: str) -> str | None:
        found = self._one("SELECT owner FROM leases WHERE name = ? AND expires_at > ?", name, self._now())
        return found[0] if found else None

    @override
    def trim(self, now_s: float, max_rows: int = 500) -> int:
        keep = self._retention
        with self._file.write(durable=False) as db:  # finding what goes, too: another process may trim at once
            return _trim_decisions(db, keep.max_decisions, now_s - keep.max_decision_age_s, max_rows) + _trim_outcomes(
                db, keep.max_outcomes, now_s - keep.max_outcome_age_s, max_rows
            )

    @override
    def ping(self) -> None:
        self._one("SELECT 1 FROM current_policy")

    @override
    def warnings(self) -> Sequence[str]:
        return ()

    @override
    def close(self) -> None:
        self._file.close()

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401 as many columns as selected
        with self._file.read() as db:
            return db.execute(statement, values).fetchone()

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._file.read() as db:
            return db.execute(statement, values).fetchall()


def _append(db: Connection, rows: Sequence[OutcomeRow], now: float) -> list[Appended]:
    """Append reports, and tell how each stands to the one that counts so far."""
    standing = {row.identity: None for row in rows} | _standing(db, {row.identity for row in rows})
    results, values = [], []
    for row in rows:
        known, report = standing[row.identity], (row.occurred_at, row.payload)
        if known and (row.outcome_id is not None or known == report):
            results.append(Appended.DUPLICATE)
            continue
        late = known is not None and row.occurred_at <= known[0]
        replaced = (None, None) if late or not known else known
        values.append((row.identity, late, now, row.decision_id, row.model, *report, row.outcome_id, *replaced))
        if late:
            results.append(Appended.LATE)
        else:
            standing[row.identity] = report
            results.append(Appended.REPLACED if known else Appended.NEW)
    db.executemany(_INSERT, values)
    return results


def _standing(db: Connection, identities: Collection[str]) -> dict[str, tuple[float, bytes] | None]:
    """Time and payload of the reports that count so far, by identity."""
    cut_off = [identity for identity in identities if "\0" in identity]  # there by JSON, which SQLite reads as C does
    whole = json.dumps([identity for identity in identities if "\0" not in identity])
    found = db.execute(
        f"{_STANDING} IN (SELECT value FROM json_each(?)) AND NOT late GROUP BY identity",  # noqa: S608 constants
        (whole,),
    ).fetchall()
    for identity in cut_off:
        found += db.execute(f"{_STANDING} = ? AND NOT late GROUP BY identity", (identity,))
    return {identity: (occurred_at, payload) for identity, occurred_at, payload, _ in found}


def _streamed(row: Sequence[Any]) -> StreamedOutcome:
    seq, *report, replaced_at, replaced_payload = row
    current = OutcomeRow(*report)
    replaces = (
        None if replaced_at is None else OutcomeRow(current.decision_id, current.model, replaced_at, replaced_payload)
    )
    return StreamedOutcome(str(seq), current, replaces)


def _trim_decisions(db: Connection, most: int, oldest_s: float, max_rows: int) -> int:
    (logged,) = db.execute("SELECT decisions FROM logged").fetchone()
    oldest = "SELECT id, time_s FROM decisions ORDER BY time_s, id LIMIT ?"
    (aged,) = db.execute(f"SELECT count(*) FROM ({oldest}) WHERE time_s < ?", (max_rows, oldest_s)).fetchone()  # noqa: S608 constants
    surplus = min(max(logged - most, aged), max_rows)
    if surplus > 0:
        db.execute(f"DELETE FROM decisions WHERE id IN (SELECT id FROM ({oldest}))", (surplus,))  # noqa: S608 constants
        db.execute("UPDATE logged SET decisions = decisions - ?", (surplus,))
    return max(int(surplus), 0)


def _trim_outcomes(db: Connection, most: int, oldest_s: float, max_rows: int) -> int:
    # asked for in one aggregate, SQLite would read the whole table
    ends = "SELECT (SELECT min(seq) FROM outcomes), (SELECT max(seq) FROM outcomes)"
    first, last = db.execute(ends).fetchone()
    if first is None:
        return 0
    aged = "SELECT max(seq) FROM (SELECT seq, appended_at FROM outcomes ORDER BY seq LIMIT ?) WHERE appended_at < ?"
    (old,) = db.execute(aged, (max_rows, oldest_s)).fetchone()
    end = min(max(last - most, old or 0), first + max_rows - 1)  # numbered without gaps
    if end >= first:
        db.execute("DELETE FROM outcomes WHERE seq <= ?", (end,))
    return max(int(end) - int(first) + 1, 0)
