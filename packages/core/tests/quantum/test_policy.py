"""The numpy policy says what the torch network says, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.neural_networks import (
    Models,
    Observation,
    TwoTower,
    build_network,
    export_policy,
    standardise_inputs,
)
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape, PolicyHeader, read_policy

REFS = tuple(f"maker/model-{n}" for n in range(8))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shaken(config: NetworkConfig, shape: NetworkShape, seed: int) -> TwoTower:
    """A network in which no weight is zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config, shape, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def observed(shape: NetworkShape, requests: int, models: int, rng: np.random.Generator) -> dict[str, Any]:
    whole = {
        "state": rng.normal(size=(requests, shape.state)).astype(np.float32),
        "candidates": rng.random((requests, models)) < 0.7,
        "attempts": rng.integers(-1, 2, (requests, models)).astype(np.int8),
        "base": rng.normal(size=(requests, models)).astype(np.float32),
        "gain": rng.random(size=(requests, models)).astype(np.float32),
    }
    if shape.pair:
        whole["pairs"] = rng.normal(size=(requests, models, shape.pair)).astype(np.float32)
    return whole


hidden = st.lists(st.integers(1, 24), max_size=2).map(tuple)
configs = st.builds(
    NetworkConfig,
    state_hidden=hidden,
    model_hidden=hidden,
    pair_hidden=hidden,
    width=st.integers(1, 12),
    failed_width=st.integers(0, 4),
    activation=st.sampled_from(["relu", "silu", "tanh"]),
    layer_norm=st.booleans(),
    dropout=st.sampled_from([0.0, 0.5]),
    slot_terms=st.sampled_from(["none", "bias", "vector"]),
    dueling=st.booleans(),
    members=st.integers(1, 3),
) | st.builds(
    NetworkConfig,
    name=st.just("per_model"),
    state_hidden=hidden,
    failed_width=st.integers(0, 4),
    dueling=st.booleans(),
    members=st.integers(1, 2),
)
shapes = st.builds(
    NetworkShape, state=st.integers(1, 9), model=st.integers(1, 5), pair=st.integers(0, 3), slots=st.integers(0, 5)
)


@given(configs, shapes, st.integers(0, 9), st.permutations(range(8)), st.data())
@settings(max_examples=150)
def test_agrees_with_torch(tmp_path_factory, config, shape, requests, order, data) -> None:
    """Over architectures, batch sizes (none included), masks, missing parts, and catalogs that know other models."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    network = shaken(config, shape, data.draw(st.integers(0, 1_000)))
    standardise_inputs(network, state=rng.normal(2.0, 3.0, (50, shape.state)), model=rng.normal(size=(50, shape.model)))
    columns = order[: data.draw(st.integers(1, 8))]
    slots = np.array([column if column < shape.slots else -1 for column in columns])
    features = rng.normal(size=(len(columns), shape.model)).astype(np.float32)
    observation = observed(shape, requests, len(columns), rng)
    for name in data.draw(st.sets(st.sampled_from(["attempts", "base", "gain"]))):
        del observation[name]

    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    export_policy(network, path, 1, REFS[: shape.slots])
    policy = Policy.load(path, 1)
    models = policy.encode_models([REFS[column] for column in columns], features)
    ours = policy.member_values(observation, models)
    with torch.no_grad():
        theirs = network(
            Observation.of(observation), Models(torch.from_numpy(features), torch.from_numpy(slots))
        ).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(np.isneginf(ours[0]), ~observation["candidates"])
    np.testing.assert_array_equal(models.known, slots >= 0)


SHAPE = NetworkShape(state=4, model=3, pair=2, slots=2)


@pytest.fixture
def policy(tmp_path) -> Policy:
    export_policy(shaken(NetworkConfig(dueling=True), SHAPE, 0), tmp_path / "p", 7, REFS[:2], {"seed": 5})
    return Policy.load(tmp_path / "p")


def test_says_what_it_is(policy) -> None:
    assert (policy.header.encoding, policy.header.models, policy.header.notes) == (7, REFS[:2], {"seed": 5})


@given(st.integers(0, 2**32 - 1), st.permutations(range(5)))
def test_the_order_of_the_catalog_does_not_matter(seed, order) -> None:
    rng = np.random.default_rng(seed)
    config = NetworkConfig(members=2)
    network = shaken(config, SHAPE, 1)
    arrays = {name: array.numpy() for name, array in network.state_dict().items()}
    observation = observed(SHAPE, 3, 5, rng)
    assume(observation["candidates"].any())
    policy = Policy(PolicyHeader(config, SHAPE, 1, REFS[:2]), arrays)
    features = rng.normal(size=(5, 3)).astype(np.float32)
    plain = policy.q_values(observation, policy.encode_models(REFS[:5], features))
    shuffled = {name: array if name == "state" else array[:, order] for name, array in observation.items()}
    other = policy.q_values(shuffled, policy.encode_models([REFS[n] for n in order], features[list(order)]))
    np.testing.assert_allclose(other, plain[:, order], atol=1e-5)


def test_a_batch_says_what_each_request_alone_says(policy) -> None:
    rng = np.random.default_rng(0)
    observation = observed(SHAPE, 6, 4, rng)
    models = policy.encode_models(REFS[:4], rng.normal(size=(4, 3)).astype(np.float32))
    together = policy.q_values(observation, models)
    for row in range(6):
        alone = policy.q_values({name: array[row : row + 1] for name, array in observation.items()}, models)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("state", np.zeros((2, 5), np.float32), "state has length"),
        ("pairs", np.zeros((2, 4, 1), np.float32), "pairs of shape"),
        ("pairs", None, "pairs of shape"),
    ],
)
def test_observations_that_do_not_fit_are_refused(policy, name, array, says) -> None:
    models = policy.encode_models(REFS[:4], np.zeros((4, 3), np.float32))
    observation = observed(SHAPE, 2, 4, np.random.default_rng(0))
    observation[name] = array
    with pytest.raises(PolicyError, match=says):
        policy.q_values(observation, models)


def test_model_features_that_do_not_fit_are_refused(policy) -> None:
    with pytest.raises(PolicyError, match="model features have shape"):
        policy.encode_models(REFS[:4], np.zeros((4, 2), np.float32))


def test_weights_that_do_not_fit_the_header_are_refused(tmp_path) -> None:
    export_policy(shaken(NetworkConfig(), SHAPE, 0), tmp_path / "p", 1, REFS[:2])
    header, arrays = read_policy(tmp_path / "p")
    with pytest.raises(PolicyError, match=r"do not fit its header: state_tower\.linears\.0\.weight"):
        Policy(
            replace(header, network=NetworkConfig(failed_width=8, state_hidden=(128,))),
            arrays | {"state_tower.linears.0.weight": np.zeros(3)},
        )
    with pytest.raises(PolicyError, match="slot_bias"):
        Policy(header, {name: array for name, array in arrays.items() if name != "slot_bias"})
    with pytest.raises(PolicyError, match="value"):
        Policy(replace(header, network=NetworkConfig(dueling=True)), arrays)


def test_weights_that_are_not_finite_are_refused(tmp_path) -> None:
    export_policy(shaken(NetworkConfig(), SHAPE, 0), tmp_path / "p", 1, REFS[:2])
    header, arrays = read_policy(tmp_path / "p")
    with pytest.raises(PolicyError, match=r"slot_bias are not finite"):
        Policy(header, arrays | {"slot_bias": np.full((1, 2), np.nan, np.float32)})


def test_serving_does_not_load_torch() -> None:
    code = "import sys, monkey_coder.quantum.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
