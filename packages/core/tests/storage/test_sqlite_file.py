"""The SQLite file: what is wrong with it is said with its name and the mend, and it is shared without quarrels."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from contextlib import closing

import pytest

from monkey_coder.errors import RouterError, StoreFormatError, StoreUnavailableError
from monkey_coder.storage.opening import FILE_NAME, open_store
from monkey_coder.storage.port import START, DecisionRow, OutcomeRow
from monkey_coder.storage.sqlite_store import SqliteStore

REPORT = OutcomeRow("d", "a/one", 1.0, b"good")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "store.sqlite3"


def open_it(path, **options) -> SqliteStore:
    return SqliteStore(path, time.time, **options)


def assert_refused(path, what) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreFormatError, match=what) as caught:
        open_it(path)
    assert str(path) in str(caught.value)
    assert "move the file" in str(caught.value)
    assert path.read_bytes() == before


def test_without_an_address_the_store_is_a_file_for_this_user_alone(tmp_path) -> None:
    with closing(open_store(tmp_path / "var", None, time.time)) as store:
        store.append_decisions([DecisionRow("d", 1.0, b"x")])
        assert {file.name.removeprefix(FILE_NAME) for file in (tmp_path / "var").iterdir()} == {"", "-wal", "-shm"}
        for file in (tmp_path / "var").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with closing(open_store(tmp_path / "var", None, time.time)) as store:
        assert store.decision("d") == b"x"


def test_a_text_file_is_refused(path) -> None:
    path.parent.mkdir()
    path.write_text("a letter to my aunt, " * 100)
    assert_refused(path, "damaged")


def test_an_empty_file_is_refused(path) -> None:
    path.parent.mkdir()
    path.touch()
    assert_refused(path, "another program's database, or an empty file")


def test_the_database_of_another_program_is_refused(path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE decisions (id TEXT)")
    assert_refused(path, "another program's database")


def test_another_schema_is_refused_and_both_are_named(path) -> None:
    open_it(path).close()
    with closing(sqlite3.connect(path)) as future:
        future.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreFormatError, match=r"has schema 7, this program reads schema 1; run the version"):
        open_it(path)


def test_a_file_with_tables_that_are_no_longer_used_serves_on(path) -> None:
    with closing(open_it(path)) as store:
        store.append_outcomes([REPORT])
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("CREATE TABLE groups (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL) WITHOUT ROWID")
        earlier.execute("INSERT INTO groups VALUES ('learner', 1)")
        earlier.commit()
    with closing(open_it(path)) as store:
        assert [outcome.row for outcome in store.read_outcomes(START, 10)] == [REPORT]
        assert store.trim(time.time() + 365 * 86_400.0) == 1


def test_damage_inside_is_named_when_it_is_met(path) -> None:
    store = open_it(path)
    store.append_decisions([DecisionRow(f"d{number:04}", float(number), bytes(500)) for number in range(2_000)])
    store.close()
    whole = bytearray(path.read_bytes())
    for page in range(4 * 4096, len(whole), 4096):
        whole[page : page + 512] = b"\xa5" * 512
    path.write_bytes(whole)
    with closing(open_it(path)) as damaged, pytest.raises(StoreFormatError, match="damaged") as caught:
        damaged.decisions((0.0, ""), 5_000)
    assert str(path) in str(caught.value)
    assert ".recover" in str(caught.value)


def test_a_file_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError, match=r"file/store: cannot be made"):
        open_it(tmp_path / "file" / "store")


def test_a_directory_in_its_place_is_named(tmp_path) -> None:
    with pytest.raises(StoreUnavailableError, match=f"{tmp_path}: .*look at"):
        open_it(tmp_path)


def test_a_lock_that_never_ends_is_an_error_after_the_time_to_wait(path) -> None:
    with closing(open_it(path, busy_timeout_s=0.1)) as store, closing(sqlite3.connect(path)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"kept it locked for 0\.1 s"):
            store.append_decisions([DecisionRow("d", 1.0, b"")])
        assert store.decision("d") is None  # readers do not wait
        hog.rollback()
        store.append_decisions([DecisionRow("d", 1.0, b"")])
        assert store.decision("d") == b""


def test_a_closed_store_says_so(path) -> None:
    store = open_it(path)
    store.close()
    for use in (store.ping, lambda: store.append_decisions([])):
        with pytest.raises(StoreUnavailableError, match="the store is closed"):
            use()


def test_many_may_open_a_new_file_at_once(path) -> None:
    errors: list[RouterError] = []
    ready = threading.Barrier(8)

    def work(number) -> None:
        try:
            ready.wait()
            with closing(open_it(path)) as store:
                store.append_decisions([DecisionRow(f"d{number}", 1.0, b"")])
        except RouterError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with closing(open_it(path)) as store:
        assert len(store.decisions((0.0, ""), 100)) == 8


def test_what_is_no_bytes_is_refused(path) -> None:
    with closing(open_it(path)) as store:
        for payload in (None, object()):
            with pytest.raises(ValueError, match="cannot be stored"):
                store.append_decisions([DecisionRow("fine", 1.0, b""), DecisionRow("d", 1.0, payload)])
        assert store.decision("fine") is None
