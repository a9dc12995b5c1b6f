"""Memory of past outcomes: what became of the requests most like this one, and how that differs from what was expected.

A row is one request: a short vector of its embedding and text marks, the outcomes of the models that answered it, and
what had been expected of them. An estimate is the expectation for the new request plus the mean surprise (outcome less
expectation) of its nearest rows, shrunk towards no surprise. So it can speak of models with few outcomes, and it learns
from each single outcome at once.

Once models' answers were rejected, rows count by the probability that the same answers would have been rejected there,
and the expectation moves by what such rows say throughout the memory.

Where no row is near, it has no opinion.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import PolicyError
from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.array_parts import Arrays, check_shapes, put_together, take_apart
from monkey_coder.quantum.text_marks import MARKS

CAPACITY: Final = 2048
PASSING_SCORE: Final = 0.5

_EMBEDDING_SCALE: Final = 4.0
_MOST_DIMENSIONS: Final = 96
_DEFAULT_NEAR: Final = 0.5
_FAR_QUANTILE: Final = 0.01
_NEIGHBOURS: Final = (20, 40, 80, 160)
_SHRINKAGES: Final = (3.0, 10.0, 30.0, 100.0, 300.0)
_GLOBAL_SHRINKAGE: Final = 10.0
_LEAST_CHANCE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class MemorySpace:
    """Where requests lie, and how far a memory generalises; embeddings have D dimensions.

    Attributes:
        mark_mean: (MARKS,) taken off the text marks.
        mark_scale: (MARKS,) factor on them; 0 hides a mark.
        projection: (D + MARKS, d) onto the short vectors.
        least_similarity: Cosine similarity to the nearest row below which a request is far.
        row_similarity: Cosine similarity below which a row does not count.
        neighbours: How many of the nearest rows count.
        shrinkage: Outcomes that "no surprise" is worth.
    """

    mark_mean: FloatArray
    mark_scale: FloatArray
    projection: FloatArray
    least_similarity: float = _DEFAULT_NEAR
    row_similarity: float = _DEFAULT_NEAR
    neighbours: int = 40
    shrinkage: float = 10.0

    def __post_init__(self) -> None:
        check_shapes(self, mark_mean=(MARKS,), mark_scale=(MARKS,))

    @property
    def dimensions(self) -> int:
        """Length D of the embeddings."""
        return len(self.projection) - MARKS

    @classmethod
    def untrained(cls, dimensions: int, rng: np.random.Generator) -> Self:
        """A space that no outcome is needed for: a random projection of the embedding, without the marks."""
        size = min(dimensions, _MOST_DIMENSIONS)
        basis, _ = np.linalg.qr(rng.standard_normal((dimensions, size)))
        projection = np.concatenate([basis, np.zeros((MARKS, size))]).astype(np.float32)
        return cls(np.zeros(MARKS, np.float32), np.zeros(MARKS, np.float32), projection)

    @classmethod
    def fitted(cls, embedding: FloatArray, marks: FloatArray) -> Self:
        """The directions in which these requests (N, D) and (N, MARKS) differ most."""
        deviation = marks.std(axis=0, dtype=np.float64)
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6).astype(np.float32)
        mean = marks.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = _read(embedding, marks, mean, scale)
        _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        size = min(rows.shape[1], _MOST_DIMENSIONS)
        return cls(mean, scale, np.ascontiguousarray(vectors[:, ::-1][:, :size], dtype=np.float32))

    def vectors(self, embedding: FloatArray, marks: FloatArray) -> FloatArray:
        """(B, d) unit vectors of requests; all zero for a text without tokens or marks."""
        short = _read(embedding, marks, self.mark_mean, self.mark_scale) @ self.projection
        length = np.sqrt(np.square(short).sum(axis=1))[:, None]
        np.divide(short, length, out=short, where=length > 1e-6)
        return short


@dataclass(frozen=True, eq=False)
class Recall:
    """What the memory says of M models on B requests.

    Attributes:
        success: (B, M) expected score, 0..1.
        evidence: (B, M) outcomes of the model among the rows that counted; 0: `success` is the expectation alone.
        far: (B,) no row is near: it has no opinion.
    """

    success: FloatArray
    evidence: FloatArray
    far: BoolArray


class OutcomeMemory:
    """The last so many requests and their outcomes. Every method may be called from any thread.

    Args:
        space: Where requests lie.
        capacity: Most rows; the oldest make room.
    """

    def __init__(self, space: MemorySpace, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        self.space = space
        self._lock = threading.Lock()
        self._vectors = np.zeros((capacity, space.projection.shape[1]), np.float32)
        self._surprise = np.zeros((capacity, 0), np.float32)  # score less expectation; 0 without an outcome
        self._known = np.zeros((capacity, 0), np.float32)  # 1 where there is an outcome
        self._passed = np.zeros((capacity, 0), np.float32)  # 1 where it passed
        self._column: dict[str, int] = {}
        self._row: dict[str, int] = {}
        self._keys: list[str | None] = [None] * capacity
        self._written = 0

    @classmethod
    def of_table(
        cls,
        models: Sequence[str],
        embedding: FloatArray,
        marks: FloatArray,
        scores: NDArray[np.floating],
        expected: FloatArray,
        rng: np.random.Generator,
        capacity: int = CAPACITY,
    ) -> Self:
        """Build a memory of a table's rows, its reach tuned by leaving each row out.

        Args:
            models: P model refs.
            embedding: (N, D) unit embeddings, N at least 1.
            marks: (N, MARKS) text marks.
            scores: (N, P) outcomes 0..1; NaN where there is none.
            expected: (N, P) what had been expected without them (`SuccessEstimate.prior`, held out).
            rng: Picks the rows to keep where there are more than `capacity`.
            capacity: Most rows.
        """
        kept = np.sort(rng.permutation(len(scores))[:capacity])
        space = MemorySpace.fitted(embedding, marks)
        vectors = space.vectors(embedding[kept], marks[kept])
        surprise = (scores - expected)[kept].astype(np.float32)
        memory = cls(_tuned(space, vectors, surprise), capacity)
        known = ~np.isnan(surprise)
        tables = (np.where(known, surprise, 0.0), known, np.where(known, scores[kept] >= PASSING_SCORE, False))
        names = [f"table {row}" for row in kept]
        memory._fill(models, names, vectors, *(table.astype(np.float32) for table in tables))
        return memory

    def __len__(self) -> int:
        return min(self._written, len(self._keys))

    @property
    def models(self) -> tuple[str, ...]:
        """Refs of the models with an outcome, in order of their first."""
        return tuple(self._column)

    def add(self, key: str, embedding: FloatArray, marks: FloatArray, ref: str, score: float, expected: float) -> None:
        """Remember one outcome; one more of the same request and model replaces the earlier one.

        Args:
            key: What tells requests apart, such as the episode's id: outcomes of one key share a row.
            embedding: (D,) of the request.
            marks: (MARKS,) of the request.
            ref: The model that answered.
            score: 0..1.
            expected: The score that had been expected, 0..1.
        """
        vector = self.space.vectors(embedding[None], marks[None])[0]
        with self._lock:
            column = self._column_of(ref)
            row = self._row.get(key)
            if row is None:
                row = self._next_row(key)
                self._vectors[row] = vector
            self._surprise[row, column] = score - expected
            self._known[row, column] = 1.0
            self._passed[row, column] = score >= PASSING_SCORE

    def recall(
        self,
        embedding: FloatArray,
        marks: FloatArray,
        refs: Sequence[str],
        expected: FloatArray,
        rejected: BoolArray | None = None,
        noise: float = 0.0,
    ) -> Recall:
        """Estimate each model's score from the rows nearest to each request.

        Args:
            embedding: (B, D) unit embeddings.
            marks: (B, MARKS) text marks.
            refs: M model refs; of those without an outcome it says what was expected.
            expected: (B, M) scores expected without memory, 0..1.
            rejected: (B, M) which models' answers were rejected; None: none.
            noise: Probability that a verdict is wrong, 0 up to and without one half.
        """
        asked = self.space.vectors(embedding, marks)
        with self._lock:
            count = len(self)
            slots = np.array([self._column.get(ref, -1) for ref in refs], np.int64)
            if count == 0 or not (slots >= 0).any():
                return Recall(expected.copy(), np.zeros_like(expected), np.ones(len(asked), np.bool_))
            similar = asked @ self._vectors[:count].T
            near = _near(similar, self.space)
            far = similar.max(axis=1) < self.space.least_similarity
            surprise = _columns(self._surprise[:count], slots)
            known = _columns(self._known[:count], slots)
            passed = _columns(self._passed[:count], slots)
        weights = near.astype(np.float32)
        shift = np.zeros_like(expected)
        if rejected is not None and rejected.any():
            agreeing = _agreement(known, passed, rejected, expected, noise)
            shift = (agreeing @ surprise) / (agreeing @ known + np.float32(_GLOBAL_SHRINKAGE))
            weights *= agreeing
        evidence = weights @ known
        surplus = weights @ surprise - evidence * shift
        success = expected + shift + surplus / (evidence + np.float32(self.space.shrinkage))
        return Recall(np.clip(success, 0.0, 1.0), evidence, far)

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and JSON values: all that `from_arrays` needs, oldest row first."""
        arrays, header = take_apart(self.space)
        with self._lock:
            count, capacity = len(self), len(self._keys)
            order = (np.arange(count) + (self._written if self._written > capacity else 0)) % capacity
            arrays |= {"vectors": self._vectors[order]}
            arrays |= {"surprise": self._surprise[order], "known": self._known[order], "passed": self._passed[order]}
            header |= {"models": list(self._column), "keys": [self._keys[row] for row in order], "capacity": capacity}
        return arrays, header

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Rebuild what `to_arrays` took apart.

        Raises:
            PolicyError: Something is missing, not finite, or does not fit.
        """
        space = put_together(MemorySpace, arrays, header)
        try:
            memory = cls(space, header["capacity"])
            tables = (arrays["surprise"], arrays["known"], arrays["passed"])
            memory._fill(header["models"], header["keys"], arrays["vectors"], *tables)
        except (KeyError, ValueError) as error:
            raise PolicyError(f"the outcome memory cannot be read: {error}; build it again") from error
        return memory

    def _fill(
        self,
        models: Sequence[str],
        keys: Sequence[str],
        vectors: FloatArray,
        surprise: FloatArray,
        known: FloatArray,
        passed: FloatArray,
    ) -> None:
        """Write whole rows; ValueError where shapes do not fit."""
        for ref in models:
            self._column_of(ref)
        rows = [self._next_row(key) for key in keys]
        self._vectors[rows], self._surprise[rows], self._known[rows], self._passed[rows] = (
            vectors,
            surprise,
            known,
            passed,
        )

    def _column_of(self, ref: str) -> int:
        if ref not in self._column:
            self._column[ref] = len(self._column)
            more = np.zeros((len(self._keys), 1), np.float32)
            self._surprise, self._known, self._passed = (
                np.concatenate([table, more], axis=1) for table in (self._surprise, self._known, self._passed)
            )
        return self._column[ref]

    def _next_row(self, key: str) -> int:
        row = self._written % len(self._keys)
        oldest = self._keys[row]
        if oldest is not None:
            del self._row[oldest]
        for table in (self._surprise, self._known, self._passed):
            table[row] = 0.0
        self._keys[row] = key
        self._row[key] = row
        self._written += 1
        return row


def _read(embedding: FloatArray, marks: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    """(B, D + MARKS) scaled embedding beside standardised marks, which are cut to -3..3."""
    seen = np.clip((marks - mean) * scale, -3.0, 3.0)
    return np.concatenate([_EMBEDDING_SCALE * embedding, seen], axis=1, dtype=np.float32)


def _near(similar: FloatArray, space: MemorySpace) -> BoolArray:
    """(B, R) which rows count: the most similar ones, as far as they are similar at all."""
    last = similar.shape[1] - space.neighbours
    if last <= 0:
        return similar >= np.float32(space.row_similarity)
    least = np.partition(similar, last, axis=1)[:, last]
    return similar >= np.maximum(least, np.float32(space.row_similarity))[:, None]


def _nearest(similar: FloatArray, count: int) -> IntArray:
    """(B, k) columns of the largest entries of each row, in no particular order."""
    return np.argpartition(similar, similar.shape[1] - count, axis=1)[:, -count:]


def _columns(table: FloatArray, slots: IntArray) -> FloatArray:
    """(R, M) copy of the columns of the asked models; 0 for those without any outcome."""
    return np.where(slots >= 0, table[:, slots], np.float32(0.0))


def _agreement(
    known: FloatArray, passed: FloatArray, rejected: BoolArray, expected: FloatArray, noise: float
) -> FloatArray:
    """(B, R) probability that the models rejected on a request (B, M) would be rejected on each row (R, M).

    A model without an outcome there is taken to pass as often as expected on the request.
    """
    asked = rejected.astype(np.float32)
    chance = np.maximum((1.0 - noise) - (1.0 - 2.0 * noise) * expected, _LEAST_CHANCE)
    seen = np.float32(np.log(1.0 - noise)) * (known - passed) + np.float32(np.log(max(noise, _LEAST_CHANCE))) * passed
    evidence = asked @ seen.T
    evidence += (asked * np.log(chance)) @ (1.0 - known).T
    return np.exp(evidence, out=evidence)


def _tuned(space: MemorySpace, vectors: FloatArray, surprise: FloatArray) -> MemorySpace:
    """The space with the reach and shrinkage that predict each row's surprise (R, P) best from the other rows."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1.0)
    known = ~np.isnan(surprise)
    filled = np.where(known, surprise, 0.0)
    best = (float((filled**2).sum()), _NEIGHBOURS[0], _SHRINKAGES[-1])
    for count in _NEIGHBOURS:
        near = _nearest(similar, min(count, max(1, len(vectors) // 2)))
        total, evidence = filled[near].sum(axis=1), known[near].sum(axis=1)
        for shrinkage in _SHRINKAGES:
            error = float((((filled - total / (evidence + shrinkage)) * known) ** 2).sum())
            best = min(best, (error, count, shrinkage))
    _, count, shrinkage = best
    last = np.take_along_axis(similar, _nearest(similar, min(count, len(similar))), axis=1).min(axis=1)
    return replace(
        space,
        least_similarity=float(np.quantile(similar.max(axis=1), _FAR_QUANTILE)),
        row_similarity=float(np.quantile(last, _FAR_QUANTILE)),
        neighbours=count,
        shrinkage=shrinkage,
    )
