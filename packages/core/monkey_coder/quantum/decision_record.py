"""One decision with all that must be known to explain it, replay it and learn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import Preferences, TaskType
from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.record_bytes import OpenRecord, open_record
from monkey_coder.quantum.record_layout import Layout
from monkey_coder.quantum.told_models import CONFIDENCE_DIGITS, described, figures, rounded, split, thread_result

_STATED: Final = tuple(Preferences.model_fields)


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
        layout: Where the arrays hold what.
        numbers: float32.
        marks: uint8.
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
    layout: Layout
    numbers: FloatArray
    marks: NDArray[np.uint8]
    same_as: str | None = None

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
        return float(self._floats("complexity")[0])

    @property
    def cost_weight(self) -> float:
        """Lambda, success per USD."""
        return float(self._floats("cost_weight")[0])

    @property
    def latency_weight(self) -> float:
        """Mu, success per second."""
        return float(self._floats("latency_weight")[0])

    @property
    def quality_floor(self) -> float:
        """Lowest acceptable P(success); 0 without one."""
        return float(self._floats("quality_floor")[0])

    @property
    def state(self) -> FloatArray:
        """(S,) the encoded request."""
        return self._floats("state")

    @property
    def embedding(self) -> FloatArray:
        """(D,) of the prompt."""
        return self.state[: self.dimensions]

    @property
    def prior(self) -> FloatArray:
        """(M,) P(success) for the task type, before any strategy."""
        return self._floats("prior")

    @property
    def evidence(self) -> FloatArray:
        """(M,) outcomes that the prior is worth."""
        return self._floats("evidence")

    @property
    def cost_usd(self) -> FloatArray:
        """(M,) expected cost of one attempt."""
        return self._floats("cost_usd")

    @property
    def latency_s(self) -> FloatArray:
        """(M,) expected latency of one attempt."""
        return self._floats("latency_s")

    @property
    def bonus(self) -> FloatArray:
        """(M,) successes added for a preferred provider."""
        return self._of_models("bonus", otherwise=0.0)

    @property
    def distribution(self) -> FloatArray:
        """(M,) probability with which each model would have been served."""
        return self._floats("distribution")

    @property
    def success(self) -> FloatArray:
        """(M,) P(success) by all strategies together."""
        return self._floats("success")

    @property
    def low(self) -> FloatArray:
        """(M,) lower end of its 90% interval."""
        return self._floats("low")

    @property
    def high(self) -> FloatArray:
        """(M,) upper end of its 90% interval."""
        return self._floats("high")

    @property
    def collapsed(self) -> FloatArray:
        """(M,) utility as the collapse made it."""
        return self._floats("collapsed")

    @property
    def order(self) -> IntArray:
        """(M,) columns, best first, before exploration."""
        return self._marks("order").view("<u2").astype(np.int64)

    @property
    def exclusions(self) -> NDArray[np.uint8]:
        """(M,) 0 for a candidate, else 1 + the index into `gates.REASONS`."""
        return self._marks("exclusions")

    @property
    def candidates(self) -> BoolArray:
        """(M,) whether the model passed every gate."""
        return np.equal(self.exclusions, 0)

    @property
    def attempts(self) -> NDArray[np.int8]:
        """(M,) UNTRIED, REJECTED, ACCEPTED or UNANSWERED."""
        return self._marks("attempts").view(np.int8)

    @property
    def available(self) -> BoolArray:
        """(M,) whether the model could be called."""
        return self._marks("available").astype(np.bool_)

    @property
    def usd(self) -> NDArray[np.float64]:
        """(M,) expected cost of one attempt as answers tell it, without what was learned of it."""
        return self._marks("usd").view("<f8")

    @property
    def voting(self) -> BoolArray:
        """(N,) whether the strategy had a say."""
        return self._marks("voting").astype(np.bool_)

    @property
    def first(self) -> IntArray:
        """(N,) column that the strategy put first; meaningless where it does not vote."""
        return self._marks("first").view("<u2").astype(np.int64)

    @property
    def confidence(self) -> FloatArray:
        """(N,) each strategy's own confidence."""
        return self._floats("confidence")

    @property
    def reliability(self) -> FloatArray:
        """(N,) how far it had deserved that so far."""
        return self._floats("reliability")

    @property
    def arrival(self) -> IntArray:
        """(N,) rank of arrival, 0 first."""
        return self._floats("arrival").astype(np.int64)

    @property
    def utility(self) -> FloatArray:
        """(N, M) each strategy's utilities, the bonus included; meaningless where it does not vote."""
        return self._of_strategies("utility", otherwise=0.0)

    @property
    def chances(self) -> FloatArray:
        """(N, M) each strategy's own P(success); not a number where it estimates none."""
        return self._of_strategies("chances", otherwise=math.nan)

    def _floats(self, name: str) -> FloatArray:
        return self.numbers[self.layout.numbers[name]]

    def _marks(self, name: str) -> NDArray[np.uint8]:
        return self.marks[self.layout.marks[name]]

    def _of_models(self, name: str, otherwise: float) -> FloatArray:
        there = name in self.layout.extra
        return self._floats(name) if there else np.full(len(self.refs), otherwise, dtype=np.float32)

    def _of_strategies(self, name: str, otherwise: float) -> FloatArray:
        rows = [self._of_models(f"{name} {place}", otherwise) for place in range(len(self.strategies))]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.refs))


def decode(payload: bytes, *, whole: bool = True) -> DecisionRecord:
    """Read a logged decision.

    Args:
        payload: As logged.
        whole: Whether the answer is wanted whole; otherwise what of it follows from the arrays is left out, which is
            most of the work.

    Raises:
        StoreFormatError: The bytes are damaged, foreign, or of another version; the message says which.
    """
    opened = open_record(payload)
    try:
        return _record(opened, whole=whole)
    except (ValidationError, LookupError, TypeError, ValueError) as error:
        raise StoreFormatError(f"a logged decision cannot be read: {error}") from error


def _record(opened: OpenRecord, *, whole: bool) -> DecisionRecord:
    common, own, answer = opened.common, opened.own.copy(), opened.answer
    told = [own.pop(name) for name in ("said", "alternatives", "threads")][1:]
    record = DecisionRecord(
        **own
        | {
            "preferences": _preferences(own["preferences"]),
            "budget_usd": math.inf if own["budget_usd"] is None else own["budget_usd"],
        },
        answer=answer,
        refs=common.refs,
        strategies=common.strategies,
        dimensions=common.dimensions,
        encoding_version=common.encoding_version,
        layout=common.layout,
        numbers=opened.numbers,
        marks=opened.marks,
    )
    if whole and record.refs:
        answer.update(_following(record, opened.choices, *told))
    return record


def _preferences(values: Sequence[float | None]) -> Preferences:
    stated: dict[str, Any] = dict(zip(_STATED, values, strict=True))
    if stated["value_usd"] is not None:  # then the weights were not given, and must not be
        stated = {name: stated[name] for name in ("value_usd", "quality_floor", "max_cost_usd")}
    return Preferences(**stated)


def _following(
    record: DecisionRecord, choices: Mapping[str, str | None], alternatives: int, threads: list[list[Any]]
) -> dict[str, Any]:
    """What of an answer follows from the arrays."""
    refs, served = record.refs, record.refs.index(record.served)
    chain = [served, *(column for column in record.order.tolist() if column != served)][: 1 + alternatives]
    told = (record.success, record.low, record.high, record.latency_s, record.collapsed)
    (numbers,) = figures([each[None] for each in told], record.usd[None], np.array([chain]))
    names = split(refs)
    chosen, *others = described([names[column] for column in chain], numbers)
    trust = dict(zip(record.strategies, rounded(record.confidence, CONFIDENCE_DIGITS), strict=True))
    return {
        "expected": chosen["expected"],
        "alternatives": others,
        "thread_results": [
            thread_result(name, status, ms, choices[name], None if choices[name] is None else trust[name])
            for name, status, ms in threads
        ],
    }
