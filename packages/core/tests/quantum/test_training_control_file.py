"""Steering a run from another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from monkey_coder.errors import SettingsError
from monkey_coder.quantum.training_control_file import POLL_S, FileControl, read_wishes, write_wishes
from monkey_coder.quantum.training_monitor import Overrides


class Person:
    """A clock that moves when somebody sleeps, and does something after so many seconds."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.plans: dict[float, dict] = {}
        self.path = path
        self.said: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.plans if at <= self.now]:
            write_wishes(self.path, **self.plans.pop(at))

    def control(self) -> FileControl:
        return FileControl(self.path, self.clock, self.sleep, self.said.append)


def test_without_a_file_nobody_wishes_anything(tmp_path: Path) -> None:
    assert read_wishes(tmp_path / "wishes.json") == Overrides()


def test_wishes_add_up(tmp_path: Path) -> None:
    path = tmp_path / "state" / "wishes.json"
    write_wishes(path, paused=True)
    write_wishes(path, learning_rate=0.01)
    assert write_wishes(path, epsilon=0.5) == Overrides(paused=True, learning_rate=0.01, epsilon=0.5)
    assert write_wishes(path, paused=False, learning_rate=None) == Overrides(epsilon=0.5)
    assert read_wishes(path) == Overrides(epsilon=0.5)


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
def test_wishes_out_of_range_are_refused_and_nothing_changes(tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "wishes.json"
    with pytest.raises(SettingsError, match=next(iter(changes))):
        write_wishes(path, **changes)
    assert not path.exists()


def test_a_paused_run_waits_and_goes_on_when_told(tmp_path: Path) -> None:
    person = Person(tmp_path / "wishes.json")
    write_wishes(person.path, paused=True)
    person.plans = {10.0: {"learning_rate": 0.5}, 20.0: {"paused": False}}
    assert person.control().wait() == Overrides(learning_rate=0.5)
    assert 20.0 <= person.now <= 20.0 + 2 * POLL_S


def test_a_paused_run_can_be_stopped(tmp_path: Path) -> None:
    person = Person(tmp_path / "wishes.json")
    write_wishes(person.path, paused=True)
    person.plans = {5.0: {"stopped": True}}
    assert person.control().wait().stopped


def test_the_file_is_not_read_at_every_step(tmp_path: Path) -> None:
    person = Person(tmp_path / "wishes.json")
    control = person.control()
    assert control.wait() == Overrides()
    write_wishes(person.path, epsilon=0.3)
    assert control.wait() == Overrides()
    person.now += POLL_S
    assert control.wait() == Overrides(epsilon=0.3)


def test_a_damaged_file_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    person = Person(tmp_path / "wishes.json")
    write_wishes(person.path, epsilon=0.3)
    control = person.control()
    control.wait()
    person.path.write_text("{")
    for _ in range(3):
        person.now += POLL_S
        assert control.wait() == Overrides(epsilon=0.3)
    assert len(person.said) == 1
    assert "wishes.json" in person.said[0]
    with pytest.raises(SettingsError, match="delete it"):
        read_wishes(person.path)
