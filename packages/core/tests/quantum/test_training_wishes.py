"""Steering a run from another process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from monkey_coder.errors import SettingsError
from monkey_coder.quantum.training_monitor import Overrides
from monkey_coder.quantum.training_wishes import POLL_S, WishControl, read_wishes, write_wishes
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(tmp_path, None, time.time)) as opened:
        yield opened


class Person:
    """A clock that moves when somebody sleeps, and does something after so many seconds."""

    def __init__(self, store: Store) -> None:
        self.now = 0.0
        self.plans: dict[float, dict] = {}
        self.store = store
        self.said: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.plans if at <= self.now]:
            write_wishes(self.store, **self.plans.pop(at))

    def control(self) -> WishControl:
        return WishControl(self.store, self.clock, self.sleep, self.said.append)


def test_without_a_document_nobody_wishes_anything(store: Store) -> None:
    assert read_wishes(store) == Overrides()


def test_wishes_add_up(store: Store) -> None:
    write_wishes(store, paused=True)
    write_wishes(store, learning_rate=0.01)
    assert write_wishes(store, epsilon=0.5) == Overrides(paused=True, learning_rate=0.01, epsilon=0.5)
    assert write_wishes(store, paused=False, learning_rate=None) == Overrides(epsilon=0.5)
    assert read_wishes(store) == Overrides(epsilon=0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": 2.0},
        {"epsilon": 1.5},
        {"paused": "yes"},
        {"epsilon": True},
    ],
)
def test_wishes_out_of_range_are_refused_and_nothing_changes(store: Store, changes: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes))):
        write_wishes(store, **changes)
    assert store.documents("training") == {}


def test_a_paused_run_waits_and_goes_on_when_told(store: Store) -> None:
    person = Person(store)
    write_wishes(person.store, paused=True)
    person.plans = {10.0: {"learning_rate": 0.5}, 20.0: {"paused": False}}
    assert person.control().wait() == Overrides(learning_rate=0.5)
    assert 20.0 <= person.now <= 20.0 + 2 * POLL_S


def test_a_paused_run_can_be_stopped(store: Store) -> None:
    person = Person(store)
    write_wishes(person.store, paused=True)
    person.plans = {5.0: {"stopped": True}}
    assert person.control().wait().stopped


def test_the_store_is_not_asked_at_every_step(store: Store) -> None:
    person = Person(store)
    control = person.control()
    assert control.wait() == Overrides()
    write_wishes(person.store, epsilon=0.3)
    assert control.wait() == Overrides()
    person.now += POLL_S
    assert control.wait() == Overrides(epsilon=0.3)


def test_damaged_wishes_change_nothing_are_told_once_and_mended_by_the_next(store: Store) -> None:
    person = Person(store)
    write_wishes(store, epsilon=0.3)
    control = person.control()
    control.wait()
    assert store.put_document("training", "wishes", b"{", 1)
    for _ in range(3):
        person.now += POLL_S
        assert control.wait() == Overrides(epsilon=0.3)
    assert len(person.said) == 1
    with pytest.raises(SettingsError, match="say again"):
        read_wishes(store)
    assert write_wishes(store, paused=True) == read_wishes(store) == Overrides(paused=True)


def test_a_store_that_is_away_changes_nothing_and_is_told_once(store: Store) -> None:
    person = Person(store)
    write_wishes(store, epsilon=0.3)
    control = person.control()
    control.wait()
    store.close()
    for _ in range(3):
        person.now += POLL_S
        assert control.wait() == Overrides(epsilon=0.3)
    assert len(person.said) == 1
