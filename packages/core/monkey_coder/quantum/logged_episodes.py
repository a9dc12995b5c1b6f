"""Logged decisions and what was reported of them, as transitions: state, action, reward, next state, and how it ended.

An episode ends with a success, or with a report that says `final` (terminated), or a day after its last event
(truncated: more might have come, so that values are bootstrapped there). A decision that was planned as the only
attempt ends with its outcome. All is a function of the set of reports: their order of arrival plays no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import ErrorType
from monkey_coder.ports import ACCEPTED, REJECTED, UNANSWERED, BoolArray, FloatArray, IntArray
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.outcome_record import OutcomeRecord
from monkey_coder.quantum.reward import utility
from monkey_coder.quantum.state_encoder import StateLayout, encode_attempts, spent_usd_of

PASSING: Final = 0.5
"""Quality from which an answer counts as a success, where the report says no more."""

MOST_OF_USUAL: Final = 10.0
"""A report's cost and latency count as at most so many times what was expected."""

_CACHED: Final = frozenset({"local", "redis", "similar"})


@dataclass(frozen=True, slots=True)
class Report:
    """What was said of one model's answer to a decision.

    Attributes:
        identity: What makes two reports one, within the decision.
        model: Ref of the model that answered.
        occurred_at: When it happened, in seconds since 1970.
        outcome: What was said.
    """

    identity: str
    model: str
    occurred_at: float
    outcome: OutcomeRecord

    @property
    def rank(self) -> tuple[float, float, bytes]:
        """Of two reports of one identity, that of the higher rank stands, whichever came first."""
        return (self.occurred_at, self.outcome.received_at, self.outcome.encode())


@dataclass(frozen=True, eq=False, slots=True)
class LoggedDecision:
    """A decision with all reports that stand.

    Attributes:
        record: What was known and decided.
        reports: At least one.
    """

    record: DecisionRecord
    reports: Sequence[Report]

    @property
    def cached(self) -> bool:
        """Whether it came out of a cache, and so was not drawn by the propensities."""
        return self.record.answer["cache"] in _CACHED

    @property
    def episode(self) -> str:
        """Id of its episode."""
        return str(self.record.answer["episode_id"])

    @property
    def policy_version(self) -> int | None:
        """Number of the policy it was made by; None: there was none."""
        version = self.record.answer["policy_version"]
        return None if version is None else int(version)

    def last_words(self) -> list[Report]:
        """The newest report on each model that answered: failures first, among them the decided model's."""
        newest: dict[str, Report] = {}
        for report in sorted(self.reports, key=lambda each: (*each.rank, each.identity)):
            newest[report.model] = report
        served = self.record.served
        return sorted(newest.values(), key=lambda each: (passed(each), each.model != served, each.rank))


@dataclass(frozen=True, eq=False)
class Attempt:
    """One transition.

    Attributes:
        logged: The decision.
        report: What became of the answer.
        episode: Number of the episode, from 0.
        place: Which attempt of the episode it was, from 0.
        follows: The attempt that came next; None for the last one.
        terminated: Whether the episode ended here.
        truncated: Whether nobody came back; what might have followed is to be bootstrapped.
    """

    logged: LoggedDecision
    report: Report
    episode: int
    place: int
    follows: LoggedDecision | None = None
    terminated: bool = False
    truncated: bool = False

    @property
    def record(self) -> DecisionRecord:
        """The decision."""
        return self.logged.record

    @property
    def column(self) -> int:
        """Of the model that answered, in the record; -1 where the catalog did not have it."""
        refs = self.record.refs
        return refs.index(self.report.model) if self.report.model in refs else -1

    @property
    def error(self) -> ErrorType | None:
        """Why there was no answer."""
        return self.report.outcome.error_type

    @property
    def score(self) -> float:
        """0..1; not a number where nothing was said about quality."""
        score = self.report.outcome.score
        return float("nan") if score is None else score

    @property
    def ended(self) -> bool:
        """Whether it is known how the episode went on from here; False for the last attempt of an open one."""
        return self.terminated or self.truncated or self.follows is not None

    @property
    def cost_usd(self) -> float:
        """What was paid, at most ten times what was expected; the expectation where nothing was said."""
        return _bounded(self.report.outcome.cost_usd, self._expected("cost_usd"))

    @property
    def latency_s(self) -> float:
        """How long it took, at most ten times what was expected; the expectation where nothing was said."""
        told = self.report.outcome.latency_ms
        return _bounded(None if told is None else told / 1e3, self._expected("latency_s"))

    @property
    def reward(self) -> float:
        """Utility of the attempt at the caller's preferences; one without an answer has no success, but its price."""
        score = 0.0 if self.report.outcome.score is None else self.report.outcome.score
        record = self.record
        value = utility(
            *(np.array([[each]]) for each in (score, self.cost_usd, self.latency_s)),
            *(np.array([each]) for each in (record.cost_weight, record.latency_weight)),
        )
        return float(value[0, 0])

    @property
    def drawn(self) -> bool:
        """Whether the answering model was drawn by the logged propensities, so that off-policy estimates may use it."""
        return not self.logged.cached and self.report.model == self.record.served and self.propensity > 0.0

    @property
    def propensity(self) -> float:
        """Probability with which the answering model was decided; 0 where it could not be."""
        return float(self.record.distribution[self.column]) if self.column >= 0 else 0.0

    @property
    def next_state(self) -> FloatArray:
        """(S,) what the next decision rests on: as it was logged, or this state after this attempt; 0 at an end."""
        record, follows = self.record, self.follows
        if self.terminated:
            return np.zeros_like(record.state)
        if follows is not None and follows is not self.logged and follows.record.state.shape == record.state.shape:
            return follows.record.state
        attempts = record.attempts.copy()
        if self.column >= 0:
            failed = REJECTED if self.error is None else UNANSWERED
            attempts[self.column] = ACCEPTED if passed(self.report) else failed
        spent = spent_usd_of(record.state, record.dimensions) + self.cost_usd
        layout = StateLayout(record.dimensions)
        state = record.state.copy()
        state[layout.attempts : layout.preferences] = encode_attempts(
            attempts[None], np.array([spent]), record.prior[None]
        )[0]
        return state

    def _expected(self, name: str) -> float:
        return float(getattr(self.record, name)[self.column]) if self.column >= 0 else 0.0


@dataclass(frozen=True, eq=False)
class LoggedTransitions:
    """The same as arrays, for learning; R attempts, all of one state size S.

    Attributes:
        state: (R, S).
        action: R refs.
        reward: (R,) utilities.
        next_state: (R, S); 0 where the episode terminated.
        terminated: (R,) nothing follows: do not bootstrap.
        truncated: (R,) something might have followed: bootstrap.
        propensity: (R,) probability of the action; 0 where it was not drawn.
        episode: (R,) numbers.
    """

    state: FloatArray
    action: tuple[str, ...]
    reward: NDArray[np.float64]
    next_state: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    propensity: NDArray[np.float64]
    episode: IntArray

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> LoggedTransitions:
        """Those of which it is known how they went on; states of another size than the newest have are left out."""
        known = [each for each in attempts if each.ended]
        size = len(max((each.record for each in known), key=lambda record: record.made_at).state) if known else 0
        known = [each for each in known if len(each.record.state) == size]
        return cls(
            state=np.array([each.record.state for each in known], dtype=np.float32).reshape(len(known), size),
            action=tuple(each.report.model for each in known),
            reward=np.array([each.reward for each in known], dtype=np.float64),
            next_state=np.array([each.next_state for each in known], dtype=np.float32).reshape(len(known), size),
            terminated=np.array([each.terminated for each in known], dtype=np.bool_),
            truncated=np.array([each.truncated for each in known], dtype=np.bool_),
            propensity=np.array([each.propensity if each.drawn else 0.0 for each in known], dtype=np.float64),
            episode=np.array([each.episode for each in known], dtype=np.int64),
        )


def passed(report: Report) -> bool:
    """Whether the answer was good enough to end an episode."""
    said = report.outcome
    if said.success is not None:
        return said.success
    return said.error_type is None and said.quality is not None and said.quality >= PASSING


def attempts_of(decisions: Iterable[LoggedDecision], now_s: float, episode_s: float) -> list[Attempt]:
    """Arrange decisions and reports as episodes of attempts.

    An episode id that goes on after an end, or after a pause as long as an episode may last, begins a new episode.

    Args:
        decisions: Each once, in any order.
        now_s: Seconds since 1970.
        episode_s: Time without any event after which an episode is over.

    Returns:
        The attempts, episode by episode in order of their first decisions, each in its order.
    """
    by_id: dict[str, list[LoggedDecision]] = {}
    for decision in sorted(decisions, key=lambda each: (each.record.made_at, each.record.id)):
        by_id.setdefault(decision.episode, []).append(decision)
    found: list[Attempt] = []
    episodes = 0
    for together in by_id.values():
        for rows in _parts(together, episode_s):
            found += _episode(rows, episodes, now_s, episode_s)
            episodes += 1
    return found


def _parts(decisions: Sequence[LoggedDecision], episode_s: float) -> list[list[tuple[LoggedDecision, Report]]]:
    """Cut what one id was used for where an episode ended, or nothing happened for too long."""
    parts: list[list[tuple[LoggedDecision, Report]]] = [[]]
    last_event = -np.inf
    for decision in decisions:
        if parts[-1] and (_ends(parts[-1][-1][1]) or decision.record.made_at - last_event >= episode_s):
            parts.append([])
        parts[-1] += [(decision, report) for report in decision.last_words()]
        last_event = max(last_event, _last_event(decision))
    return parts


def _episode(
    rows: Sequence[tuple[LoggedDecision, Report]], number: int, now_s: float, episode_s: float
) -> Iterable[Attempt]:
    last_event = max(_last_event(decision) for decision, _ in rows)
    over = now_s - last_event >= episode_s
    for place, (decision, report) in enumerate(rows):
        if place + 1 < len(rows):
            yield Attempt(decision, report, number, place, follows=rows[place + 1][0])
            continue
        terminated = _ends(report) or (decision.record.attempts_left <= 1 and report.outcome.score is not None)
        yield Attempt(decision, report, number, place, terminated=terminated, truncated=over and not terminated)


def _ends(report: Report) -> bool:
    return report.outcome.final or passed(report)


def _last_event(decision: LoggedDecision) -> float:
    received = max(report.outcome.received_at for report in decision.reports)
    return max(decision.record.made_at, received)


def _bounded(told: float | None, expected: float) -> float:
    if told is None:
        return expected
    return min(told, MOST_OF_USUAL * expected) if expected > 0.0 else told
