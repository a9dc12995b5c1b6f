"""Q-networks in torch: the two-tower network of design section 6, and Mnih's head with one output per known model.

A network values every model for every request of a batch: Q = base + f(state, rejected models) . g(model features)
plus terms of the single model and of the (request, model) pair. The state holds the preferences, so one network serves
the whole cost-quality frontier. Its members are independent networks computed side by side: every weight has a
leading member axis, and every result is (members, requests, models). `policy.py` computes the same without torch.

There is no training mode to forget: a network is deterministic unless a call is handed a generator for dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from monkey_coder.quantum.policy_file import (
    NORM_EPSILON,
    Activation,
    NetworkConfig,
    NetworkShape,
    PolicyHeader,
    write_policy,
)

LEAST_DEVIATION: Final = 0.05
"""Smallest deviation that an input is scaled by; most inputs are probabilities, of which a twentieth is little."""

_OPTIONAL: Final = ("attempts", "pairs", "base", "gain")
_ACTIVATIONS: Final[Mapping[Activation, Callable[[Tensor], Tensor]]] = MappingProxyType(
    {"relu": torch.relu, "silu": nn.functional.silu, "tanh": torch.tanh}
)


@dataclass(frozen=True, slots=True)
class Models:
    """The models that one call values, one a column.

    Attributes:
        features: (M, F) encoded models.
        slots: (M,) slot of each model's own terms; -1 for a model that has none.
    """

    features: Tensor
    slots: Tensor


@dataclass(frozen=True, slots=True)
class Observation:
    """A batch of requests (B), as tensors.

    Attributes:
        state: (B, S) encoded requests, preferences included.
        candidates: (B, M) bool, which models may be chosen.
        attempts: (B, M) -1 rejected, 1 accepted, 0 untried; None: nothing was tried.
        pairs: (B, M, P) features of each pair of request and model; None where the network has none.
        base: (B, M) known part of the value, which the network only adds to; None: 0.
        gain: (B, M) factor on what the network adds, 0 where the base is exact; None: 1.
    """

    state: Tensor
    candidates: Tensor
    attempts: Tensor | None = None
    pairs: Tensor | None = None
    base: Tensor | None = None
    gain: Tensor | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], device: torch.device | None = None) -> Self:
        """Take the arrays of these names; other names are ignored.

        Raises:
            KeyError: `state` or `candidates` is missing.
        """

        def tensor(name: str, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(arrays[name], dtype=dtype, device=device)

        optional = {name: tensor(name, torch.float32) for name in _OPTIONAL if name in arrays}
        return cls(tensor("state", torch.float32), tensor("candidates", torch.bool), **optional)


class StackedLinear(nn.Module):
    """One linear layer for each member; weight (K, inputs, outputs), bias (K, 1, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, gain: float, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(members, inputs, outputs, generator=generator) * gain / math.sqrt(max(1, inputs))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.matmul(inputs, self.weight) + self.bias

    def silence(self) -> None:
        """Put out 0, whatever comes in."""
        nn.init.zeros_(self.weight)


class StackedNorm(nn.Module):
    """Layer normalisation over the last axis, with a gain and a bias for each member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        plain = nn.functional.layer_norm(inputs, inputs.shape[-1:], eps=NORM_EPSILON)
        return plain * self.gain + self.bias


class Tower(nn.Module):
    """A multilayer perceptron for each member: (K or 1, N, inputs) to (K, N, outputs)."""

    def __init__(self, config: NetworkConfig, sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        last = len(sizes) - 2
        self.linears = nn.ModuleList(
            StackedLinear(config.members, n_in, n_out, 1.0 if layer == last else math.sqrt(2.0), generator)
            for layer, (n_in, n_out) in enumerate(pairwise(sizes))
        )
        self.norms = nn.ModuleList(
            StackedNorm(config.members, width) for width in (sizes[1:-1] if config.layer_norm else ())
        )
        self._activate = _ACTIVATIONS[config.activation]
        self._dropout = config.dropout

    @override
    def forward(self, inputs: Tensor, noise: torch.Generator | None = None) -> Tensor:
        hidden = self.hidden(inputs, noise)
        out: Tensor = self.linears[-1](hidden[-1] if hidden else inputs)
        return out

    def silence(self) -> None:
        """Put out 0, whatever comes in."""
        nn.init.zeros_(self.linears[-1].weight)  # type: ignore[arg-type]

    def hidden(self, inputs: Tensor, noise: torch.Generator | None = None) -> list[Tensor]:
        """Return what each hidden layer puts out."""
        layers: list[Tensor] = []
        for layer, linear in enumerate(list(self.linears)[:-1]):
            inputs = linear(inputs)
            if len(self.norms):
                inputs = self.norms[layer](inputs)
            inputs = _dropped(self._activate(inputs), self._dropout, noise)
            layers.append(inputs)
        return layers


class TwoTower(nn.Module):
    """Q(s, a) = base + f(s, rejected) . (g(features of a) + vector of a) / sqrt(width) + bias of a + pair term.

    The terms of a single model are 0 for a model without a slot, which then is valued by its features alone.
    """

    # What puts out 0 at first. f may be 0, since its gradient is g, which is not.
    _silent: ClassVar[tuple[str, ...]] = ("state_tower", "pair_tower")

    def __init__(self, config: NetworkConfig, shape: NetworkShape, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        members, width = config.members, config.width
        for name, size in (("state", shape.state), ("model", shape.model), ("pair", shape.pair)):
            self.register_buffer(f"{name}_shift", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.state_tower = Tower(config, (shape.state + config.failed_width, *config.state_hidden, width), generator)
        self._add_model_tower(generator)
        if config.failed_width:
            self.failed = StackedLinear(members, width, config.failed_width, 1.0, generator)
        if shape.pair:
            self.pair_tower = Tower(config, (shape.pair, *config.pair_hidden, 1), generator)
        if config.slot_terms != "none":
            self.slot_bias = nn.Parameter(torch.zeros(members, shape.slots))
        if config.slot_terms == "vector":
            self.slot_vector = nn.Parameter(torch.zeros(members, shape.slots, width))
        if config.dueling:
            self.value = StackedLinear(members, width, 1, 1.0, generator)
        if config.start_at_base:
            for name, part in self.named_children():
                if name in self._silent:
                    part.silence()  # type: ignore[operator]

    def _add_model_tower(self, generator: torch.Generator) -> None:
        sizes = (self.shape.model, *self.config.model_hidden, self.config.width)
        self.model_tower = Tower(self.config, sizes, generator)

    def _feature_vectors(self, models: Models, noise: torch.Generator | None) -> Tensor:
        vectors: Tensor = self.model_tower(self._scaled(models.features, "model").unsqueeze(0), noise)
        return vectors

    def _scaled(self, values: Tensor, name: str) -> Tensor:
        scaled: Tensor = (values - getattr(self, f"{name}_shift")) * getattr(self, f"{name}_scale")
        return scaled

    def _own_terms(self, models: Models, noise: torch.Generator | None) -> Tensor:
        """(K, M, 1) 1 where a model brings its own terms, 0 where it has no slot or they are dropped."""
        known = (models.slots >= 0).to(models.features.dtype)
        own = known.expand(self.config.members, -1).unsqueeze(2)
        if noise is not None and self.config.slot_dropout:
            own = own * (torch.rand(own.shape, generator=noise, device=own.device) >= self.config.slot_dropout)
        return own

    def _encode(self, observation: Observation, models: Models, noise: torch.Generator | None) -> tuple[Tensor, ...]:
        """Return what the state tower reads (K or 1, B, S'), the model vectors (K, M, width) and biases (K, M, 1)."""
        vectors = self._feature_vectors(models, noise)
        bias = torch.zeros_like(vectors[:, :, :1])
        if self.config.slot_terms != "none" and self.shape.slots:
            slots, own = models.slots.clamp(min=0), self._own_terms(models, noise)
            bias = self.slot_bias[:, slots].unsqueeze(2) * own
            if self.config.slot_terms == "vector":
                vectors = vectors + self.slot_vector[:, slots] * own
        inputs = self._scaled(observation.state, "state").unsqueeze(0)
        if self.config.failed_width:
            inputs = inputs.expand(self.config.members, -1, -1)
            if observation.attempts is None:
                failed = inputs.new_zeros(*inputs.shape[:2], self.config.failed_width)
            else:
                failed = (observation.attempts < 0).to(vectors.dtype) @ self.failed(vectors)
            inputs = torch.cat((inputs, failed), dim=2)
        return inputs, vectors, bias

    @override
    def forward(self, observation: Observation, models: Models, noise: torch.Generator | None = None) -> Tensor:
        """Value every model for every request.

        Args:
            observation: The requests (B).
            models: The models (M).
            noise: Source of dropout, for training; None: no dropout.

        Returns:
            (K, B, M) values in units of reward; -inf for models that are no candidates.
        """
        inputs, vectors, bias = self._encode(observation, models, noise)
        state = self.state_tower(inputs, noise)
        q: Tensor = state @ vectors.transpose(1, 2) / math.sqrt(self.config.width) + bias.transpose(1, 2)
        if self.shape.pair:
            if observation.pairs is None:
                raise ValueError(f"the network needs pairs of {self.shape.pair} features in its observation")
            flat = self._scaled(observation.pairs, "pair").flatten(0, 1).unsqueeze(0)
            q = q + self.pair_tower(flat, noise).view(q.shape)
        if self.config.dueling:
            chosen = observation.candidates.to(q.dtype)
            mean = (q * chosen).sum(dim=2, keepdim=True) / chosen.sum(dim=1).clamp(min=1.0)[:, None]
            q = q - mean + self.value(state)
        if observation.gain is not None:
            q = q * observation.gain
        if observation.base is not None:
            q = q + observation.base
        return q.masked_fill(~observation.candidates, -math.inf)

    @torch.no_grad()
    def dead_share(self, observation: Observation, models: Models) -> float:
        """Share of hidden units of the state tower that say the same for all requests of a batch, 0..1."""
        inputs, _, _ = self._encode(observation, models, None)
        layers = self.state_tower.hidden(inputs)
        if not layers:
            return 0.0
        spread = torch.cat([layer.amax(dim=1) - layer.amin(dim=1) for layer in layers], dim=1)
        return float((spread < 1e-6).float().mean())


class PerModel(TwoTower):
    """Mnih's head: Q(s, a) = base + f(s) . vector of a + bias of a; an unknown model is worth its base."""

    # The vectors of models are 0 at first: if f were, too, neither would ever learn.
    _silent = ("value", "pair_tower")

    @override
    def _add_model_tower(self, generator: torch.Generator) -> None:
        """Features are not read."""

    @override
    def _feature_vectors(self, models: Models, noise: torch.Generator | None) -> Tensor:
        return models.features.new_zeros(self.config.members, len(models.slots), self.config.width)


NETWORKS: Final[Mapping[str, type[TwoTower]]] = MappingProxyType({"two_tower": TwoTower, "per_model": PerModel})
"""Every architecture by its name in `NetworkConfig.name`."""


def build_network(config: NetworkConfig, shape: NetworkShape, generator: torch.Generator) -> TwoTower:
    """Make a fresh network with random weights from a CPU generator."""
    return NETWORKS[config.name](config, shape, generator)


@torch.no_grad()
def standardise_inputs(network: TwoTower, **samples: NDArray[np.floating]) -> None:
    """Make the network see its inputs with mean 0 and deviation 1, as in these samples.

    An entry that never varies in the samples is hidden for good: nothing can be learned about it. One that hardly
    varies is blown up no more than a deviation of `LEAST_DEVIATION` would be: it may vary much more later.

    Args:
        network: Changed in place.
        **samples: `state` (N, S), `model` (N, F), `pair` (N, P), whichever shall be scaled.
    """
    for name, rows in samples.items():
        deviation = rows.std(axis=0, dtype=np.float64)
        seen = np.maximum(deviation, LEAST_DEVIATION)
        scale = np.divide(1.0, seen, out=np.zeros_like(deviation), where=deviation > 1e-6)
        getattr(network, f"{name}_shift").copy_(torch.as_tensor(rows.mean(axis=0, dtype=np.float64)))
        getattr(network, f"{name}_scale").copy_(torch.as_tensor(scale))


@torch.no_grad()
def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the target a share tau (0..1) of the way to the online network (Lillicrap et al. 2016)."""
    for ours, theirs in zip(target.parameters(), online.parameters(), strict=True):
        ours.lerp_(theirs, tau)


def hard_update(target: nn.Module, online: nn.Module) -> None:
    """Make the target a copy of the online network, buffers included (Mnih et al. 2015)."""
    target.load_state_dict(online.state_dict())


@torch.no_grad()
def with_slots(network: TwoTower, kept: Sequence[int]) -> TwoTower:
    """Copy a network for another set of known models.

    Args:
        network: Not changed.
        kept: For each new slot, the old slot of that model, or -1 for a new model, whose own terms are 0.
    """
    shape = replace(network.shape, slots=len(kept))
    changed = build_network(network.config, shape, torch.Generator().manual_seed(0))
    old, new = network.state_dict(), changed.state_dict()
    for name, array in new.items():
        if not name.startswith("slot_"):
            array.copy_(old[name])
            continue
        for slot, before in enumerate(kept):
            if before >= 0:
                array[:, slot] = old[name][:, before]
    return changed


def export_policy(
    network: TwoTower, path: Path, encoding: int, models: Sequence[str], notes: Mapping[str, Any] | None = None
) -> None:
    """Write the network as a policy file.

    Args:
        network: The weights to serve.
        path: Where to; an older file is replaced.
        encoding: Version of the state encoding it was trained on.
        models: Ref of the model of each slot.
        notes: JSON values to go along.
    """
    header = PolicyHeader(network.config, network.shape, encoding, tuple(models), notes or {})
    write_policy(path, header, {name: array.numpy(force=True) for name, array in network.state_dict().items()})


def import_network(header: PolicyHeader, arrays: Mapping[str, NDArray[Any]]) -> TwoTower:
    """Rebuild a network from what `read_policy` returned.

    Raises:
        RuntimeError: Names or shapes of the arrays do not fit the header.
    """
    network = build_network(header.network, header.shape, torch.Generator().manual_seed(0))
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return network


def _dropped(values: Tensor, share: float, noise: torch.Generator | None) -> Tensor:
    if noise is None or share == 0.0:
        return values
    kept = torch.rand(values.shape, generator=noise, device=values.device) >= share
    return values * kept / (1.0 - share)
