"""A process whose store is away goes on, knows it, and does not talk of it all the time."""

from __future__ import annotations

import logging
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from builders import SetClock
from servers import PATIENCE_S, eventually

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.storage import absence
from monkey_coder.storage.absence import MEMORY_S, SILENCE_S, AwaitedStore, StoreHealth, open_or_do_without
from monkey_coder.storage.port import DecisionRow, Store
from monkey_coder.storage.sqlite_store import SqliteStore


def test_a_failure_counts_for_a_while_and_is_then_forgotten() -> None:
    clock = SetClock(100.0)
    health = StoreHealth(clock)
    assert not health.failing
    health.on_error(StoreUnavailableError("gone"))
    clock.now += MEMORY_S - 0.1
    assert health.failing
    clock.now += 0.2
    assert not health.failing


def test_a_row_that_cannot_be_made_is_no_failure_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    health = StoreHealth(SetClock())
    health.on_error(ValueError("bad row"))
    assert not health.failing
    assert "ValueError: bad row" in caplog.text


def test_many_failures_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = SetClock()
    health = StoreHealth(clock)
    for _ in range(1000):
        health.on_error(StoreUnavailableError("gone"))
    clock.now += SILENCE_S
    health.on_error(StoreUnavailableError("still gone"))
    said = [record.levelno for record in caplog.records if record.name == absence.__name__]  # others may speak, too
    assert said == [logging.ERROR] * 2
    assert "(and 999 errors before it)" in caplog.text


def test_a_store_that_opens_is_the_store(tmp_path: Path) -> None:
    store = open_or_do_without(tmp_path / "new", None, lambda: 1.0)
    assert isinstance(store, SqliteStore)
    store.close()


def test_one_that_does_not_open_refuses_everything_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"a shopping list" * 500)
    store = open_or_do_without(tmp_path, None, lambda: 1.0)
    assert "store.sqlite3" in caplog.text
    (why,) = store.warnings()
    for refused in (
        lambda: store.append_decisions([DecisionRow("a", 1.0, b"")]),
        lambda: store.decision("a"),
        lambda: store.put_document("k", "n", b"", expected=0),
        store.ping,
    ):
        with pytest.raises(StoreUnavailableError) as caught:
            refused()
        assert why in str(caught.value)
    with pytest.raises(AttributeError):
        store.no_such_method()  # type: ignore[attr-defined]
    store.close()


class Door:
    """Opens a store once it is allowed to, and keeps count."""

    def __init__(self, path: Path) -> None:
        self.path, self.tried_at, self.opened = path, list[float](), list[SqliteStore]()
        self.unlocked, self.passed = threading.Event(), threading.Event()

    @property
    def tries(self) -> int:
        return len(self.tried_at)

    def open(self) -> Store:
        self.tried_at.append(time.monotonic())
        if not self.unlocked.is_set():
            raise StoreUnavailableError(f"locked {self.tries}")
        store = SqliteStore(self.path, lambda: 1.0)
        self.opened.append(store)
        self.passed.set()
        return store


def until(condition: threading.Event) -> None:
    assert condition.wait(PATIENCE_S)


def closed(store: SqliteStore) -> bool:
    try:
        store.ping()
    except StoreUnavailableError:
        return True
    return False


def test_a_store_that_comes_late_is_used_as_soon_as_it_opens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(tmp_path / "late.sqlite3")
    store = AwaitedStore(door.open, StoreUnavailableError("locked 0"), first_pause_s=0.001, longest_pause_s=0.01)
    taken_early = store.append_decisions
    eventually(lambda: door.tries >= 3)
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.ping()
    door.unlocked.set()
    until(door.passed)
    eventually(lambda: not store.warnings())
    taken_early([DecisionRow("a", 1.0, b"written late")])
    assert store.decision("a") == b"written late"
    eventually(lambda: "could be opened now" in caplog.text)  # said by the thread that opened it, after it is in use
    with pytest.raises(AttributeError):
        store.no_such_method()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        door.opened[0].ping()


def test_pauses_between_tries_grow(tmp_path: Path) -> None:
    door = Door(tmp_path / "never.sqlite3")
    store = AwaitedStore(door.open, StoreUnavailableError("locked"), first_pause_s=0.05, longest_pause_s=100.0)
    eventually(lambda: door.tries >= 4)
    store.close()
    pauses = [later - earlier for earlier, later in pairwise(door.tried_at)]
    assert all(pause >= 0.99 * least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=False))


def test_a_store_that_opens_while_it_is_closed_is_closed(tmp_path: Path) -> None:
    door, begun = Door(tmp_path / "race.sqlite3"), threading.Event()

    def slowly() -> Store:
        begun.set()
        until(door.unlocked)
        return door.open()

    store = AwaitedStore(slowly, StoreUnavailableError("locked"), first_pause_s=0.001)
    until(begun)
    store.close()
    door.unlocked.set()
    until(door.passed)
    eventually(lambda: closed(door.opened[0]))
    with pytest.raises(StoreUnavailableError, match="closed"):
        door.opened[0].ping()
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.ping()
