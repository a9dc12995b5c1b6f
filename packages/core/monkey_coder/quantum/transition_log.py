"""Joins outcomes with their decisions, each exactly once, in whatever order and however often they are delivered.

What the log holds is a function of the set of reports it was given: the newest decisions, and for each identity the
report that stands. So a process that was killed reads the stream again from `TransitionLog.since`, and has it back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from monkey_coder.errors import StoreFormatError
from monkey_coder.models import TaskType
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.logged_episodes import Attempt, LoggedDecision, Report, attempts_of
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord
from monkey_coder.quantum.state_encoder import ENCODING_VERSION
from monkey_coder.storage.port import START, OutcomeRow, StreamedOutcome

Lookup = Callable[[str], DecisionRecord | None]
"""Finds a decision by its id; None while it cannot be read. May raise `StoreFormatError` for one that is damaged."""

_KEPT_OF_ANSWER: Final = (
    "decision_id",
    "episode_id",
    "provider",
    "model",
    "cache",
    "policy_version",
    "collapse_strategy",
    "explored",
    "experiment",
)
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransitionOptions:
    """What a log keeps.

    Attributes:
        episode_s: Time without any event after which an episode is over.
        most_decisions: The newest decisions that are kept, some 4 KB each with two dozen models.
        most_waiting: Outcomes that may wait for their decisions; the oldest go first.
        wait_s: How long one waits before it is given up.
    """

    episode_s: float = 86_400.0
    most_decisions: int = 20_000
    most_waiting: int = 50_000
    wait_s: float = 86_400.0

    def __post_init__(self) -> None:
        for knob in ("episode_s", "most_decisions", "most_waiting", "wait_s"):
            if not getattr(self, knob) > 0:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be above 0")


@dataclass(frozen=True, slots=True)
class CountedOutcome:
    """The first word on how a decided model did, in the order of the stream.

    Attributes:
        decision_id: The decision.
        model: Ref of the decided model, which answered.
        task: Task type.
        policy_version: Of the policy that decided; None: there was none.
        planned: Whether further attempts could follow.
        cached: Whether the decision came out of a cache.
        score: 0..1.
        reward: Utility of the attempt at the caller's preferences, in successes; at most 1.
        received_at: In seconds since 1970.
    """

    decision_id: str
    model: str
    task: TaskType
    policy_version: int | None
    planned: bool
    cached: bool
    score: float
    reward: float
    received_at: float


@dataclass(frozen=True, slots=True)
class LogCounts:
    """How a log stands.

    Attributes:
        decisions: Decisions with at least one outcome.
        outcomes: Reports that stand.
        waiting: Reports whose decision cannot be read yet.
        given_up: Reports whose decision never came.
        unusable: Reports that cannot be read, or whose decision holds nothing to learn from.
    """

    decisions: int
    outcomes: int
    waiting: int
    given_up: int
    unusable: int


_Place = tuple[int, str]
"""How many rows came before one, and the position of the row before it."""


@dataclass(slots=True)
class _Waiting:
    """An outcome whose decision cannot be read yet."""

    row: OutcomeRow
    outcome: OutcomeRecord
    place: _Place
    since_s: float
    due_s: float
    pause_s: float = _FIRST_PAUSE_S


class TransitionLog:
    """The newest decisions with their outcomes. For one thread at a time.

    Args:
        options: What to keep.
        since: Position from which the stream is read, of a log that this one shall become.
    """

    def __init__(self, options: TransitionOptions | None = None, since: str = START) -> None:
        self.options = options or TransitionOptions()
        self._records: dict[str, DecisionRecord] = {}
        self._reports: dict[str, dict[str, Report]] = {}
        self._places: dict[str, _Place] = {}
        self._told: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._refs: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._taken = self._given_up = self._unusable = 0
        self._last = since

    @property
    def counts(self) -> LogCounts:
        """How the log stands."""
        outcomes = sum(map(len, self._reports.values()))
        return LogCounts(len(self._records), outcomes, len(self._waiting), self._given_up, self._unusable)

    @property
    def since(self) -> str:
        """Position in the stream after which all that the log holds, or waits for, can be read again."""
        places = [*self._places.values(), *(waiting.place for waiting in self._waiting.values())]
        return min(places)[1] if places else self._last

    def outcomes_after(self, time_s: float) -> int:
        """How many reports that stand, and say something about quality, came after a time."""
        return sum(
            report.outcome.received_at > time_s and report.outcome.score is not None
            for reports in self._reports.values()
            for report in reports.values()
        )

    def take(self, rows: Sequence[StreamedOutcome], decision: Lookup, now_s: float) -> list[CountedOutcome]:
        """Take outcomes in; nothing of them is taken if looking their decisions up fails.

        Args:
            rows: From the stream, in its order; those that were given before change nothing.
            decision: Finds decisions; what it raises but `StoreFormatError` goes through.
            now_s: Seconds since 1970.

        Returns:
            The first words on decided models; corrections of what was told before are not among them.
        """
        due = [position for position, waiting in self._waiting.items() if waiting.due_s <= now_s]
        asked = {row.row.decision_id for row in rows} | {self._waiting[position].row.decision_id for position in due}
        found = {each: _looked_up(decision, each) for each in asked if each not in self._records}
        joined: list[str] = []
        for position in due:
            self._try_again(position, found, joined, now_s)
        for streamed in rows:
            self._take(streamed, found, joined, now_s)
        self._forget()
        return self._first_words(joined)

    def attempts(self, now_s: float) -> list[Attempt]:
        """All that the log holds, as episodes of attempts; see `attempts_of`."""
        decisions = (
            LoggedDecision(record, tuple(self._reports[each].values())) for each, record in self._records.items()
        )
        return attempts_of(decisions, now_s, self.options.episode_s)

    def _take(
        self,
        streamed: StreamedOutcome,
        found: Mapping[str, DecisionRecord | StoreFormatError | None],
        joined: list[str],
        now_s: float,
    ) -> None:
        place = (self._taken, self._last)
        self._taken += 1
        self._last = streamed.position
        if streamed.position in self._waiting:
            return
        try:
            outcome = OutcomeRecord.decode(streamed.row.payload)
        except StoreFormatError as error:
            self._pass_over(error)
            return
        waiting = _Waiting(streamed.row, outcome, place, now_s, now_s + _FIRST_PAUSE_S)
        if not self._join(waiting, found, joined):
            self._waiting[streamed.position] = waiting
            while len(self._waiting) > self.options.most_waiting:
                del self._waiting[next(iter(self._waiting))]
                self._given_up += 1

    def _try_again(
        self,
        position: str,
        found: Mapping[str, DecisionRecord | StoreFormatError | None],
        joined: list[str],
        now_s: float,
    ) -> None:
        waiting = self._waiting[position]
        if self._join(waiting, found, joined):
            del self._waiting[position]
        elif now_s - waiting.since_s >= self.options.wait_s:
            del self._waiting[position]
            self._given_up += 1
        else:
            waiting.pause_s = min(2.0 * waiting.pause_s, _LONGEST_PAUSE_S)
            waiting.due_s = now_s + waiting.pause_s

    def _join(
        self, waiting: _Waiting, found: Mapping[str, DecisionRecord | StoreFormatError | None], joined: list[str]
    ) -> bool:
        """Put a report to its decision; False while that cannot be read."""
        row, decision_id = waiting.row, waiting.row.decision_id
        record = self._records.get(decision_id) or found[decision_id]
        if record is None:
            return False
        if isinstance(record, StoreFormatError):
            self._pass_over(record)
            return True
        if not record.refs or record.encoding_version != ENCODING_VERSION:
            self._unusable += 1
            return True
        if decision_id not in self._records:
            self._records[decision_id] = self._small(record)
        model = record.served if row.model == DECIDED_MODEL else row.model
        identity = f"model {model}" if row.outcome_id is None else row.identity
        report = Report(identity, model, row.occurred_at, waiting.outcome)
        reports = self._reports.setdefault(decision_id, {})
        if identity not in reports or report.rank > reports[identity].rank:
            reports[identity] = report
        self._places[decision_id] = min(waiting.place, self._places.get(decision_id, waiting.place))
        joined.append(decision_id)
        return True

    def _forget(self) -> None:
        """Drop the oldest decisions beyond the bound, whichever came last."""
        surplus = len(self._records) - self.options.most_decisions
        if surplus > 0:
            oldest = sorted(self._records, key=lambda each: (self._records[each].made_at, each))[:surplus]
            for each in oldest:
                del self._records[each], self._reports[each], self._places[each]
                self._told.discard(each)

    def _first_words(self, joined: Sequence[str]) -> list[CountedOutcome]:
        words = []
        for each in dict.fromkeys(joined):
            if each in self._told or each not in self._records:
                continue
            logged = LoggedDecision(self._records[each], tuple(self._reports[each].values()))
            served = logged.record.served
            reports = [report for report in logged.last_words() if report.model == served]
            if reports and reports[0].outcome.score is not None:
                self._told.add(each)
                words.append(_counted(Attempt(logged, reports[0], episode=0, place=0)))
        return words

    def _small(self, record: DecisionRecord) -> DecisionRecord:
        """What is learned from, without the rest of the answer and the bytes of the log."""
        return replace(
            record,
            answer={name: record.answer[name] for name in _KEPT_OF_ANSWER},
            refs=self._refs.setdefault(record.refs, record.refs),
            numbers=record.numbers.copy(),
            marks=record.marks.copy(),
        )

    def _pass_over(self, error: StoreFormatError) -> None:
        self._unusable += 1
        _log.warning("an outcome is passed over: %s", error)


def _looked_up(decision: Lookup, decision_id: str) -> DecisionRecord | StoreFormatError | None:
    """A decision; one from a cache with what the decision was made from that it repeats, if that is still there."""
    try:
        record = decision(decision_id)
        if record is None or record.refs or record.same_as is None:
            return record
        original = decision(record.same_as)
    except StoreFormatError as error:
        return error
    if original is None or not original.refs:
        return record
    return replace(original, answer=record.answer, made_at=record.made_at, same_as=record.same_as)


def _counted(attempt: Attempt) -> CountedOutcome:
    record = attempt.record
    return CountedOutcome(
        decision_id=record.id,
        model=attempt.report.model,
        task=record.task,
        policy_version=attempt.logged.policy_version,
        planned=record.attempts_left > 1,
        cached=attempt.logged.cached,
        score=attempt.score,
        reward=attempt.reward,
        received_at=attempt.report.outcome.received_at,
    )
