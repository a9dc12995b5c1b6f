"""The trained Q-network as the web process serves it: numpy alone, from a policy file; never torch.

Computes exactly what `neural_networks.py` does without dropout. Models are encoded once per catalog (`encode_models`),
so that a batch of requests costs one pass of the state tower and one product with the model vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.policy_file import NORM_EPSILON, Activation, NetworkConfig, PolicyHeader, read_policy

FloatArray = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class EncodedModels:
    """The model side of a policy, for the models (M) of one catalog.

    Attributes:
        vectors: (K, width, M) g(features) plus own vector, divided by sqrt(width).
        bias: (K, 1, M) own bias.
        failed: (K, M, failed_width) what a rejected attempt of the model adds to the state.
        known: (M,) whether the policy was trained with this very model.
    """

    vectors: FloatArray
    bias: FloatArray
    failed: FloatArray
    known: NDArray[np.bool_]


class Policy:
    """One immutable set of weights. All methods are pure and may be called from any thread.

    Args:
        header: What the file says about itself.
        arrays: The weights, by their names in the network.

    Raises:
        PolicyError: An array is missing, unknown, has the wrong shape, or is not finite.
    """

    def __init__(self, header: PolicyHeader, arrays: Arrays) -> None:
        expected = expected_shapes(header)
        found = {name: array.shape for name, array in arrays.items()}
        if expected != found:
            wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise PolicyError(f"the policy's weights do not fit its header: {', '.join(wrong)}; export it again")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise PolicyError(f"the policy's weights {name} are not finite; it must not be served: retrain")
        self.header = header
        self._weights = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        self._column = {ref: slot for slot, ref in enumerate(header.models)}

    @property
    def weights(self) -> Arrays:
        """The weights by name, as the constructor takes them; not to be changed."""
        return self._weights

    @classmethod
    def load(cls, path: Path, encoding: int | None = None) -> Self:
        """Read a policy file.

        Args:
            path: The file.
            encoding: The version of the state encoding in use; None: any.

        Raises:
            PolicyError: The file is missing, damaged, or made for another encoding.
        """
        return cls(*read_policy(path, encoding))

    def encode_models(self, refs: Sequence[str], features: FloatArray) -> EncodedModels:
        """Compute the model side once, for as long as the models and their features stay the same.

        Args:
            refs: M model refs; those the policy does not know are valued by their features alone.
            features: (M, F) encoded models.

        Raises:
            PolicyError: The features have another length than the policy was trained on.
        """
        config, shape = self.header.network, self.header.shape
        if features.shape != (len(refs), shape.model):
            raise PolicyError(
                f"model features have shape {features.shape}, the policy needs {(len(refs), shape.model)}"
            )
        slots = np.array([self._column.get(ref, -1) for ref in refs], np.int64)
        known = slots >= 0
        if config.name == "per_model":
            vectors = np.zeros((config.members, len(refs), config.width), np.float32)
        else:
            vectors = self._tower("model_tower", len(config.model_hidden), (self._scaled(features, "model"),))
        bias = np.zeros((config.members, 1, len(refs)), np.float32)
        if config.slot_terms != "none":
            bias[:, 0, known] = self._weights["slot_bias"][:, slots[known]]
        if config.slot_terms == "vector":
            vectors[:, known] += self._weights["slot_vector"][:, slots[known]]
        failed = np.zeros((config.members, len(refs), 0), np.float32)
        if config.failed_width:
            failed = vectors @ self._weights["failed.weight"] + self._weights["failed.bias"]
        scaled = np.ascontiguousarray(vectors.transpose(0, 2, 1)) / np.float32(math.sqrt(config.width))
        return EncodedModels(scaled, bias, failed, known)

    def member_values(self, observation: Arrays, models: EncodedModels) -> FloatArray:
        """Value every model for every request, by each member of the network.

        Args:
            observation: `state` (B, S), `candidates` (B, M), and where there are any `attempts` (B, M), `pairs`
                (B, M, P), `base` (B, M) and `gain` (B, M); as `neural_networks.Observation` describes them.
            models: From `encode_models`.

        Returns:
            (K, B, M) values in units of reward; -inf for models that are no candidates.

        Raises:
            PolicyError: The state or the pairs have another length than the policy was trained on.
        """
        config, shape = self.header.network, self.header.shape
        state, candidates = observation["state"], observation["candidates"]
        if state.shape[1:] != (shape.state,):
            raise PolicyError(f"the state has length {state.shape[1:]}, the policy needs {shape.state}")
        parts: tuple[FloatArray, ...] = (self._scaled(state, "state"),)
        if config.failed_width and "attempts" in observation:
            parts = (*parts, (observation["attempts"] < 0).astype(np.float32) @ models.failed)
        encoded = self._tower("state_tower", len(config.state_hidden), parts)
        q: FloatArray = encoded @ models.vectors
        q += models.bias
        if shape.pair:
            pairs = observation.get("pairs")
            if pairs is None or pairs.shape != (*candidates.shape, shape.pair):
                raise PolicyError(f"the policy needs pairs of shape {(*candidates.shape, shape.pair)}")
            flat = self._scaled(pairs, "pair").reshape(-1, shape.pair)
            q += self._tower("pair_tower", len(config.pair_hidden), (flat,)).reshape(q.shape)
        if config.dueling:
            chosen = candidates.astype(np.float32)
            mean = (q * chosen).sum(axis=2, keepdims=True) / np.maximum(chosen.sum(axis=1), 1.0)[:, None]
            q += encoded @ self._weights["value.weight"] + self._weights["value.bias"] - mean
        if "gain" in observation:
            q *= observation["gain"]
        if "base" in observation:
            q += observation["base"]
        q[:, ~candidates] = -np.inf
        return q

    def q_values(self, observation: Arrays, models: EncodedModels) -> FloatArray:
        """Value every model for every request: the mean over the members, (B, M); see `member_values`."""
        return np.asarray(self.member_values(observation, models).mean(axis=0))

    def _scaled(self, values: NDArray[Any], name: str) -> FloatArray:
        scaled: FloatArray = (values - self._weights[f"{name}_shift"]) * self._weights[f"{name}_scale"]
        return scaled

    def _tower(self, name: str, hidden: int, parts: Sequence[FloatArray]) -> FloatArray:
        """Run a tower on inputs given in parts, (N, n) or (K, N, n): beside each other, they need not be copied."""
        activate = _ACTIVATIONS[self.header.network.activation]
        first = self._weights[f"{name}.linears.0.weight"]
        edges = np.cumsum([0, *(part.shape[-1] for part in parts)])
        out = parts[0] @ first[:, : edges[1]]
        for part, start, stop in zip(parts[1:], edges[1:-1], edges[2:], strict=True):
            out += part @ first[:, start:stop]
        out += self._weights[f"{name}.linears.0.bias"]
        for layer in range(hidden):
            if self.header.network.layer_norm:
                out = _normalised(out)
                out *= self._weights[f"{name}.norms.{layer}.gain"]
                out += self._weights[f"{name}.norms.{layer}.bias"]
            out = activate(out) @ self._weights[f"{name}.linears.{layer + 1}.weight"]
            out += self._weights[f"{name}.linears.{layer + 1}.bias"]
        return out


def expected_shapes(header: PolicyHeader) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that a policy with this header must hold."""
    config, shape = header.network, header.shape
    members, width = config.members, config.width
    shapes: dict[str, tuple[int, ...]] = {}
    for name, size in (("state", shape.state), ("model", shape.model), ("pair", shape.pair)):
        shapes |= {f"{name}_shift": (size,), f"{name}_scale": (size,)}
    shapes |= _tower_shapes("state_tower", config, (shape.state + config.failed_width, *config.state_hidden, width))
    if config.name == "two_tower":
        shapes |= _tower_shapes("model_tower", config, (shape.model, *config.model_hidden, width))
    if shape.pair:
        shapes |= _tower_shapes("pair_tower", config, (shape.pair, *config.pair_hidden, 1))
    if config.failed_width:
        shapes |= {
            "failed.weight": (members, width, config.failed_width),
            "failed.bias": (members, 1, config.failed_width),
        }
    if config.slot_terms != "none":
        shapes["slot_bias"] = (members, shape.slots)
    if config.slot_terms == "vector":
        shapes["slot_vector"] = (members, shape.slots, width)
    if config.dueling:
        shapes |= {"value.weight": (members, width, 1), "value.bias": (members, 1, 1)}
    return shapes


def _tower_shapes(name: str, config: NetworkConfig, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes[f"{name}.linears.{layer}.weight"] = (config.members, n_in, n_out)
        shapes[f"{name}.linears.{layer}.bias"] = (config.members, 1, n_out)
        if config.layer_norm and layer < len(sizes) - 2:
            shapes |= {f"{name}.norms.{layer}.{term}": (config.members, 1, n_out) for term in ("gain", "bias")}
    return shapes


def _normalised(values: FloatArray) -> FloatArray:
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(NORM_EPSILON)))


def _silu(values: FloatArray) -> FloatArray:
    """Return x * sigmoid(x), by a tanh that cannot overflow."""
    half = values * np.float32(0.5)
    return np.asarray(half + half * np.tanh(half))


def _relu(values: FloatArray) -> FloatArray:
    return np.maximum(values, np.float32(0.0))


_ACTIVATIONS: Final[Mapping[Activation, Callable[[FloatArray], FloatArray]]] = MappingProxyType(
    {"relu": _relu, "silu": _silu, "tanh": np.tanh}
)
