"""One decision with all that must be known to explain it, replay it and learn from it; and its bytes.

The bytes hold no prompt. They begin with a fixed prefix (magic, version, checksum, length), a JSON header with what has
names, and two arrays with what has numbers: float32, then one byte each, little-endian, laid out by `Layout`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import Preferences, TaskType
from monkey_coder.ports import BoolArray, FloatArray, IntArray

VERSION: Final = 1
"""Of the bytes; raised whenever older code would misread them, a change in the order of `gates.REASONS` included."""

_MAGIC: Final = b"QDR"
_PREFIX: Final = Struct("<3sBII")
SCALARS: Final = ("complexity", "cost_weight", "latency_weight", "quality_floor")
PER_MODEL: Final = (
    "prior",
    "evidence",
    "cost_usd",
    "latency_s",
    "bonus",
    "distribution",
    "success",
    "low",
    "high",
    "collapsed",
    "order",
)
MARKS: Final = ("exclusions", "attempts", "available")
"""What the arrays hold once, in floats per model, and in bytes per model, in this order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the two arrays of a record hold what, for M models, N strategies and a state of S entries."""

    models: int
    strategies: int
    state: int

    @property
    def numbers(self) -> int:
        """Length of the float array: scalars, state, rows per model, rows per strategy."""
        per_strategy = 3 + 2 * self.models
        return len(SCALARS) + self.state + len(PER_MODEL) * self.models + self.strategies * per_strategy

    @property
    def marks(self) -> int:
        """Length of the byte array."""
        return len(MARKS) * self.models + self.strategies

    def of_models(self, name: str) -> slice:
        """Place of a number per model."""
        start = len(SCALARS) + self.state + PER_MODEL.index(name) * self.models
        return slice(start, start + self.models)

    def of_strategies(self, first: int, width: int = 1) -> slice:
        """Place of a block per strategy that begins after `first` numbers per strategy."""
        start = len(SCALARS) + self.state + len(PER_MODEL) * self.models + first * self.strategies
        return slice(start, start + width * self.strategies)

    def mark(self, name: str) -> slice:
        """Place of a byte per model."""
        start = MARKS.index(name) * self.models
        return slice(start, start + self.models)


@dataclass(frozen=True, eq=False, slots=True)
class DecisionRecord:
    """One decision; M models, N strategies, S entries of state. Without models when the heuristic answered alone.

    Attributes:
        answer: As it was given, in contract form.
        made_at: Seconds since 1970.
        refs: M model refs, the columns of everything per model.
        strategies: N names, the rows of everything per strategy.
        preferences: As the caller stated them.
        task: Task type.
        attempts_left: Verified attempts that the caller could still make, this one included.
        input_tokens: Of prompt and files.
        output_tokens: Expected of the answer.
        budget_usd: Left to spend; infinite without a budget.
        last: Column that the session used last, -1 without one.
        stays: Whether the session kept that one although another had the higher utility.
        dimensions: Entries of the state that are the prompt's embedding.
        encoding_version: Of the state.
        numbers: (Layout.numbers,) float32.
        marks: (Layout.marks,) uint8.
        same_as: Id of the decision that this one repeats, and whose row has the arrays; None where it has its own.
    """

    answer: Mapping[str, Any]
    made_at: float
    refs: tuple[str, ...]
    strategies: tuple[str, ...]
    preferences: Preferences
    task: TaskType
    attempts_left: int
    input_tokens: int
    output_tokens: int
    budget_usd: float
    last: int
    stays: bool
    dimensions: int
    encoding_version: int
    numbers: FloatArray
    marks: NDArray[np.uint8]
    same_as: str | None = None

    @property
    def layout(self) -> Layout:
        """Where the arrays hold what."""
        models, strategies = len(self.refs), len(self.strategies)
        return Layout(models, strategies, len(self.numbers) - Layout(models, strategies, 0).numbers)

    @property
    def id(self) -> str:
        """Of the decision."""
        return str(self.answer["decision_id"])

    @property
    def served(self) -> str:
        """Ref of the model that was answered."""
        return f"{self.answer['provider']}/{self.answer['model']}"

    @property
    def winner(self) -> int:
        """Column that the collapse put first, which exploration may not have served."""
        return int(self.order[0])

    @property
    def complexity(self) -> float:
        """How hard the task looked, 0..1."""
        return float(self.numbers[0])

    @property
    def cost_weight(self) -> float:
        """Lambda, success per USD."""
        return float(self.numbers[1])

    @property
    def latency_weight(self) -> float:
        """Mu, success per second."""
        return float(self.numbers[2])

    @property
    def quality_floor(self) -> float:
        """Lowest acceptable P(success); 0 without one."""
        return float(self.numbers[3])

    @property
    def state(self) -> FloatArray:
        """(S,) the encoded request."""
        return self.numbers[len(SCALARS) : len(SCALARS) + self.layout.state]

    @property
    def embedding(self) -> FloatArray:
        """(D,) of the prompt."""
        return self.state[: self.dimensions]

    @property
    def prior(self) -> FloatArray:
        """(M,) P(success) for the task type, before any strategy."""
        return self._of_models("prior")

    @property
    def evidence(self) -> FloatArray:
        """(M,) outcomes that the prior is worth."""
        return self._of_models("evidence")

    @property
    def cost_usd(self) -> FloatArray:
        """(M,) expected cost of one attempt."""
        return self._of_models("cost_usd")

    @property
    def latency_s(self) -> FloatArray:
        """(M,) expected latency of one attempt."""
        return self._of_models("latency_s")

    @property
    def bonus(self) -> FloatArray:
        """(M,) successes added for a preferred provider."""
        return self._of_models("bonus")

    @property
    def distribution(self) -> FloatArray:
        """(M,) probability with which each model would have been served."""
        return self._of_models("distribution")

    @property
    def success(self) -> FloatArray:
        """(M,) P(success) by all strategies together."""
        return self._of_models("success")

    @property
    def low(self) -> FloatArray:
        """(M,) lower end of its 90% interval."""
        return self._of_models("low")

    @property
    def high(self) -> FloatArray:
        """(M,) upper end of its 90% interval."""
        return self._of_models("high")

    @property
    def collapsed(self) -> FloatArray:
        """(M,) utility as the collapse made it."""
        return self._of_models("collapsed")

    @property
    def order(self) -> IntArray:
        """(M,) columns, best first, before exploration."""
        return self._of_models("order").astype(np.int64)

    @property
    def exclusions(self) -> NDArray[np.uint8]:
        """(M,) 0 for a candidate, else 1 + the index into `gates.REASONS`."""
        return self.marks[self.layout.mark("exclusions")]

    @property
    def candidates(self) -> BoolArray:
        """(M,) whether the model passed every gate."""
        return np.equal(self.exclusions, 0)

    @property
    def attempts(self) -> NDArray[np.int8]:
        """(M,) UNTRIED, REJECTED or ACCEPTED."""
        return self.marks[self.layout.mark("attempts")].view(np.int8)

    @property
    def available(self) -> BoolArray:
        """(M,) whether the model could be called."""
        return self.marks[self.layout.mark("available")].astype(np.bool_)

    @property
    def voting(self) -> BoolArray:
        """(N,) whether the strategy had a say."""
        return self.marks[len(MARKS) * len(self.refs) :].astype(np.bool_)

    @property
    def confidence(self) -> FloatArray:
        """(N,) each strategy's own confidence."""
        return self.numbers[self.layout.of_strategies(0)]

    @property
    def reliability(self) -> FloatArray:
        """(N,) how far it had deserved that so far."""
        return self.numbers[self.layout.of_strategies(1)]

    @property
    def arrival(self) -> IntArray:
        """(N,) rank of arrival, 0 first."""
        return self.numbers[self.layout.of_strategies(2)].astype(np.int64)

    @property
    def utility(self) -> FloatArray:
        """(N, M) each strategy's utilities, the bonus included; meaningless where it does not vote."""
        return self.numbers[self.layout.of_strategies(3, len(self.refs))].reshape(-1, len(self.refs))

    @property
    def chances(self) -> FloatArray:
        """(N, M) each strategy's own P(success); not a number where it estimates none."""
        return self.numbers[self.layout.of_strategies(3 + len(self.refs), len(self.refs))].reshape(-1, len(self.refs))

    def _of_models(self, name: str) -> FloatArray:
        return self.numbers[self.layout.of_models(name)]


def encode(record: DecisionRecord) -> bytes:
    """Turn a record into bytes that `decode` reads."""
    header = orjson.dumps(
        {
            "answer": record.answer,
            "made_at": record.made_at,
            "refs": _fragment(record.refs),
            "strategies": record.strategies,
            "preferences": vars(record.preferences),
            "task": record.task,
            "attempts_left": record.attempts_left,
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "budget_usd": None if record.budget_usd == math.inf else record.budget_usd,
            "last": record.last,
            "stays": record.stays,
            "dimensions": record.dimensions,
            "state": record.layout.state,
            "encoding_version": record.encoding_version,
            **({} if record.same_as is None else {"same_as": record.same_as}),
        }
    )
    body = b"".join((header, record.numbers.tobytes(), record.marks.tobytes()))
    return _PREFIX.pack(_MAGIC, VERSION, zlib.crc32(body), len(header)) + body


def decode(payload: bytes) -> DecisionRecord:
    """Read what `encode` wrote.

    Raises:
        StoreFormatError: The bytes are damaged, foreign, or of another version; the message says which.
    """
    header, numbers, marks = open_record(payload)
    header.pop("state")
    try:
        stated: dict[str, Any] = header["preferences"]
        if stated["value_usd"] is not None:  # then the weights were not given, and must not be
            stated = {name: stated[name] for name in ("value_usd", "quality_floor", "max_cost_usd")}
        return DecisionRecord(
            **header
            | {
                "refs": tuple(header["refs"]),
                "strategies": tuple(header["strategies"]),
                "preferences": Preferences(**stated),
                "budget_usd": math.inf if header["budget_usd"] is None else header["budget_usd"],
            },
            numbers=numbers,
            marks=marks,
        )
    except (ValidationError, KeyError, TypeError) as error:
        raise StoreFormatError(f"a logged decision cannot be read: {error}") from error


def open_record(payload: bytes) -> tuple[dict[str, Any], FloatArray, NDArray[np.uint8]]:
    """Open what `encode` wrote, without making a record of it: for those who need little of many.

    Returns:
        The header as JSON has it (names as in `DecisionRecord`, and the length of the state), `numbers` and `marks`.

    Raises:
        StoreFormatError: The bytes are damaged, foreign, or of another version; the message says which.
    """
    if len(payload) < _PREFIX.size or not payload.startswith(_MAGIC):
        raise StoreFormatError("a logged decision does not begin as one; something else wrote to the decision log")
    _, version, checksum, header_bytes = _PREFIX.unpack_from(payload)
    if version != VERSION:
        raise StoreFormatError(
            f"a logged decision has version {version}, this program reads version {VERSION}; "
            "use the release that wrote it, or let the log age out"
        )
    body = memoryview(payload)[_PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise StoreFormatError("a logged decision is damaged: its checksum does not fit; restore the store's backup")
    try:
        header: dict[str, Any] = orjson.loads(body[:header_bytes])
        layout = Layout(len(header["refs"]), len(header["strategies"]), header["state"])
        numbers, marks = layout.numbers, layout.marks
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreFormatError(f"a logged decision cannot be read: {error}") from error
    if len(body) != header_bytes + 4 * numbers + marks:
        raise StoreFormatError("a logged decision cannot be read: its arrays have another size than its header says")
    return (
        header,
        np.frombuffer(body, "<f4", numbers, header_bytes),
        np.frombuffer(body, np.uint8, marks, header_bytes + 4 * numbers),
    )


@lru_cache(maxsize=8)
def _fragment(refs: tuple[str, ...]) -> orjson.Fragment:
    """The refs as JSON; they are the same for all decisions until the catalog changes."""
    return orjson.Fragment(orjson.dumps(refs))
