"""A process whose store is away goes on, knows it, and does not talk of it all the time."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from builders import SetClock

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.storage.absence import MEMORY_S, SILENCE_S, StoreHealth, open_or_do_without
from monkey_coder.storage.port import DecisionRow
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
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
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
