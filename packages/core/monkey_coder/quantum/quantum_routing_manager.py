"""The quantum routing manager (T2.2.1): asks all strategies about a batch at once, and collapses what they say.

Data flows one way: requests are prepared (`preparation`), scored side by side (`thread_manager`), collapsed
(`collapse_strategies`), now and then explored (`exploration`), and written down (`answers`). What may change
while the engine runs comes in as one `EngineSnapshot`, taken once per batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import NamedTuple

import numpy as np

from monkey_coder.errors import AllUnavailableError, NoEligibleModelError, RouterError
from monkey_coder.models import CollapseName, RouteRequest, RoutingDecision
from monkey_coder.ports import (
    BoolArray,
    Clock,
    DecisionEvent,
    DecisionListener,
    RouteBatch,
    TextEmbedder,
)
from monkey_coder.quantum.answers import (
    Answer,
    Decided,
    degradations,
    silent_results,
    was_asked,
    write_answers,
)
from monkey_coder.quantum.collapse_strategies import COLLAPSES, Ballots, put_first
from monkey_coder.quantum.deliberation import deliberation
from monkey_coder.quantum.exploration import explore
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.load_balancer import LoadBalancer, tell_of_deployments
from monkey_coder.quantum.polling import Polled
from monkey_coder.quantum.preparation import Prepared, check_names, prepare
from monkey_coder.quantum.provider_bonus import provider_bonus
from monkey_coder.quantum.quality_floor import acceptable, apply_quality_floor
from monkey_coder.quantum.session_affinity import SessionMemory, stay_or_switch
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager, ThreadOutcome

_log = logging.getLogger(__name__)


class _FanOutKey(NamedTuple):
    """Requests that agree on these share a fan-out."""

    timeout_ms: int
    max_threads: int | None
    first_answer_decides: bool


@dataclass
class QuantumRoutingManager:
    """Decides batches of requests. Safe to call from several threads.

    Attributes:
        snapshot: Returns what the next batch shall rest on.
        embedder: For prompts.
        threads: Runs the strategies.
        ids: Makes decision and episode ids.
        heuristic: Answers a request when no strategy did; see `monkey_coder.core.routing`.
        sessions: Which model each session used last.
        rng: Randomness of exploration.
        clock: Monotonic seconds.
        listeners: Get one event per decision.
        balancer: Spreads calls over the deployments of a model; None: what was chosen takes them.
    """

    snapshot: Callable[[], EngineSnapshot]
    embedder: TextEmbedder
    threads: ThreadManager
    ids: SignedIds
    heuristic: Callable[[RouteRequest], RoutingDecision]
    clock: Clock
    sessions: SessionMemory = field(default_factory=SessionMemory)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(int.from_bytes(urandom(8))))
    listeners: Sequence[DecisionListener] = ()
    balancer: LoadBalancer | None = None

    def route(self, request: RouteRequest) -> RoutingDecision:
        """Decide one request.

        Raises:
            NoEligibleModelError: Every model is excluded; `AllUnavailableError` if only by availability.
            UnknownModelError: The request names a model that is not in the catalog.
            UnknownStrategyError: The request names a strategy that does not exist.
        """
        (answer,) = self.decide([request])
        if isinstance(answer, RouterError):
            raise answer
        return RoutingDecision.model_validate(answer, strict=False)

    def decide(self, requests: Sequence[RouteRequest]) -> list[Answer | RouterError]:
        """Decide a batch.

        Args:
            requests: Any number; requests with different options share as much work as they can.

        Returns:
            For each request its answer in contract form, or the error that its caller must see.
        """
        started = self.clock()
        snapshot = self.snapshot()
        results: list[Answer | RouterError | None] = [_name_error(request, snapshot) for request in requests]
        open_rows = [row for row, result in enumerate(results) if result is None]
        if open_rows:
            asked = [requests[row] for row in open_rows]
            try:
                decided = self._decide_prepared(prepare(asked, snapshot, self.embedder), snapshot, started)
            except Exception:  # noqa: BLE001 - whatever broke in here, callers still get the heuristic's answer
                _log.exception("a batch of %d requests failed; the heuristic answers", len(asked))
                decided = [self._heuristic_answer(request, (), started) for request in asked]
                self._tell([_sure(a, snapshot) for a in decided if not isinstance(a, RouterError)])
            for row, result in zip(open_rows, decided, strict=True):
                results[row] = result
        return [result for result in results if result is not None]

    def _decide_prepared(
        self, prepared: Prepared, snapshot: EngineSnapshot, started: float
    ) -> list[Answer | RouterError]:
        left: list[int] = prepared.batch.choices.tolist()
        results: list[Answer | RouterError | None] = [
            None if count else _no_candidate(prepared, row) for row, count in enumerate(left)
        ]
        groups: dict[_FanOutKey, list[int]] = {}
        for row, request in enumerate(prepared.requests):
            if results[row] is None:
                groups.setdefault(_fan_out_key(request, snapshot), []).append(row)
        for key, rows in groups.items():
            part = prepared if len(rows) == len(prepared.requests) else prepared.take(rows)
            for row, answer in zip(rows, self._decide_group(part, key, snapshot, started), strict=True):
                results[row] = answer
        return [result for result in results if result is not None]

    def _decide_group(
        self, prepared: Prepared, key: _FanOutKey, snapshot: EngineSnapshot, started: float
    ) -> list[Answer | RouterError]:
        asked = _asked(prepared.requests, snapshot)
        outcomes = self.threads.run(
            [each for name, each in snapshot.strategies.items() if asked is None or asked[name].any()],
            prepared.batch,
            key.timeout_ms / 1e3,
            key.max_threads,
            (lambda so_far: _all_answered(so_far, asked, len(prepared.requests))) if key.first_answer_decides else None,
        )
        bonus = provider_bonus(prepared.requests, prepared.batch.table, snapshot.preferred_bonus)
        polled = Polled.of(prepared.batch, outcomes, asked, bonus, snapshot.reliability)
        answers: list[Answer | RouterError | None] = [None] * len(prepared.requests)
        events: list[DecisionEvent] = []
        for collapse, rows in _by_collapse(prepared.requests, polled.ballots, snapshot).items():
            whole = len(rows) == len(answers)
            part = prepared if whole else prepared.take(rows)
            opinions = polled if whole else polled.take(rows)
            for row, answer in zip(
                rows, self._answer(part, opinions, collapse, snapshot, started, events), strict=True
            ):
                answers[row] = answer
        for row, decided in enumerate(answers):
            if decided is None:
                answers[row] = made = self._heuristic_answer(prepared.requests[row], outcomes, started)
                if not isinstance(made, RouterError):
                    events.append(_sure(made, snapshot, prepared.batch, row))
        self._tell(events)
        return [answer for answer in answers if answer is not None]

    def _tell(self, events: Sequence[DecisionEvent]) -> None:
        for listener in self.listeners:
            try:
                listener.on_decided(events)
            except Exception:  # noqa: BLE001 - what is only told about must not cost anybody a decision
                _log.exception("a listener failed on %d decisions", len(events))

    def _answer(
        self,
        prepared: Prepared,
        polled: Polled,
        collapse: CollapseName,
        snapshot: EngineSnapshot,
        started: float,
        events: list[DecisionEvent],
    ) -> list[Answer]:
        batch, ballots, estimates = prepared.batch, polled.ballots, polled.estimates
        ranking, reaching = apply_quality_floor(COLLAPSES[collapse](ballots), ballots, estimates, batch)
        drawable = acceptable(estimates, batch)
        stays = np.zeros(len(batch), dtype=np.bool_)
        epsilon = np.array(
            [
                snapshot.epsilon_of(a.task_type) if r.quantum_config.explore else 0.0
                for r, a in zip(prepared.requests, prepared.analyses, strict=True)
            ],
            dtype=np.float32,
        )
        sessions = [request.request.session_id for request in prepared.requests]
        last = self.sessions.columns(sessions, batch.table)
        if any(sessions):
            holders = np.where(reaching == 0, batch.candidates.T, drawable.T).T
            winner, stays = stay_or_switch(
                ranking.order[:, 0], last, ranking.utility, holders, prepared.gated.input_tokens, batch
            )
            ranking = put_first(winner, ranking, ballots)
            epsilon = np.where(winner == last, 0.0, epsilon)
        hope = None if snapshot.estimate is None else snapshot.estimate.of(batch.table).optimism
        served = explore(ranking.order[:, 0], ranking.utility, drawable, epsilon, self.rng, hope)
        chosen = served.column
        if self.balancer is not None and batch.table.deployments:
            served = self.balancer.spread(
                served,
                batch.table,
                batch.candidates,
                drawable,
                estimates.success,
                estimates.high,
                last,
                ranking.order[:, 0],
            )
            chosen = np.where(served.explored, chosen, ranking.order[:, 0])
        for session, column in zip(sessions, served.column.tolist(), strict=True):
            if session:
                self.sessions.use(session, batch.table.refs[column])
        decided = Decided(collapse, ballots, ranking, served, estimates, reaching, stays)
        made = self.ids.make(len(batch))
        ids = [
            (decision_id, request.episode.episode_id or decision_id)
            for decision_id, request in zip(made, prepared.requests, strict=True)
        ]
        answers = write_answers(prepared, decided, polled.outcomes, snapshot, ids)
        if batch.table.deployments:
            tell_of_deployments(answers, chosen, served.column, batch.table.refs)
        seconds = self.clock() - started
        for answer in answers:
            answer["execution_time_ms"] = round(seconds * 1e3, 3)
        told = deliberation(prepared, decided, polled.outcomes, polled.rows, last, polled.bonus)
        events.extend(
            DecisionEvent(answer, batch, row, served.distribution[row], seconds, told)
            for row, answer in enumerate(answers)
        )
        return answers

    def _heuristic_answer(
        self, request: RouteRequest, outcomes: Sequence[ThreadOutcome], started: float
    ) -> Answer | RouterError:
        try:
            answer = self.heuristic(request).model_dump()
        except RouterError as error:
            return error
        if request.request.session_id:
            self.sessions.use(request.request.session_id, _ref(answer))
        requested = request.quantum_config.strategies
        answer["thread_results"] = silent_results(requested, outcomes)
        answer["degraded"] = [*degradations(requested, outcomes), "quantum"]
        answer["execution_time_ms"] = round((self.clock() - started) * 1e3, 3)
        return answer


def _sure(answer: Answer, snapshot: EngineSnapshot, batch: RouteBatch | None = None, row: int = 0) -> DecisionEvent:
    """The event of an answer that nothing else could have taken the place of."""
    distribution = np.array([ref == _ref(answer) for ref in snapshot.table.refs], dtype=np.float32)
    return DecisionEvent(answer, batch, row, distribution, answer["execution_time_ms"] / 1e3)


def _ref(answer: Answer) -> str:
    return f"{answer['provider']}/{answer['model']}"


def _name_error(request: RouteRequest, snapshot: EngineSnapshot) -> RouterError | None:
    try:
        check_names(request, snapshot)
    except RouterError as error:
        return error
    return None


def _no_candidate(prepared: Prepared, row: int) -> NoEligibleModelError:
    kind = AllUnavailableError if prepared.gated.only_unavailable(row) else NoEligibleModelError
    return kind(prepared.gated.exclusions(row, prepared.requests[row]))


def _collapse_of(request: RouteRequest, snapshot: EngineSnapshot) -> CollapseName:
    return request.quantum_config.collapse_strategy or snapshot.collapse


def _fan_out_key(request: RouteRequest, snapshot: EngineSnapshot) -> _FanOutKey:
    options = request.quantum_config
    first = _collapse_of(request, snapshot) == "first_success"
    return _FanOutKey(options.timeout_ms, options.max_threads, first)


def _asked(requests: Sequence[RouteRequest], snapshot: EngineSnapshot) -> dict[str, BoolArray] | None:
    """(B,) for each strategy: whether a request wants its opinion; None: all requests want them all."""
    named = [request.quantum_config.strategies for request in requests]
    if not any(named):
        return None
    return {name: np.array([was_asked(names, name) for names in named], dtype=np.bool_) for name in snapshot.strategies}


def _all_answered(so_far: Sequence[ThreadOutcome], asked: Mapping[str, BoolArray] | None, requests: int) -> bool:
    """Whether every request has an opinion from somebody it asked."""
    answered = np.zeros(requests, dtype=np.bool_)
    for outcome in so_far:
        if outcome.scores is not None:
            opinions = ~outcome.scores.abstains
            answered |= opinions if asked is None else opinions & asked[outcome.strategy]
    return bool(answered.all())


def _by_collapse(
    requests: Sequence[RouteRequest], ballots: Ballots, snapshot: EngineSnapshot
) -> dict[CollapseName, list[int]]:
    rows: dict[CollapseName, list[int]] = {}
    voters: list[int] = ballots.voters.tolist()
    for row, (request, votes) in enumerate(zip(requests, voters, strict=True)):
        if votes:
            rows.setdefault(_collapse_of(request, snapshot), []).append(row)
    return rows
