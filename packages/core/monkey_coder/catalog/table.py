"""The catalog as arrays: one column per model, so that gates and strategies work on whole batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import TASK_TYPES

CAPABILITIES = ("tools", "vision", "json_mode", "reasoning")
"""Columns of `ModelTable.capabilities`."""


@dataclass(frozen=True)
class ModelTable:
    """Models as columns of arrays; built by the catalog, by live profiles, or from an outcome table.

    Attributes:
        refs: M model refs, unique.
        input_usd: (M,) USD per input token.
        output_usd: (M,) USD per output token.
        request_usd: (M,) USD per call on top of the tokens.
        context_window: (M,) tokens of prompt and answer together.
        max_output: (M,) tokens of answer.
        capabilities: (M, len(CAPABILITIES)) bool.
        regions: M frozen sets of region and privacy tags.
        success: (len(TASK_TYPES), M) P(success) for each task type, 0..1.
        evidence: (len(TASK_TYPES), M) how many outcomes that is worth.
        latency_s: (M,) expected seconds of one call.
        available: (M,) False while a breaker is open or an operator drains the model.
        cached_input_usd: (M,) USD per input token that the provider's prompt cache already holds; the input
            price where it is not given.
        deployment_of: For each model the name of what it is a deployment of, or None; empty means that none is.
        weight: (M,) share of traffic that a deployment gets among those of the same name, above 0.
        providers: The part of each ref before the first slash.
    """

    refs: tuple[str, ...]
    input_usd: NDArray[np.float64]
    output_usd: NDArray[np.float64]
    request_usd: NDArray[np.float64]
    context_window: NDArray[np.int64]
    max_output: NDArray[np.int64]
    capabilities: NDArray[np.bool_]
    regions: tuple[frozenset[str], ...]
    success: NDArray[np.float32]
    evidence: NDArray[np.float32]
    latency_s: NDArray[np.float32]
    available: NDArray[np.bool_]
    cached_input_usd: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    deployment_of: tuple[str | None, ...] = ()
    weight: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    providers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if len(set(self.refs)) != len(self.refs):
            raise ValueError("model refs must be unique")
        if self.cached_input_usd.size == 0:
            object.__setattr__(self, "cached_input_usd", self.input_usd)
        if self.weight.size == 0:
            object.__setattr__(self, "weight", np.ones(len(self.refs)))
        if not self.deployment_of:
            object.__setattr__(self, "deployment_of", (None,) * len(self.refs))
        expected = {
            "input_usd": (len(self.refs),),
            "output_usd": (len(self.refs),),
            "request_usd": (len(self.refs),),
            "context_window": (len(self.refs),),
            "max_output": (len(self.refs),),
            "capabilities": (len(self.refs), len(CAPABILITIES)),
            "success": (len(TASK_TYPES), len(self.refs)),
            "evidence": (len(TASK_TYPES), len(self.refs)),
            "latency_s": (len(self.refs),),
            "available": (len(self.refs),),
            "cached_input_usd": (len(self.refs),),
            "weight": (len(self.refs),),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        object.__setattr__(self, "providers", tuple(ref.partition("/")[0] for ref in self.refs))

    def __len__(self) -> int:
        return len(self.refs)

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each ref."""
        return {ref: column for column, ref in enumerate(self.refs)}

    @cached_property
    def least_limit(self) -> int:
        """The lowest of all context windows and bounds of an answer: what needs no more tokens fits every model."""
        return min([*self.context_window.tolist(), *self.max_output.tolist()], default=0)

    @cached_property
    def all_available(self) -> bool:
        """Whether every model is."""
        return bool(self.available.all())

    @cached_property
    def deployments(self) -> tuple[NDArray[np.int64], ...]:
        """Columns of the deployments of each model that has several; empty where none has."""
        places: dict[str, list[int]] = {}
        for column, name in enumerate(self.deployment_of):
            if name is not None:
                places.setdefault(name, []).append(column)
        return tuple(np.array(columns) for columns in places.values() if len(columns) > 1)
