"""What learning online reads of a request: a short vector, fixed beforehand, so that what is learned stays comparable.

Nothing of it is fitted: a random projection keeps distances between embeddings (Johnson & Lindenstrauss 1984), and text
marks are centred and scaled by nominal figures. So it is the same in every process and needs no request to start from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from monkey_coder.models import TASK_TYPES
from monkey_coder.ports import FloatArray
from monkey_coder.quantum.state_encoder import StateLayout
from monkey_coder.quantum.text_marks import BYTE_CLASSES, MARKS, WORDS

DIRECTIONS: Final = 48
"""Most directions of the embedding that are read."""

_SEED: Final = 20_261_122
_EMBEDDING_SCALE: Final = 4.0
_TASK_SCALE: Final = 2.0
_FURTHEST: Final = 3.0
_NOMINAL: Final = (
    *((2.5, 1.3),) * len(BYTE_CLASSES),
    *((0.1, 0.15),) * len(BYTE_CLASSES),
    *((0.2, 0.4),) * len(WORDS),
    *((5.5, 0.8), (4.0, 0.8), (0.75, 0.1), (0.5, 0.5), (0.5, 0.5)),
)
"""Where each text mark usually lies, and how far from there; by eye, in the order of `text_marks`."""


@dataclass(frozen=True, eq=False)
class ContextMap:
    """Reads state vectors (`state_encoder`) of one embedding size.

    Attributes:
        projection: (D, k) orthonormal columns.
        layout: Of the states.
    """

    projection: FloatArray
    layout: StateLayout

    @classmethod
    def of(cls, dimensions: int) -> Self:
        """The map for embeddings of so many dimensions; the same one every time."""
        size = min(dimensions, DIRECTIONS)
        basis, _ = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((dimensions, size)))
        return cls(basis.astype(np.float32), StateLayout(dimensions))

    @property
    def size(self) -> int:
        """Length d of what is read; the last entry is always 1."""
        return int(self.projection.shape[1]) + MARKS + len(TASK_TYPES) + 2

    @property
    def tasks(self) -> slice:
        """Where the task types are in what is read."""
        return slice(self.size - len(TASK_TYPES) - 2, self.size - 2)

    def read(self, state: FloatArray) -> FloatArray:
        """(B, d) of states (B, S): directions, marks, task type, complexity, and 1."""
        layout, count = self.layout, self.projection.shape[1]
        out = np.empty((len(state), self.size), np.float32)
        out[:, :count] = _EMBEDDING_SCALE * (state[:, : layout.dimensions] @ self.projection)
        marks = (state[:, layout.marks : layout.task] - _CENTRE) / _SPREAD
        out[:, count : count + MARKS] = np.clip(marks, -_FURTHEST, _FURTHEST)
        out[:, count + MARKS : -2] = _TASK_SCALE * state[:, layout.task : layout.context]
        out[:, -2] = 2.0 * state[:, layout.complexity] - 1.0
        out[:, -1] = 1.0
        return out


_CENTRE, _SPREAD = np.array(_NOMINAL, np.float32).T.copy()
