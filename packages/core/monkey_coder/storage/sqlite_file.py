"""The SQLite file: made whole, opened with care, and spoken of plainly when something is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from monkey_coder.errors import StoreFormatError, StoreUnavailableError
from monkey_coder.storage.port import SCHEMA_VERSION

APPLICATION_ID: Final = 0x6D6B6372
"""Written into the header of our files, so that another program's database is noticed."""

_SCHEMA: Final = """
CREATE TABLE decisions (id TEXT PRIMARY KEY, time_s REAL NOT NULL, payload BLOB NOT NULL);
CREATE INDEX decisions_by_time ON decisions (time_s, id);
CREATE TABLE logged (decisions INTEGER NOT NULL);
INSERT INTO logged VALUES (0);
CREATE TABLE outcomes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL, late INTEGER NOT NULL, appended_at REAL NOT NULL,
    decision_id TEXT NOT NULL, model TEXT NOT NULL, occurred_at REAL NOT NULL, payload BLOB NOT NULL, outcome_id TEXT,
    replaced_at REAL, replaced_payload BLOB);
CREATE INDEX outcomes_by_identity ON outcomes (identity, late, seq);
CREATE INDEX outcomes_by_decision ON outcomes (decision_id, seq);
CREATE TABLE policies (number INTEGER PRIMARY KEY AUTOINCREMENT, time_s REAL NOT NULL, card BLOB NOT NULL,
    blob BLOB NOT NULL);
CREATE TABLE current_policy (only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER);
INSERT INTO current_policy VALUES (1, NULL);
CREATE TABLE documents (kind TEXT, name TEXT, version INTEGER, time_s REAL NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (kind, name, version));
CREATE TABLE leases (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Layout:
    """What a file holds.

    Attributes:
        application_id: Written into its header, so that another program's database is noticed.
        version: Raised whenever what is stored would be read wrongly by older code.
        schema: Statements that make its tables.
    """

    application_id: int
    version: int
    schema: str


STORE: Final = Layout(APPLICATION_ID, SCHEMA_VERSION, _SCHEMA)
_PAGE_BYTES: Final = 16_384
"""Four decisions fit on a page: with SQLite's usual 4 KiB each spreads over two, and costs twice the time to write."""
_MAX_WAL_BYTES: Final = 64 * 1024 * 1024
_BUSY_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DAMAGED_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteFile:
    """One connection for readers and one for writers; each serves one thread at a time.

    In WAL mode readers never wait for a writer; writers of all processes take turns.
    """

    def __init__(self, path: Path, busy_timeout_s: float = 30.0, layout: Layout = STORE) -> None:
        """Open the file, and make it first where there is none.

        Args:
            path: Of the file; its directory is made when it is missing.
            busy_timeout_s: How long a writer waits for those of other processes.
            layout: What it holds.

        Raises:
            StoreFormatError: The file is damaged, another program's, or of another schema.
            StoreUnavailableError: The file cannot be made or opened.
        """
        self.path = path
        self._layout = layout
        self._busy_timeout_s = busy_timeout_s
        self._reading, self._writing = threading.Lock(), threading.Lock()
        try:
            if not path.exists():
                _make(path, layout)
        except OSError as error:
            raise StoreUnavailableError(
                f"{path}: cannot be made: {error}; give this user the right to write"
            ) from error
        with self._explained():
            self._reader = self._connect()
            try:
                self._check()
                self._reader.execute("PRAGMA query_only = ON")
                self._writer = self._connect()
            except BaseException:
                self._reader.close()
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for looking; every statement sees one state of the file, two may see different ones."""
        with self._reading, self._explained():
            yield self._reader

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction, committed at the end and undone on an error.

        Args:
            durable: Whether it shall have reached the disk when this returns. Otherwise it survives the end of
                any process, but perhaps not that of the machine.
        """
        with self._writing, self._explained():
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._transaction(self._writer):
                yield self._writer

    def close(self) -> None:
        """Close both connections; what still uses them is waited for."""
        with self._reading, self._writing:
            self._reader.close()
            self._writer.close()

    @staticmethod
    @contextmanager
    def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
        # IMMEDIATE: a transaction that begins as a reader may be refused its turn without being allowed to wait
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
                connection.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False, uri=True
        )
        connection.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
        return connection

    def _check(self) -> None:
        (application,) = self._reader.execute("PRAGMA application_id").fetchone()
        (version,) = self._reader.execute("PRAGMA user_version").fetchone()
        if application != self._layout.application_id:
            raise StoreFormatError(
                f"{self.path}: this is not a store of the router but another program's database, or an empty file; "
                "choose another state directory, or move the file away and a new one is made"
            )
        if version != self._layout.version:
            raise StoreFormatError(
                f"{self.path}: has schema {version}, this program reads schema {self._layout.version}; run the version "
                "of the router that wrote it, or move the file away and a new one is made"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError) as error:
            if "closed" not in str(error):
                raise ValueError(f"cannot be stored: {error}") from error
            raise StoreUnavailableError(f"{self.path}: the store is closed") from error
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extended part
            if code in _DAMAGED_CODES:
                raise StoreFormatError(
                    f"{self.path}: the file is damaged ({error}); stop the router, move the file and its -wal and -shm "
                    f"away and a new one is made; `sqlite3 {self.path.name} .recover` saves what can be saved"
                ) from error
            if code in _BUSY_CODES:
                raise StoreUnavailableError(
                    f"{self.path}: other processes kept it locked for {self._busy_timeout_s:g} s; try again"
                ) from error
            if isinstance(error, sqlite3.OperationalError):
                raise StoreUnavailableError(
                    f"{self.path}: {error}; look at free space, rights and health of that disk"
                ) from error
            raise


def _make(path: Path, layout: Layout) -> None:
    """Make a complete file aside and put it in place in one step, so that nobody ever opens half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)  # for this user alone
    os.close(handle)
    fresh = Path(name)
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # cannot be changed once there is a journal
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {layout.application_id}; PRAGMA user_version = {layout.version};"
                f"{layout.schema} COMMIT;"
            )
        with suppress(FileExistsError):  # another process was first: its file is everybody's
            os.link(fresh, path)
    finally:
        fresh.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name, too, must outlive a power cut
    finally:
        os.close(directory)
