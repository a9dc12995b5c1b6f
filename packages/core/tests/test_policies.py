"""A deployment serves its current policy, takes a new one over, and keeps the old one when the new one is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import Fixed
from colours import MODELS

from monkey_coder.policies import PolicyWatch
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.training_pipeline import TrainedPolicy


@pytest.fixture
def bundle(trained_policy: TrainedPolicy) -> PolicyBundle:
    trained = trained_policy
    return PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)


def live() -> LiveSnapshot:
    return LiveSnapshot(EngineSnapshot(MODELS, configured_strategies(None, None)))


def test_without_a_policy_nothing_changes(tmp_path: Path) -> None:
    snapshot = live()
    PolicyWatch(tmp_path / "none", snapshot).look()
    assert snapshot().policy_version is None


def test_the_current_policy_is_served_and_followed(tmp_path: Path, bundle: PolicyBundle) -> None:
    snapshot = live()
    watch = PolicyWatch(tmp_path, snapshot, (Fixed("further", [0.5] * len(MODELS)),))
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


def test_a_damaged_policy_is_told_of_and_not_served(
    tmp_path: Path, bundle: PolicyBundle, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = live()
    watch = PolicyWatch(tmp_path, snapshot)
    bundles.publish(tmp_path, bundle, {})
    watch.look()
    bundles.publish(tmp_path, bundle, {})
    (tmp_path / "000002" / "belief.safetensors").write_bytes(b"damaged")
    watch.look()
    watch.look()
    assert snapshot().policy_version == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "belief.safetensors is damaged" in caplog.text
