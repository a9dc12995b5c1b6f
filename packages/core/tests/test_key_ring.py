"""API keys in a store: changed by many at once, followed by processes, and remembered while the store is away."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monkey_coder.api_keys import ApiKey, KeyTable, RoleName, new_key
from monkey_coder.errors import StoreFormatError, StoreUnavailableError, UnknownKeyError
from monkey_coder.key_ring import FILE_NAME, KIND, KeyRing, add_key, change_key, stored_keys
from monkey_coder.storage.absence import AbsentStore
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(tmp_path / "state", None, time.time)) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


def put(store: Store, role: RoleName = "client", name: str = "x", now: float = 1.0) -> tuple[ApiKey, bytes]:
    kept, key = new_key(name, role, now)
    add_key(store, kept)
    return kept, key.encode()


def revoked(key: ApiKey) -> ApiKey:
    return key.model_copy(update={"revoked_at": 2.0})


def absent() -> Any:
    return AbsentStore(StoreUnavailableError("away"))


def test_a_ring_follows_new_changed_and_revoked_keys(store: Store, file: Path) -> None:
    ring = KeyRing(store, file)
    ring.begin()
    assert not ring.table.required
    first, key = put(store)
    assert ring.table.find(key) is None
    ring.look()
    assert ring.table.required
    assert ring.table.find(key) is not None
    change_key(store, first.id, lambda kept: kept.model_copy(update={"role": "admin"}))
    ring.look()
    promoted = ring.table.find(key)
    assert promoted is not None
    assert promoted.rank == 4
    change_key(store, first.id, revoked)
    ring.look()
    assert ring.table.find(key) is None
    assert ring.table.required


def test_looking_without_changes_makes_nothing_new(store: Store, file: Path) -> None:
    put(store)
    ring = KeyRing(store, file)
    ring.begin()
    table = ring.table
    ring.look()
    assert ring.table is table


def test_keys_are_listed_oldest_first_without_those_that_cannot_be_read(
    store: Store, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["third", "first", "second"]
    for name, made_at in zip(names, (3.0, 1.0, 2.0), strict=True):
        put(store, name=name, now=made_at)
    store.put_document(KIND, "foreign", b'{"id": "of a later release", "secret": "not to be logged"}', 0)
    assert [key.name for key in stored_keys(store)] == ["first", "second", "third"]
    assert "foreign" in caplog.text
    assert "not to be logged" not in caplog.text
    with pytest.raises(StoreFormatError, match="foreign"):
        change_key(store, "foreign", revoked)
    ring = KeyRing(store, file)
    ring.begin()
    assert ring.table.required


def test_a_key_that_nobody_has_cannot_be_changed(store: Store) -> None:
    with pytest.raises(UnknownKeyError, match="keys list"):
        change_key(store, "nobody", revoked)


def test_changes_of_many_at_once_are_all_kept(store: Store) -> None:
    kept, _ = put(store)

    def longer(key: ApiKey) -> ApiKey:
        return key.model_copy(update={"name": key.name + "!"})

    with ThreadPoolExecutor(4) as people:
        list(people.map(lambda _: change_key(store, kept.id, longer), range(8)))
    (after,) = stored_keys(store)
    assert after.name == "x" + 8 * "!"


def test_while_the_store_is_away_the_latest_known_keys_are_good(store: Store, file: Path) -> None:
    _, key = put(store)
    gone, gone_key = put(store)
    change_key(store, gone.id, revoked)
    KeyRing(store, file).begin()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    started_without = KeyRing(absent(), file)
    started_without.begin()
    assert started_without.table.find(key) is not None
    assert started_without.table.find(gone_key) is None
    with pytest.raises(StoreUnavailableError):
        started_without.look()
    assert started_without.table.find(key) is not None


def test_a_store_that_lost_its_keys_opens_no_door(store: Store, file: Path, tmp_path: Path) -> None:
    _, key = put(store)
    KeyRing(store, file).begin()
    with closing(open_store(tmp_path / "empty", None, time.time)) as empty:
        ring = KeyRing(empty, file)
        ring.begin()
        ring.look()
        assert ring.table.required
        assert ring.table.find(key) is not None


def test_without_store_and_file_there_are_no_keys(file: Path) -> None:
    ring = KeyRing(absent(), file, "a-scrape-token-of-ours")
    ring.begin()
    assert ring.table == KeyTable.of((), "a-scrape-token-of-ours")


def test_a_damaged_file_is_no_reason_to_stand_open(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    with pytest.raises(StoreFormatError, match=FILE_NAME):
        KeyRing(absent(), file).begin()
    file.write_bytes(b"")
    ring = KeyRing(absent(), file)
    ring.begin()
    assert ring.table.required


def test_a_directory_that_cannot_be_written_to_is_said_and_survived(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = put(store)
    ring = KeyRing(store, tmp_path / "missing" / FILE_NAME)
    ring.begin()
    assert ring.table.find(key) is not None
    assert "not kept" in caplog.text
