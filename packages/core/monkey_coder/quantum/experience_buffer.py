"""Replay memory of the learner: a ring of transitions in preallocated arrays (Mnih et al. 2015, Schaul et al. 2016).

Steps of episodes go through `n_step` into `Transitions`, those into an `ExperienceBuffer`, and `Sample` comes out.
Observations are named arrays of a fixed schema, so the memory knows nothing about routing: a variable set of
candidates is simply one more array, a mask.
"""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.quantum.sum_tree import SumTree

Arrays = Mapping[str, NDArray[Any]]

DEFAULT_CAPACITY: Final = 2_000
_FORMAT: Final = 1
_COLUMNS: Final[Mapping[str, str]] = {
    "action": "int64",
    "reward": "float32",
    "terminated": "bool",
    "truncated": "bool",
    "discount": "float32",
    "weight": "float32",
}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape and dtype of one array of an observation, without the batch axis."""

    shape: tuple[int, ...]
    dtype: str = "float32"


Schema = Mapping[str, ArraySpec]


@dataclass(frozen=True, slots=True)
class Steps:
    """Raw steps (T) of one or more episodes; those of one episode stand together, in order of time.

    Attributes:
        observation: Named arrays, each (T, ...).
        action: (T,) column of the model that was chosen.
        reward: (T,) reward of this step alone.
        next_observation: Named arrays like `observation`: what was seen after the step.
        terminated: (T,) the episode ended here, and nothing comes after: no bootstrap.
        truncated: (T,) the episode was cut here (time limit): what comes after is unknown, so bootstrap.
        episode: (T,) number of the episode.
        weight: (T,) how much the step counts in the loss, such as one over its propensity; None: 1.
    """

    observation: Arrays
    action: NDArray[np.int64]
    reward: NDArray[np.float32]
    next_observation: Arrays
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Transitions:
    """Rows (N) of the replay memory, ready for a temporal-difference target.

    Attributes:
        observation: Named arrays, each (N, ...).
        action: (N,) column of the model that was chosen.
        reward: (N,) discounted sum of the rewards up to `next_observation`.
        next_observation: What was seen after the last of those steps.
        terminated: (N,) nothing comes after: no bootstrap.
        truncated: (N,) the episode was cut there; the target bootstraps all the same.
        discount: (N,) factor on the value of `next_observation`: the discount to the power of the steps taken.
        weight: (N,) how much the row counts in the loss.
    """

    observation: Arrays
    action: NDArray[np.int64]
    reward: NDArray[np.float32]
    next_observation: Arrays
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    discount: NDArray[np.float32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Sample(Transitions):
    """Rows drawn from the memory. `weight` already holds the importance weights of prioritised replay.

    Attributes:
        serial: (N,) running number of each row, for `ExperienceBuffer.update_priorities`.
    """

    serial: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prioritisation:
    """Knobs of prioritised replay (Schaul et al. 2016).

    Attributes:
        alpha: How strongly the error decides, 0 (uniform) to 1 (in proportion).
        floor: Added to every absolute error, so that no row starves; above 0.
    """

    alpha: float = 0.6
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha is {self.alpha}; it must lie in 0..1")
        if not self.floor > 0.0:
            raise ValueError(f"floor is {self.floor}; it must be above 0, or rows with no error are never seen again")


def n_step(steps: Steps, n: int, discount: float) -> Transitions:
    """Sum the rewards of up to n steps, never beyond the end of an episode.

    Near its end an episode gives shorter sums. A sum that ends in a terminated step does not bootstrap; one that ends
    in a truncated step, or where the recording of the episode stops, bootstraps from the last thing seen.
    Nothing corrects for the policy that chose the steps after the first: keep n small for old data.

    Args:
        steps: Whole or partial episodes.
        n: Steps to sum, at least 1; 1 is ordinary Q-learning.
        discount: Discount of one step, 0..1.

    Returns:
        One transition per step, in the same order, with the weight of its first step.

    Raises:
        ValueError: n or discount are out of range.
    """
    if n < 1:
        raise ValueError(f"n is {n}; at least one step is needed")
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount is {discount}; it must lie in 0..1")
    count = len(steps)
    at = np.arange(count)
    ends = steps.terminated | steps.truncated
    ends[:-1] |= steps.episode[1:] != steps.episode[:-1]
    ends[-1:] = True
    end_of_episode = np.minimum.accumulate(np.where(ends, at, count)[::-1])[::-1]
    last = np.minimum(at + n - 1, end_of_episode)
    reward = np.zeros(count)
    for ahead in range(min(n, count)):
        reach = at + ahead
        reward += discount**ahead * np.where(reach <= last, steps.reward[np.minimum(reach, count - 1)], 0.0)
    return Transitions(
        observation=steps.observation,
        action=steps.action,
        reward=reward.astype(np.float32),
        next_observation={name: array[last] for name, array in steps.next_observation.items()},
        terminated=steps.terminated[last],
        truncated=steps.truncated[last],
        discount=np.power(discount, last - at + 1).astype(np.float32),
        weight=np.ones(count, np.float32) if steps.weight is None else steps.weight,
    )


class ExperienceBuffer:
    """Keeps the newest transitions and draws from them, uniformly or by priority.

    Every method takes the same lock for the time of its copying, so a writer thread and a sampling thread (or more of
    either) may share one buffer: a row is never seen half written. A sample is a copy and stays valid for ever.

    Args:
        schema: The arrays of an observation.
        capacity: Rows kept; the oldest go first.
        priority: Draw in proportion to the last temporal-difference error; None: uniformly.
    """

    def __init__(
        self, schema: Schema, capacity: int = DEFAULT_CAPACITY, priority: Prioritisation | None = None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; at least one row is needed")
        self.schema = dict(schema)
        self.capacity = capacity
        self.priority = priority
        self._lock = threading.Lock()
        self._added = 0
        self._max_priority = 1.0
        self._tree = None if priority is None else SumTree(capacity)
        self._now = {name: np.zeros((capacity, *spec.shape), spec.dtype) for name, spec in schema.items()}
        self._next = {name: np.zeros((capacity, *spec.shape), spec.dtype) for name, spec in schema.items()}
        self._columns = {name: np.zeros(capacity, dtype) for name, dtype in _COLUMNS.items()}

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def added(self) -> int:
        """How many rows were ever added."""
        return self._added

    def add(self, rows: Transitions) -> None:
        """Append rows; the oldest make room. New rows get the highest priority so far.

        Raises:
            ValueError: An array is missing, unknown, or has another shape than the schema says; nothing was added.
        """
        count = len(rows)
        self._check(rows.observation, count, "observation")
        self._check(rows.next_observation, count, "next_observation")
        for name in _COLUMNS:
            if getattr(rows, name).shape != (count,):
                raise ValueError(f"{name} has shape {getattr(rows, name).shape}, expected {(count,)}")
        with self._lock:
            kept = slice(max(0, count - self.capacity), count)
            at = (self._added + np.arange(kept.start, count)) % self.capacity
            for name in self.schema:
                self._now[name][at] = rows.observation[name][kept]
                self._next[name][at] = rows.next_observation[name][kept]
            for name, column in self._columns.items():
                column[at] = getattr(rows, name)[kept]
            if self._tree is not None:
                self._tree.set(at, np.full(len(at), self._max_priority))
            self._added += count

    def sample(self, size: int, rng: np.random.Generator, beta: float = 1.0) -> Sample:
        """Draw rows, with replacement.

        Args:
            size: How many.
            rng: Source of randomness.
            beta: How far importance weights undo the bias of prioritised drawing, 0 (not) to 1 (fully). The largest
                weight of a sample is 1. Uniform buffers ignore it.

        Raises:
            ValueError: The buffer is empty, or size is below 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}; draw at least one row")
        with self._lock:
            held = len(self)
            if held == 0:
                raise ValueError("the buffer is empty: add transitions before sampling")
            if self._tree is None:
                at = rng.integers(0, held, size)
                importance = np.ones(size)
            else:
                at = self._tree.draw(size, rng)
                likely = held * self._tree.get(at) / self._tree.total
                importance = likely**-beta
                importance /= importance.max()
            columns = {name: column[at] for name, column in self._columns.items()}
            columns["weight"] = (columns["weight"] * importance).astype(np.float32)
            newest = self._added - 1
            return Sample(
                observation={name: array[at] for name, array in self._now.items()},
                next_observation={name: array[at] for name, array in self._next.items()},
                serial=newest - (newest - at) % self.capacity,
                **columns,
            )

    def update_priorities(self, serial: NDArray[np.int64], errors: NDArray[np.floating]) -> None:
        """Set the priority of sampled rows from their new temporal-difference errors; uniform buffers ignore it.

        Rows that were overwritten since the sample was drawn are left alone.

        Args:
            serial: (N,) `Sample.serial`.
            errors: (N,) errors; only their size counts.

        Raises:
            ValueError: An error is not finite.
        """
        if self._tree is None or self.priority is None:
            return
        if not np.isfinite(errors).all():
            raise ValueError("temporal-difference errors must be finite; the training has diverged")
        value = np.abs(errors.astype(np.float64)) + self.priority.floor
        value **= self.priority.alpha
        with self._lock:
            fresh = (serial < self._added) & (serial >= self._added - self.capacity)
            if fresh.any():
                self._tree.set(serial[fresh] % self.capacity, value[fresh])
                self._max_priority = max(self._max_priority, float(value[fresh].max()))

    def save(self, path: Path) -> None:
        """Write everything to one npz file (plain arrays, no pickle), replacing it in one step."""
        with self._lock:
            held = slice(0, len(self))
            about = {
                "capacity": self.capacity,
                "added": self._added,
                "max_priority": self._max_priority,
                "schema": {name: [list(spec.shape), spec.dtype] for name, spec in self.schema.items()},
                "priority": None if self.priority is None else [self.priority.alpha, self.priority.floor],
            }
            arrays: dict[str, NDArray[Any]] = {f"about.{_FORMAT}": np.array(json.dumps(about))}
            arrays |= {f"now.{name}": array[held] for name, array in self._now.items()}
            arrays |= {f"next.{name}": array[held] for name, array in self._next.items()}
            arrays |= {name: column[held] for name, column in self._columns.items()}
            if self._tree is not None:
                arrays["priority"] = self._tree.get(np.arange(len(self)))
            draft = path.with_name(path.name + ".part")
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        os.replace(draft, path)  # noqa: PTH105 (says what it does: one atomic step)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; rows, order, priorities and serial numbers are exactly as they were.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, or not a replay file of this version.
        """
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                about = json.loads(str(file[f"about.{_FORMAT}"]))
                schema = {name: ArraySpec(tuple(shape), dtype) for name, (shape, dtype) in about["schema"].items()}
                priority = None if about["priority"] is None else Prioritisation(*about["priority"])
                buffer = cls(schema, about["capacity"], priority)
                buffer._added = about["added"]
                buffer._max_priority = about["max_priority"]
                held = slice(0, len(buffer))
                for name in schema:
                    buffer._now[name][held] = file[f"now.{name}"]
                    buffer._next[name][held] = file[f"next.{name}"]
                for name, column in buffer._columns.items():
                    column[held] = file[name]
                if buffer._tree is not None:
                    buffer._tree.set(np.arange(len(buffer)), file["priority"])
        except FileNotFoundError:
            raise
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} is not a replay file that can be read ({error}); delete it to start anew"
            ) from error
        return buffer

    def _check(self, arrays: Arrays, count: int, place: str) -> None:
        if arrays.keys() != self.schema.keys():
            raise ValueError(f"{place} has {sorted(arrays)}, the schema says {sorted(self.schema)}")
        for name, spec in self.schema.items():
            if arrays[name].shape != (count, *spec.shape):
                raise ValueError(f"{place}[{name!r}] has shape {arrays[name].shape}, expected {(count, *spec.shape)}")
