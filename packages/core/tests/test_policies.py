"""A deployment serves its current policy, takes a new one over, and keeps the old one when the new one is damaged."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import Fixed
from colours import MODELS

from monkey_coder.errors import StoreFormatError
from monkey_coder.policies import LearnerWatch, PolicyWatch
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.learner_status import SILENT_AFTER_S, Doing, LearnerStatus, StatusBoard
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import DirectoryShelf, Said, StoreShelf
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.training_pipeline import TrainedPolicy
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.sqlite_store import SqliteStore


@pytest.fixture
def bundle(trained_policy: TrainedPolicy) -> PolicyBundle:
    trained = trained_policy
    return PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Levels of what was said about policies; threads that earlier tests left may say other things."""
    return [record.levelname for record in caplog.records if record.name == "monkey_coder.policies"]


def live() -> LiveSnapshot:
    return LiveSnapshot(EngineSnapshot(MODELS, configured_strategies(None, None)))


def test_without_a_policy_nothing_changes(tmp_path: Path) -> None:
    snapshot = live()
    PolicyWatch(DirectoryShelf(tmp_path / "none"), snapshot).look()
    assert snapshot().policy_version is None


def test_the_current_policy_is_served_and_followed(tmp_path: Path, bundle: PolicyBundle) -> None:
    snapshot = live()
    watch = PolicyWatch(DirectoryShelf(tmp_path), snapshot, (Fixed("further", [0.5] * len(MODELS)),))
    bundles.publish(tmp_path, bundle, {})
    watch.look()
    assert snapshot().policy_version == 1
    assert snapshot().reliability["dqn"] == bundle.reliability["dqn"]
    assert list(snapshot().strategies) == [*configured_strategies(None, None), "further"]
    bundles.publish(tmp_path, bundle, {})
    watch.look()
    assert snapshot().policy_version == 2
    bundles.rollback(tmp_path)
    watch.look()
    assert snapshot().policy_version == 1


class Damaged(SqliteStore):
    """A store whose file was damaged while it was open."""

    def current_policy(self) -> int | None:
        raise StoreFormatError("the file is damaged")


def test_a_store_that_is_damaged_is_told_of_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Damaged(tmp_path / "store", time.time)) as store:
        watch = PolicyWatch(StoreShelf(store, time.time), live())
        watch.look()
        watch.look()
    assert caplog.text.count("the file is damaged") == 1


def test_a_damaged_policy_is_told_of_and_not_served(
    tmp_path: Path, bundle: PolicyBundle, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = live()
    watch = PolicyWatch(DirectoryShelf(tmp_path), snapshot)
    bundles.publish(tmp_path, bundle, {})
    watch.look()
    bundles.publish(tmp_path, bundle, {})
    (tmp_path / "000002" / "belief.safetensors").write_bytes(b"damaged")
    watch.look()
    watch.look()
    assert snapshot().policy_version == 1
    assert levels(caplog) == ["ERROR"]
    assert "belief.safetensors is damaged" in caplog.text


def test_the_store_is_followed_and_a_withdrawn_policy_is_no_longer_served(
    tmp_path: Path, bundle: PolicyBundle, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(tmp_path, None, time.time)) as store:
        snapshot, shelf = live(), StoreShelf(store, time.time)
        watch = PolicyWatch(shelf, snapshot)
        shelf.set_current(shelf.put(bundle, {}), Said("train"))
        watch.look()
        assert snapshot().policy_version == 1
        number = store.put_policy(b"of another program", b"{}")
        assert store.set_current_policy(number, 1)
        watch.look()
        watch.look()
        assert snapshot().policy_version == 1
        assert levels(caplog) == ["ERROR"]
        assert "policy 2 is no policy of ours" in caplog.text
        assert shelf.switch(None, 2, Said("regression"))
        watch.look()
        assert snapshot().policy_version is None
    watch.look()
    watch.look()
    assert levels(caplog) == ["ERROR", "WARNING"]


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_learner_is_missed_when_it_falls_silent_and_not_when_it_ends_or_never_was(tmp_path: Path) -> None:
    clock = Time()
    with closing(open_store(tmp_path, None, time.time)) as store:
        board = StatusBoard(store)
        watch = LearnerWatch(store, expected=False, wall_clock=clock, clock=clock)

        def said(doing: Doing) -> bool:
            board.write(LearnerStatus(owner="it", doing=doing, started_at=0.0, heartbeat_at=clock()))
            watch.look()
            return watch.missing

        watch.look()
        clock.now += 1_000.0
        watch.look()
        assert (watch.status, watch.missing) == (None, False)
        assert not said("idle")
        clock.now += SILENT_AFTER_S + 1.0
        watch.look()
        assert watch.missing
        assert not said("training")
        assert not said("ended")
        clock.now += 1_000.0
        watch.look()
        assert not watch.missing


def test_one_that_was_lost_long_ago_is_missed_only_where_there_should_be_one_by_now(tmp_path: Path) -> None:
    clock = Time()
    with closing(open_store(tmp_path, None, time.time)) as store:
        StatusBoard(store).write(LearnerStatus(owner="it", doing="idle", started_at=0.0, heartbeat_at=0.0))
        watches = [LearnerWatch(store, expected=e, wall_clock=clock, clock=clock) for e in (True, False)]
        for expected in ([False, False], [True, False]):
            for watch in watches:
                watch.look()
            assert [watch.missing for watch in watches] == expected
            clock.now += SILENT_AFTER_S + 1.0
    watches[0].look()  # the store is away: it is left at what was said before
    assert watches[0].missing
