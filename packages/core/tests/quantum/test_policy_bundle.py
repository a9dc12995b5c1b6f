"""Numbered policies on disk: whole or not at all, checked, kept, rolled back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colours import MODELS, colour_tasks

from monkey_coder.errors import PolicyError
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.training_figures import as_batch
from monkey_coder.quantum.training_pipeline import TrainedPolicy


@pytest.fixture
def bundle(trained_policy: TrainedPolicy) -> PolicyBundle:
    trained = trained_policy
    return PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)


def test_what_is_read_serves_exactly_what_was_written(tmp_path: Path, bundle: PolicyBundle) -> None:
    number = bundles.publish(tmp_path, bundle, {"card.md": b"# Policy"})
    read = bundles.load_policy(tmp_path, 1)
    assert read.parts.version == number == 1
    assert read.reliability == dict(bundle.reliability)
    assert read.card["data"] == json.loads(json.dumps(bundle.card["data"]))
    data = colour_tasks(30, seed=8)
    nothing = np.zeros(data.scores.shape, dtype=np.bool_)
    batch = as_batch(data, np.arange(30), np.full(30, 2.0, np.float32), nothing, 3)
    ours, theirs = (
        ServedPolicy.bind(each.parts, MODELS.refs, encode_models(MODELS)).value(batch) for each in (bundle, read)
    )
    assert np.array_equal(ours.q, theirs.q)
    assert np.array_equal(ours.estimate.success, theirs.estimate.success)
    recalls = [
        m.recall(data.embedding, data.marks, MODELS.refs, ours.estimate.prior) for m in (bundle.memory, read.memory)
    ]
    assert np.array_equal(recalls[0].success, recalls[1].success)
    assert (tmp_path / "000001" / "card.md").read_bytes() == b"# Policy"


def test_the_same_policy_gives_the_same_files(tmp_path: Path, bundle: PolicyBundle) -> None:
    for root in ("a", "b"):
        bundles.publish(tmp_path / root, bundle, {})
    ours, theirs = (sorted((tmp_path / root / "000001").iterdir()) for root in ("a", "b"))
    assert [each.name for each in ours] == [each.name for each in theirs]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(ours, theirs, strict=True))


def test_a_policy_without_a_network_is_the_lookahead(tmp_path: Path, bundle: PolicyBundle) -> None:
    bundles.publish(tmp_path, replace(bundle, parts=replace(bundle.parts, network=None)), {})
    read = bundles.load_policy(tmp_path, 1)
    assert read.parts.network is None


def test_numbers_rise_and_old_policies_go_but_not_the_one_in_use(tmp_path: Path, bundle: PolicyBundle) -> None:
    assert bundles.numbers(tmp_path / "nowhere") == ()
    assert bundles.current(tmp_path) is None
    for expected in (1, 2):
        assert bundles.publish(tmp_path, bundle, {}, keep=2) == expected
    bundles.set_current(tmp_path, 1)
    for _ in range(3):
        bundles.publish(tmp_path, bundle, {}, make_current=False, keep=2)
    assert bundles.numbers(tmp_path) == (1, 4, 5)
    assert bundles.current(tmp_path) == 1
    assert not list(tmp_path.glob(".draft*"))


def test_rolling_back_goes_to_what_was_served_before(tmp_path: Path, bundle: PolicyBundle) -> None:
    for _ in range(3):
        bundles.publish(tmp_path, bundle, {})
    bundles.set_current(tmp_path, 1)
    assert bundles.rollback(tmp_path) == 3
    assert bundles.rollback(tmp_path) == 2
    assert bundles.current(tmp_path) == 2
    assert bundles.publish(tmp_path, bundle, {}) == 4
    assert bundles.rollback(tmp_path) == 2
    assert bundles.rollback(tmp_path) == 1
    with pytest.raises(PolicyError, match="no earlier policy"):
        bundles.rollback(tmp_path)


def test_serving_the_same_again_is_no_step_to_go_back_over(tmp_path: Path, bundle: PolicyBundle) -> None:
    bundles.publish(tmp_path, bundle, {})
    bundles.set_current(tmp_path, 1)
    with pytest.raises(PolicyError, match="no earlier policy"):
        bundles.rollback(tmp_path)


def test_a_policy_that_is_not_there_is_named(tmp_path: Path, bundle: PolicyBundle) -> None:
    bundles.publish(tmp_path, bundle, {})
    for act in (bundles.set_current, bundles.load_policy, bundles.directory_of):
        with pytest.raises(PolicyError, match=r"no policy 7 .*there are: 1"):
            act(tmp_path, 7)


@pytest.mark.parametrize("name", ["success", "belief", "dqn", "memory"])
def test_a_damaged_file_is_never_served(tmp_path: Path, bundle: PolicyBundle, name: str) -> None:
    bundles.publish(tmp_path, bundle, {})
    path = tmp_path / "000001" / f"{name}.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(PolicyError, match=rf"{name}\.safetensors is damaged"):
        bundles.load_policy(tmp_path, 1)
    path.unlink()
    with pytest.raises(PolicyError, match=rf"{name}\.safetensors cannot be read"):
        bundles.load_policy(tmp_path, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "bundle format 99"),
        ({"encoding": -1}, "state encoding -1"),
        ({"files": None}, "cannot be read as a policy"),
        ({"noise": "much"}, "cannot be read as a policy"),
        ({"headers": {}}, "cannot be read as a policy"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, bundle: PolicyBundle, change: dict, message: str) -> None:
    bundles.publish(tmp_path, bundle, {})
    path = tmp_path / "000001" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PolicyError, match=message):
        bundles.load_policy(tmp_path, 1)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, bundle: PolicyBundle, text: str) -> None:
    bundles.publish(tmp_path, bundle, {})
    (tmp_path / "000001" / "manifest.json").write_text(text)
    with pytest.raises(PolicyError, match=r"manifest\.json"):
        bundles.load_policy(tmp_path, 1)


def test_a_pointer_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("one")
    with pytest.raises(PolicyError, match="write the number"):
        bundles.current(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path: Path, bundle: PolicyBundle) -> None:
    with pytest.raises(FileNotFoundError):
        bundles.publish(tmp_path, bundle, {"no/such/folder": b""})
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_deleted_policies_are_not_used_again(tmp_path: Path, bundle: PolicyBundle) -> None:
    for _ in range(2):
        bundles.publish(tmp_path, bundle, {})
    for each in (tmp_path / "000002").iterdir():
        each.unlink()
    (tmp_path / "000002").rmdir()
    assert bundles.publish(tmp_path, bundle, {}) == 3
