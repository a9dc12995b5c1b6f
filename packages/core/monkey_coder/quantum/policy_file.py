"""What training and serving share: the description of a Q-network, and the file that its weights travel in.

A policy file is a safetensors file (arrays and one JSON text; reading it runs no code). The JSON names the network,
the shapes, the version of the state encoding, the model of every slot, and a checksum of all arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from monkey_coder.errors import PolicyError

Activation = Literal["relu", "silu", "tanh"]
NetworkName = Literal["two_tower", "per_model"]
SlotTerms = Literal["none", "bias", "vector"]

POLICY_FORMAT: Final = 1
NORM_EPSILON: Final = 1e-5
"""Added to the variance by layer normalisation."""

_HEADER: Final = "monkey_coder_policy"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The architecture of a Q-network: everything that may be chosen freely.

    Attributes:
        name: `two_tower` (values models by their features, so new ones too) or `per_model` (Mnih's head: one output
            for each known model, no features).
        state_hidden: Widths of the hidden layers of the state tower.
        model_hidden: Widths of the hidden layers of the model tower.
        pair_hidden: Widths of the hidden layers on the features of a (request, model) pair; (): linear.
        width: Length of the vectors in which the two towers meet.
        failed_width: Length of the learned summary of which models were rejected already; 0: none.
        activation: After each hidden layer.
        layer_norm: Normalise each hidden layer before its activation (Ba et al. 2016).
        dropout: Share of hidden units dropped in training, 0..1.
        slot_terms: What a known model may add to its features: `none`, a `bias`, or a bias and a `vector`.
        slot_dropout: Share of models whose own terms are dropped in a training batch, 0..1; makes the features carry
            weight, for models that have no terms yet.
        dueling: Q = V(state) + A(state, model) - mean of A over the candidates (Wang et al. 2016).
        members: Networks with weights of their own; their mean is the value, their spread tells how sure it is.
        start_at_base: A fresh network adds nothing to the `base` of the observation.
    """

    name: NetworkName = "two_tower"
    state_hidden: tuple[int, ...] = (128,)
    model_hidden: tuple[int, ...] = (32,)
    pair_hidden: tuple[int, ...] = ()
    width: int = 32
    failed_width: int = 8
    activation: Activation = "silu"
    layer_norm: bool = False
    dropout: float = 0.0
    slot_terms: SlotTerms = "vector"
    slot_dropout: float = 0.0
    dueling: bool = False
    members: int = 1
    start_at_base: bool = True

    def __post_init__(self) -> None:
        for knob, choices in (("name", NetworkName), ("activation", Activation), ("slot_terms", SlotTerms)):
            if getattr(self, knob) not in get_args(choices):
                raise ValueError(f"{knob} is {getattr(self, knob)!r}; choose one of {', '.join(get_args(choices))}")
        for knob in ("state_hidden", "model_hidden", "pair_hidden"):
            if min(getattr(self, knob), default=1) < 1:
                raise ValueError(f"{knob} is {getattr(self, knob)}; every layer needs at least one unit")
        for knob, least in (("width", 1), ("failed_width", 0), ("members", 1)):
            if getattr(self, knob) < least:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least {least}")
        for knob in ("dropout", "slot_dropout"):
            if not 0.0 <= getattr(self, knob) < 1.0:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must lie in 0..1, below 1")
        if self.name == "per_model" and self.slot_terms != "vector":
            raise ValueError("per_model has nothing but slot vectors: set slot_terms to 'vector'")
        if self.slot_terms == "none" and self.slot_dropout > 0.0:
            raise ValueError("slot_dropout drops terms that slot_terms 'none' does not have: set it to 0")


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """The sizes that the data dictates.

    Attributes:
        state: Length of the encoded request (S), preferences included.
        model: Length of the encoded model (F).
        pair: Length of the features of one (request, model) pair (P); 0: there are none.
        slots: How many models have terms of their own.
    """

    state: int
    model: int
    pair: int = 0
    slots: int = 0

    def __post_init__(self) -> None:
        for knob, least in (("state", 1), ("model", 1), ("pair", 0), ("slots", 0)):
            if getattr(self, knob) < least:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least {least}")


@dataclass(frozen=True, slots=True)
class PolicyHeader:
    """What a policy file says about itself.

    Attributes:
        network: The architecture.
        shape: The sizes.
        encoding: Version of the state and model encoding that the weights were trained on.
        models: Ref of the model of each slot.
        notes: Whatever else the trainer wants to tell, as JSON values.
    """

    network: NetworkConfig
    shape: NetworkShape
    encoding: int
    models: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.models) != self.shape.slots or len(set(self.models)) != len(self.models):
            raise ValueError(f"{self.shape.slots} slots need as many different models, not {len(self.models)}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `from_json` understands."""
        return {
            "network": asdict(self.network),
            "shape": asdict(self.shape),
            "encoding": self.encoding,
            "models": list(self.models),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: Something is missing, unknown or out of range.
        """
        return cls(
            network=network_config(raw["network"]),
            shape=NetworkShape(**raw["shape"]),
            encoding=raw["encoding"],
            models=tuple(raw["models"]),
            notes=raw["notes"],
        )


def network_config(raw: Mapping[str, Any]) -> NetworkConfig:
    """Read a NetworkConfig from JSON values.

    Raises:
        TypeError, ValueError: A knob is unknown or out of range.
    """
    lists = {knob.name for knob in fields(NetworkConfig) if knob.name.endswith("_hidden")}
    knobs: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in raw.items()}
    return NetworkConfig(**knobs)


def write_policy(path: Path, header: PolicyHeader, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a policy file, replacing an older one in one step, so that readers see all of it or none."""
    about = header.to_json() | {"format": POLICY_FORMAT, "sha256": _checksum(arrays)}
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(save(plain, metadata={_HEADER: json.dumps(about)}))
    os.replace(draft, path)  # noqa: PTH105 (says what it does: one atomic step)


def read_policy(path: Path, encoding: int | None = None) -> tuple[PolicyHeader, dict[str, NDArray[Any]]]:
    """Read and check a policy file.

    Args:
        path: The file.
        encoding: The version of the encoding in use; None: any.

    Raises:
        PolicyError: The file is missing, damaged, not a policy, of another format, or made for another encoding.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if about["format"] != POLICY_FORMAT:
            raise PolicyError(
                f"{path} has policy format {about['format']}, this version reads {POLICY_FORMAT}: retrain"
            )
        if about["sha256"] != _checksum(arrays):
            raise PolicyError(f"{path} is damaged: its weights do not match their checksum; restore or retrain it")
        header = PolicyHeader.from_json(about)
    except KeyError as error:
        raise PolicyError(f"{path} is not a policy file: {error} is missing from its header") from error
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise PolicyError(f"{path} cannot be read as a policy file: {error}") from error
    if encoding is not None and header.encoding != encoding:
        raise PolicyError(
            f"{path} was trained on encoding {header.encoding!r}, this engine speaks {encoding!r}: retrain"
        )
    return header, arrays


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
