"""Last uses in a SQLite file, shared by the processes of one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from typing_extensions import override

from monkey_coder.storage.last_uses import LastUse, LastUses
from monkey_coder.storage.sqlite_file import Layout, SqliteFile

LAYOUT: Final = Layout(
    application_id=0x6D6B7375,
    version=1,
    schema="""
CREATE TABLE uses (key BLOB PRIMARY KEY, time_s REAL NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX uses_by_time ON uses (time_s);
""",
)
SURPLUS: Final = 1_000
"""Uses that a process notes between two looks at the bounds, for counting all rows takes a while."""

_BUSY_TIMEOUT_S: Final = 1.0
_CHUNK: Final = 500


class SqliteLastUses(LastUses):
    """Keeps them in a file of their own.

    Args:
        path: Of the file, which is made where there is none.
        wall_clock: Seconds since 1970.
        max_age_s: Seconds after which a use is forgotten.
        most: Keys that are kept, and up to `SURPLUS` more a process.

    Raises:
        StoreFormatError: The file is damaged, another program's, or of another schema.
        StoreUnavailableError: The file cannot be made or opened.
    """

    def __init__(self, path: Path, wall_clock: Callable[[], float], max_age_s: float, most: int) -> None:
        self._file = SqliteFile(path, _BUSY_TIMEOUT_S, LAYOUT)
        self._now, self._max_age_s, self._most = wall_clock, max_age_s, most
        self._until_trim = 0

    @override
    def last_uses(self, keys: Sequence[bytes]) -> list[LastUse | None]:
        found: dict[bytes, LastUse] = {}
        oldest = self._now() - self._max_age_s
        with self._file.read() as db:
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                rows = db.execute(
                    f"SELECT key, time_s, value FROM uses WHERE key IN ({','.join('?' * len(chunk))})",  # noqa: S608 placeholders alone
                    chunk,
                )
                found |= {key: LastUse(time_s, value) for key, time_s, value in rows if time_s >= oldest}
        return [found.get(key) for key in keys]

    @override
    def note_uses(self, uses: Mapping[bytes, LastUse]) -> None:
        with self._file.write(durable=False) as db:
            db.executemany(
                "INSERT INTO uses VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET time_s = excluded.time_s, value = excluded.value WHERE excluded.time_s >= uses.time_s",
                [(key, *use) for key, use in uses.items()],
            )
            self._until_trim -= len(uses)
            if self._until_trim <= 0:
                self._until_trim = SURPLUS
                db.execute("DELETE FROM uses WHERE time_s < ?", (self._now() - self._max_age_s,))
                (count,) = db.execute("SELECT count(*) FROM uses").fetchone()
                if count > self._most:
                    db.execute(
                        "DELETE FROM uses WHERE key IN (SELECT key FROM uses ORDER BY time_s LIMIT ?)",
                        (count - self._most,),
                    )

    @override
    def close(self) -> None:
        self._file.close()
