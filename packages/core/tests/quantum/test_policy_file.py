"""Policy files: what is written comes back, and what is broken is refused with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape, PolicyHeader, read_policy, write_policy

HEADER = PolicyHeader(NetworkConfig(), NetworkShape(3, 2, slots=2), 1, ("a/one", "b/two"), {"seed": 4})
ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}


@pytest.fixture
def path(tmp_path):
    write_policy(tmp_path / "policy.safetensors", HEADER, ARRAYS)
    return tmp_path / "policy.safetensors"


def test_comes_back_as_it_was(path) -> None:
    header, arrays = read_policy(path, encoding=1)
    assert header == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_transposed_weights_come_back_as_they_were(tmp_path) -> None:
    write_policy(tmp_path / "p", HEADER, {"weight": ARRAYS["weight"].T})
    np.testing.assert_array_equal(read_policy(tmp_path / "p")[1]["weight"], ARRAYS["weight"].T)


def test_another_encoding_is_refused_and_both_are_named(path) -> None:
    with pytest.raises(PolicyError, match="trained on encoding 1, this engine speaks 2"):
        read_policy(path, encoding=2)


@given(st.data())
def test_any_flipped_bit_is_noticed(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    write_policy(path, HEADER, ARRAYS)
    whole = bytearray(path.read_bytes())
    weights = sum(array.nbytes for array in ARRAYS.values())
    at = data.draw(st.integers(len(whole) - weights, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises(PolicyError, match="damaged"):
        read_policy(path)


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_file_cut_short_is_refused(tmp_path_factory, share) -> None:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    write_policy(path, HEADER, ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(PolicyError, match=r"policy\.safetensors"):
        read_policy(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(PolicyError, match="none"):
        read_policy(tmp_path / "none")


def test_safetensors_of_something_else_are_refused(tmp_path) -> None:
    save_file(ARRAYS, tmp_path / "other")
    with pytest.raises(PolicyError, match="not a policy file"):
        read_policy(tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "format 99"),
        ({"network": {"name": "oracle"}}, "oracle"),
        ({"network": {"unheard_of": 1}}, "unheard_of"),
        ({"models": ["a/one"]}, "slots"),
        ({"shape": {"state": 0, "model": 1}}, "state is 0"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(path, change, says) -> None:
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    outer = json.loads(whole[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["monkey_coder_policy"]) | change
    outer["__metadata__"]["monkey_coder_policy"] = json.dumps(inner)
    text = json.dumps(outer).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    with pytest.raises(PolicyError, match=says):
        read_policy(path)


def test_a_failed_write_leaves_the_old_policy(path) -> None:
    with pytest.raises(TypeError):
        write_policy(path, PolicyHeader(NetworkConfig(), NetworkShape(1, 1), 1, (), {"seed": object()}), ARRAYS)
    assert read_policy(path)[0] == HEADER


@pytest.mark.parametrize(
    "knobs",
    [
        {"name": "oracle"},
        {"activation": "step"},
        {"slot_terms": "some"},
        {"state_hidden": (16, 0)},
        {"width": 0},
        {"failed_width": -1},
        {"members": 0},
        {"dropout": 1.0},
        {"slot_dropout": -0.1},
        {"name": "per_model", "slot_terms": "bias"},
        {"slot_terms": "none", "slot_dropout": 0.5},
    ],
)
def test_refuses_senseless_architectures(knobs) -> None:
    with pytest.raises(ValueError, match=next(reversed(knobs))):
        NetworkConfig(**knobs)


def test_a_slot_belongs_to_one_model() -> None:
    with pytest.raises(ValueError, match="different models"):
        PolicyHeader(NetworkConfig(), NetworkShape(1, 1, slots=2), 1, ("a/one", "a/one"))
