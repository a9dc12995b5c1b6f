"""Properties of the networks that routing relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monkey_coder.quantum.neural_networks import (
    NETWORKS,
    Models,
    Observation,
    TwoTower,
    build_network,
    export_policy,
    hard_update,
    import_network,
    soft_update,
    standardise_inputs,
    with_slots,
)
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape, read_policy

SHAPE = NetworkShape(state=5, model=3, pair=2, slots=4)
PLAIN = NetworkConfig()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(config: NetworkConfig = PLAIN, seed: int = 0) -> TwoTower:
    """A network in which no weight is zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(config, SHAPE, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def look(requests: int = 6, models: int = 4, seed: int = 0) -> tuple[Observation, Models]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    observation = Observation(
        state=normal(requests, SHAPE.state),
        candidates=torch.rand((requests, models), generator=generator) < 0.8,
        attempts=torch.randint(-1, 2, (requests, models), generator=generator).float(),
        pairs=normal(requests, models, SHAPE.pair),
        base=normal(requests, models),
    )
    return observation, Models(normal(models, SHAPE.model), torch.arange(models))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dueling", [False, True])
def test_a_fresh_network_says_the_base(name, dueling) -> None:
    observation, models = look()
    network = build_network(NetworkConfig(name=name, dueling=dueling), SHAPE, torch.Generator().manual_seed(0))
    values = network(observation, models)[0]
    torch.testing.assert_close(values[observation.candidates], observation.base[observation.candidates])
    assert (values[~observation.candidates] == -math.inf).all()


def test_what_is_no_candidate_does_not_change_the_values_of_others() -> None:
    observation, models = look()
    observation = replace(observation, candidates=torch.ones_like(observation.candidates))
    fewer = observation.candidates.clone()
    fewer[:, 2] = False
    network = make()
    whole, part = network(observation, models), network(replace(observation, candidates=fewer), models)
    torch.testing.assert_close(whole[:, :, [0, 1, 3]], part[:, :, [0, 1, 3]])


def test_dueling_splits_off_the_mean_over_candidates_alone() -> None:
    """V is what the advantages leave: the mean of Q over the candidates, whichever those are."""
    observation, models = look()
    observation = replace(observation, base=None)
    network = make(NetworkConfig(dueling=True))
    means = []
    for chosen in ([True, True, True, True], [True, False, False, True], [False, True, False, False]):
        candidates = torch.tensor(chosen).expand(6, -1)
        values = network(replace(observation, candidates=candidates), models)[0]
        means.append(values[:, torch.tensor(chosen)].mean(dim=1))
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(means[0], means[2])


def test_an_unknown_model_is_valued_by_its_features_alone() -> None:
    """Two models with the same features and no slot are worth the same; a slot makes the difference."""
    observation, models = look()
    observation = replace(observation, pairs=observation.pairs[:, :1].expand(-1, 4, -1), base=None)
    observation = replace(observation, candidates=torch.ones_like(observation.candidates))
    same = Models(models.features[:1].expand(4, -1), torch.tensor([-1, -1, 2, 3]))
    values = make(NetworkConfig(failed_width=0))(observation, same)[0]
    torch.testing.assert_close(values[:, 0], values[:, 1])
    assert (values[:, 0] - values[:, 2]).abs().min() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_the_value_depends_on_which_model_was_rejected(name) -> None:
    observation, models = look(requests=2)
    state = observation.state[:1].expand(2, -1)
    attempts = torch.tensor([[-1.0, 0, 0, 0], [0, -1.0, 0, 0]])
    both = replace(observation, state=state, attempts=attempts, pairs=observation.pairs[:1].expand(2, -1, -1))
    both = replace(both, base=None, candidates=torch.tensor([[False, False, True, True]]).expand(2, -1))
    values = make(NetworkConfig(name=name, failed_width=4))(both, models)[0]
    assert (values[0, 2:] - values[1, 2:]).abs().min() > 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_members_are_networks_of_their_own(name) -> None:
    observation, models = look()
    values = make(NetworkConfig(name=name, members=3))(observation, models)
    chosen = values[:, observation.candidates]
    assert chosen.shape[0] == 3
    assert (chosen[0] - chosen[1]).abs().min() > 0
    assert (chosen[1] - chosen[2]).abs().min() > 0


def test_same_seed_same_network() -> None:
    observation, models = look()
    torch.testing.assert_close(make(seed=4)(observation, models), make(seed=4)(observation, models), rtol=0, atol=0)


@pytest.mark.parametrize("config", [NetworkConfig(dropout=0.5), NetworkConfig(slot_dropout=0.5)])
def test_dropout_works_only_with_noise_and_is_repeated_by_its_seed(config) -> None:
    observation, models = look()
    network = make(config)
    calm = network(observation, models)
    torch.testing.assert_close(calm, network(observation, models), rtol=0, atol=0)
    noisy = [network(observation, models, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    torch.testing.assert_close(noisy[0], noisy[1], rtol=0, atol=0)
    assert not torch.equal(noisy[0], noisy[2])
    assert not torch.equal(noisy[0], calm)


def test_slot_dropout_makes_a_known_model_look_unknown() -> None:
    observation, models = look(models=4)
    network = make(NetworkConfig(slot_dropout=0.999, failed_width=0))
    unknown = Models(models.features, torch.full((4,), -1))
    torch.testing.assert_close(
        network(observation, models, torch.Generator().manual_seed(0)), network(observation, unknown)
    )


def test_missing_pairs_are_named() -> None:
    observation, models = look()
    with pytest.raises(ValueError, match="pairs of 2 features"):
        make()(replace(observation, pairs=None), models)


def test_standardised_inputs_do_not_care_for_units() -> None:
    rng = np.random.default_rng(0)
    observation, models = look()
    states = rng.normal(size=(100, 5)).astype(np.float32)
    first, second = make(), make()
    standardise_inputs(first, state=states)
    standardise_inputs(second, state=states * 1_000 + 7)
    scaled = replace(observation, state=observation.state * 1_000 + 7)
    torch.testing.assert_close(first(observation, models), second(scaled, models), atol=1e-3, rtol=1e-3)


def test_an_input_that_never_varied_is_hidden() -> None:
    observation, models = look()
    states = np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32)
    states[:, 2] = 4.0
    network = make()
    standardise_inputs(network, state=states)
    other = observation.state.clone()
    other[:, 2] = 1e6
    torch.testing.assert_close(network(observation, models), network(replace(observation, state=other), models))


def test_soft_update_goes_part_of_the_way() -> None:
    target, online = make(seed=1), make(seed=2)
    expected = [0.75 * old + 0.25 * new for old, new in zip(target.parameters(), online.parameters(), strict=True)]
    soft_update(target, online, 0.25)
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.data, value.data)


def test_an_input_that_hardly_varied_is_not_blown_up_when_it_does() -> None:
    network = make()
    standardise_inputs(network, state=np.random.default_rng(0).normal(0.5, 1e-4, (64, 5)))
    assert 0.0 < float(network.state_scale.abs().max()) < 100.0


def test_hard_update_copies_and_shares_nothing() -> None:
    observation, models = look()
    target, online = make(seed=1), make(seed=2)
    standardise_inputs(online, state=np.random.default_rng(0).normal(3.0, 2.0, (50, 5)))
    hard_update(target, online)
    copied = target(observation, models).clone()
    torch.testing.assert_close(copied, online(observation, models))
    with torch.no_grad():
        next(iter(online.parameters())).add_(1.0)
    torch.testing.assert_close(copied, target(observation, models))


@pytest.mark.parametrize("name", NETWORKS)
def test_models_come_and_go_without_touching_the_others(name) -> None:
    observation, models = look()
    network = make(NetworkConfig(name=name, dueling=True, members=2))
    changed = with_slots(network, [3, -1, 0])
    kept = Models(models.features[[3, 0]], torch.tensor([3, 0]))
    moved = Models(models.features[[3, 0]], torch.tensor([0, 2]))

    def narrow(columns: list[int]) -> Observation:
        arrays = {name: getattr(observation, name)[:, columns] for name in ("candidates", "attempts", "pairs", "base")}
        return replace(observation, **arrays)

    torch.testing.assert_close(network(narrow([3, 0]), kept), changed(narrow([3, 0]), moved))
    new, unknown = Models(models.features[:1], torch.tensor([1])), Models(models.features[:1], torch.tensor([-1]))
    torch.testing.assert_close(changed(narrow([1]), new), changed(narrow([1]), unknown))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_is_rebuilt_exactly(tmp_path, name) -> None:
    observation, models = look()
    network = make(NetworkConfig(name=name, layer_norm=True, members=2))
    export_policy(network, tmp_path / "p", 3, [f"m/{n}" for n in range(4)])
    again = import_network(*read_policy(tmp_path / "p", 3))
    torch.testing.assert_close(network(observation, models), again(observation, models), rtol=0, atol=0)


def test_dead_units_are_counted() -> None:
    observation, models = look(requests=50)
    network = make(NetworkConfig(activation="relu", state_hidden=(10, 10)))
    alive = network.dead_share(observation, models)
    with torch.no_grad():
        network.state_tower.linears[1].bias.fill_(-1e6)
    assert network.dead_share(observation, models) == pytest.approx(0.5 + alive / 2, abs=0.05)
    assert make(NetworkConfig(state_hidden=())).dead_share(observation, models) == 0.0


@given(st.permutations(range(4)))
def test_the_order_of_models_does_not_matter(order) -> None:
    observation, models = look()
    arrays = {name: getattr(observation, name)[:, order] for name in ("candidates", "attempts", "pairs", "base")}
    shuffled = Models(models.features[list(order)], models.slots[list(order)])
    network = make(NetworkConfig(dueling=True))
    torch.testing.assert_close(
        network(observation, models)[:, :, list(order)], network(replace(observation, **arrays), shuffled)
    )
