"""Learning from outcomes as they come (T2.3.3): every web process follows the same stream, and so learns the same.

A follower reads the stream from its own place, joins each outcome with its decision, and hands it on to the profiles,
the breakers and the monitor of strategies. What they then think goes into the snapshot that the next batch rests on.
Nothing of it is on the request path, and nothing is lost with the process: the stream is still there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import RouterError, StoreFormatError
from monkey_coder.models import OverrideRequest, TaskType
from monkey_coder.ports import Clock, OutcomeEvent, OutcomeListener
from monkey_coder.quantum.capability_profiler import Observation, Profiles
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.live_learning import LiveLearner
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord
from monkey_coder.quantum.outlook import Outlook
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.provider_manager import Override, ProviderManager
from monkey_coder.quantum.recent_decisions import DecisionFacts, RecentDecisions
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.storage.port import START, OutcomeRow, Store

OVERRIDES: Final = "provider_override"
"""Kind of the documents in which operators' overrides are kept, as they were sent, one per provider."""

_BULK: Final = 1_000
_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FollowerOptions:
    """How a follower follows.

    Attributes:
        poll_s: Pause between looks at the stream, unless woken.
        least_pause_s: Pause that even a wake-up keeps.
        overrides_s: Pause between looks at what operators set.
        reliability_s: Pause between new reliabilities of strategies.
        max_age_s: Outcomes that came longer ago than this are passed over.
        max_waiting: Outcomes that may wait for their decisions.
        remembered: Latest outcomes by which repeated and replaced ones are recognised.
        breath_s: Pause after each outcome beside a running server: learning holds the interpreter, and requests that
            want it back must not wait for a thousand outcomes.
    """

    poll_s: float = 0.25
    least_pause_s: float = 0.05
    overrides_s: float = 0.5
    reliability_s: float = 1.0
    max_age_s: float = 7 * 86_400.0
    max_waiting: int = 50_000
    remembered: int = 100_000
    breath_s: float = 1e-4


@dataclass(slots=True)
class _Waiting:
    """An outcome whose decision cannot be read yet."""

    row: OutcomeRow
    record: OutcomeRecord
    tries: int
    due: float


@dataclass
class Learners:
    """Those who learn from outcomes.

    Attributes:
        profiles: What each model can do.
        providers: What can be had.
        monitor: How each strategy is doing.
        live: What decisions rest on, request by request; None: they rest on the profiles alone.
    """

    profiles: Profiles
    providers: ProviderManager
    monitor: PerformanceMonitor
    live: LiveLearner | None = None


class OutcomeFollower:
    """Follows the outcomes of one store. `step` belongs to one thread at a time.

    Args:
        store: Where outcomes, decisions and overrides are.
        base: The models with the priors of the catalog.
        learners: Whom to tell.
        live: The snapshot to keep up to date.
        issued_at: When a decision was made, by its id.
        wall_clock: Seconds since 1970.
        clock: For pauses.
        options: How to follow.
        watches: Further looks at the store, as frequent as those at what operators set, in the thread of `step`.

    Attributes:
        recent: The latest decisions of this process; a listener.
        listeners: Get one event per outcome; corrections are no further ones.
        on_pace: Is told target, cost weight and balance whenever the pace of spending is set.
    """

    def __init__(
        self,
        store: Store,
        base: ModelTable,
        learners: Learners,
        live: LiveSnapshot,
        issued_at: Callable[[str], float | None],
        wall_clock: Callable[[], float],
        clock: Clock,
        options: FollowerOptions | None = None,
        watches: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.options = options or FollowerOptions()
        self._store, self._base, self._learners, self._live = store, base, learners, live
        self._issued_at, self._now, self._clock = issued_at, wall_clock, clock
        self._watches = tuple(watches)
        self.recent = RecentDecisions()
        self.listeners: Sequence[OutcomeListener] = ()
        self.on_pace: Callable[[float, float, float], None] = lambda *_: None
        self._joined: list[OutcomeEvent] = []
        self._position = START
        self._latest: OrderedDict[str, float] = OrderedDict()
        self._waiting: deque[_Waiting] = deque()
        self._dirty = False
        self._overrides_at = self._reliability_at = clock()
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Outcomes whose decisions are not readable yet."""
        return len(self._waiting)

    def step(self, breath_s: float = 0.0) -> int:
        """Take in what has come, and publish what it changes; returns how many outcomes were read.

        Args:
            breath_s: Pause after each outcome.

        Raises:
            StoreUnavailableError: The store does not answer; try again later.
        """
        now = self._clock()
        if now >= self._overrides_at:
            self._learners.providers.override(read_overrides(self._store))
            for look in self._watches:
                look()
            self._overrides_at = now + self.options.overrides_s
        self._retry(now)
        rows = self._store.read_outcomes(self._position, _BULK)
        for streamed in rows:
            self._take(streamed.row, now)
            self._position = streamed.position
            if breath_s:
                time.sleep(breath_s)
        self._tell()
        self.publish()
        return len(rows)

    def catch_up(self, at_most_s: float) -> None:
        """Take in what there is, for so many seconds at most; a store that does not answer is left for later."""
        until = self._clock() + at_most_s
        try:
            while self.step() and self._clock() < until:
                pass
        except RouterError as error:
            _log.warning("past outcomes cannot be read just now: %s", error)

    def publish(self) -> None:
        """Put what is known now into the snapshot, if that changes anything."""
        live = self._live()
        available = self._base.available & self._learners.providers.available(self._base.refs)
        if self._dirty:
            self._dirty = False
            table = replace(self._learners.profiles.table(self._base), available=available)
            changes: dict[str, Any] = {"table": table, "reliability": self._reliability(live)}
            if self._learners.live is not None:
                learned = self._learners.live.learned(self._base)
                if learned.pace is not None:
                    self.on_pace(learned.pace.target_usd, learned.pace.cost_weight, learned.pace.balance_usd)
                changes |= {"estimate": learned.estimate, "pace": learned.pace, "experience": learned.experience}
            self._live.update(lambda now: replace(now, **changes))
        elif (available != live.table.available).any():
            self.publish_availability()

    def rebase(self, base: ModelTable, change: Callable[[EngineSnapshot], EngineSnapshot]) -> None:
        """Go on with other models, keeping what was learned; in the thread of `step`.

        Args:
            base: The models with the priors of the catalog.
            change: What else shall change in the snapshot, in the same moment.
        """
        self._learners.providers.watch(base.refs)

        def swap(now: EngineSnapshot) -> EngineSnapshot:
            available = base.available & self._learners.providers.available(base.refs)
            fresh = change(replace(now, table=replace(self._learners.profiles.table(base), available=available)))
            self._base = base  # under the snapshot's lock, for `publish_availability` may come from another thread
            return fresh

        self._live.update(swap)

    def publish_availability(self) -> None:
        """Put into the snapshot what can be had now. May be called from any thread."""
        self._live.update(lambda now: replace(now, table=self._available(now)))

    def wake(self, settings: bool = False) -> None:
        """Look at the stream soon: something has come. For the event loop that `run` is in.

        Args:
            settings: Look at what operators set as well.
        """
        if settings:
            self._overrides_at = self._clock()
        self._wake.set()

    async def run(self, executor: Executor) -> None:
        """Follow until cancelled.

        Args:
            executor: One thread, in which the steps run.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            self._wake.clear()
            try:
                read = await loop.run_in_executor(executor, self.step, self.options.breath_s)
                failures = 0
            except RouterError as error:
                read, failures = 0, failures + 1
                if failures == 1:
                    _log.warning("outcomes cannot be read just now: %s", error)
            except Exception:  # noqa: BLE001 - learning that fails must not take the server with it
                read, failures = 0, failures + 1
                _log.exception("learning from outcomes failed")
            if failures:
                await asyncio.sleep(min(5.0, self.options.poll_s * 2.0 ** min(failures, 10)))
            elif read < _BULK:
                await asyncio.sleep(self.options.least_pause_s)
                await self._woken(self.options.poll_s - self.options.least_pause_s)

    async def _woken(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _take(self, row: OutcomeRow, now: float) -> None:
        try:
            record = OutcomeRecord.decode(row.payload)
        except StoreFormatError as error:
            _log.warning("an outcome is passed over: %s", error)
            return
        if record.received_at < self._now() - self.options.max_age_s:
            return
        if not self._join(row, record):
            if len(self._waiting) >= self.options.max_waiting:
                self._waiting.popleft()
            self._waiting.append(_Waiting(row, record, 0, now + _RETRY_S[0]))

    def _retry(self, now: float) -> None:
        """Look again for the decisions of those that are due; oldest first, so that corrections stay behind."""
        for _ in range(len(self._waiting)):
            waiting = self._waiting[0]
            due = waiting.due <= now
            joined = due and self._join(waiting.row, waiting.record)
            self._waiting.popleft()  # only now: while the store is away it must go on waiting
            if due and not joined:
                waiting.tries += 1
                waiting.due = now + _RETRY_S[min(waiting.tries, len(_RETRY_S) - 1)]
            if not joined and waiting.tries < len(_RETRY_S):
                self._waiting.append(waiting)

    def _join(self, row: OutcomeRow, record: OutcomeRecord) -> bool:
        """Learn from an outcome; False while its decision cannot be read."""
        try:
            decision = self.recent.get(row.decision_id) or self._logged(row.decision_id)
        except StoreFormatError as error:
            _log.warning("an outcome is passed over: %s", error)
            return True
        if decision is None:
            return False
        model = decision.served if row.model == DECIDED_MODEL else row.model
        # The reporter belongs to it: a key corrects its own reports, and cannot make another's be unlearned.
        identity = row.identity if row.outcome_id is not None else f"{record.reporter} {row.decision_id} {model}"
        known = self._latest.get(identity)
        if known is not None and row.occurred_at < known:
            return True
        outlook = self._outlook(decision)  # may find the store away: before anything takes note of the outcome
        self._latest[identity] = row.occurred_at
        if len(self._latest) > self.options.remembered:
            self._latest.popitem(last=False)
        self._learn(identity, model, record, decision.task, outlook, further=known is not None)
        if known is None:  # breakers and windows look at the first word on each call
            decided_at = self._issued_at(row.decision_id) or record.received_at
            self._learners.providers.on_outcome(model, record.error_type, decided_at, record.received_at)
            if record.score is not None:
                self._learners.monitor.on_outcome(decision.opinions, model, record.score)
            self._joined.append(OutcomeEvent(row.identity, model, record.score, record.cost_usd, decision.origin))
        self._dirty = True
        return True

    def _tell(self) -> None:
        joined, self._joined = self._joined, []
        for listener in self.listeners if joined else ():
            listener.on_outcomes(joined)

    def _logged(self, decision_id: str) -> DecisionFacts | None:
        payload = self._store.decision(decision_id)
        if payload is None:
            return None
        record = decode(payload)
        return DecisionFacts.of(record.task, record.answer, record.same_as, Outlook.of_record(record))

    def _outlook(self, decision: DecisionFacts) -> Outlook | None:
        """What was foreseen; for a decision that repeats another one, what was foreseen then, if that can be read."""
        if decision.outlook is not None or self._learners.live is None:
            return decision.outlook
        try:
            repeated = self.recent.get(decision.origin) or self._logged(decision.origin)
        except StoreFormatError as error:
            _log.warning("a repeated decision is passed over: %s", error)
            return None
        return None if repeated is None else repeated.outlook

    def _learn(
        self,
        identity: str,
        model: str,
        record: OutcomeRecord,
        task: TaskType,
        outlook: Outlook | None,
        *,
        further: bool,
    ) -> None:
        answered = record.error_type is None
        self._learners.profiles.learn(
            identity,
            Observation(
                model,
                task,
                success=record.score,
                latency_s=record.latency_ms / 1e3 if answered and record.latency_ms is not None else None,
                output_tokens=record.output_tokens if answered else None,
                reporter=record.reporter,
            ),
        )
        live = self._learners.live
        if live is not None and outlook is not None:
            live.learn(identity, model, record, task, outlook, self._base, further=further)

    def _available(self, snapshot: EngineSnapshot) -> ModelTable:
        available = self._base.available & self._learners.providers.available(self._base.refs)
        return replace(snapshot.table, available=available)

    def _reliability(self, snapshot: EngineSnapshot) -> Mapping[str, float]:
        now = self._clock()
        if now < self._reliability_at:
            return snapshot.reliability
        self._reliability_at = now + self.options.reliability_s
        # Twice, because 1 is what a strategy without outcomes counts for, and its reliability is one half.
        return {name: 2.0 * told.reliability for name, told in self._learners.monitor.performance().items()}


def read_overrides(store: Store) -> dict[str, Override]:
    """What operators set, by provider.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found: dict[str, Override] = {}
    for name, document in store.documents(OVERRIDES).items():
        try:
            found[name] = OverrideRequest.model_validate_json(document.value).state
        except ValidationError as error:  # of another release: automatic, and no reason to stop learning
            _log.warning("the override of %s cannot be read: %s", name, error)
    return found
