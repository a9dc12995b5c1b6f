"""Learning from outcomes as they come (T2.3.3): every web process follows the same stream, and so learns the same.

A follower reads the stream from its own place, joins each outcome with its decision, and hands it on to the profiles,
the breakers and the monitor of strategies. What they then think goes into the snapshot that the next batch rests on.
Nothing of it is on the request path, and nothing is lost with the process: the stream is still there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import RouterError, StoreFormatError
from monkey_coder.ports import Clock, OutcomeListener
from monkey_coder.quantum.learners import Learners
from monkey_coder.quantum.outcome_joining import Arrived, Joined, OutcomeJoiner
from monkey_coder.quantum.outcome_record import OutcomeRecord
from monkey_coder.quantum.provider_overrides import read_overrides
from monkey_coder.quantum.recent_decisions import RecentDecisions
from monkey_coder.quantum.sifting import Sieve
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.storage.port import START, Store, StreamedOutcome

_BULK: Final = 2_000
"""Outcomes read at once; whoever reads so many is behind."""
_BREATH_S: Final = 1e-4  # long enough for whoever waits for the interpreter to get it
_LOT: Final = 32
"""Outcomes learned from together: enough that the work on arrays is shared, few enough to be over in about a
millisecond."""
_MANY: Final = 32
"""A step that takes in so many need not be followed by another one soon: all of it is seen within the pause between
looks, and publishing costs as much as learning from a hundred."""
_TRIES: Final = 4
"""An error that learning from a lot raises so often in turn, with growing pauses, comes from an outcome in it."""
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
        rest: Pause after a few outcomes beside a running server, in times of what they took: learning that has the
            interpreter to itself for a while is what the slowest requests feel.
        publish_s: While it is behind, pause between two snapshots with what was learned.
    """

    poll_s: float = 0.25
    least_pause_s: float = 0.05
    overrides_s: float = 0.5
    reliability_s: float = 1.0
    max_age_s: float = 7 * 86_400.0
    max_waiting: int = 50_000
    remembered: int = 100_000
    rest: float = 2.0
    publish_s: float = 0.25


class OutcomeFollower:
    """Follows the outcomes of one store. `step` and `follow` belong to one thread at a time, and `look` to one as well.

    Args:
        store: Where outcomes, decisions and overrides are.
        base: The models with the priors of the catalog.
        learners: Whom to tell.
        live: The snapshot to keep up to date.
        issued_at: When a decision was made, by its id.
        wall_clock: Seconds since 1970.
        clock: For pauses.
        options: How to follow.
        watches: Further looks at the store, as frequent as those at what operators set, in the thread of `look`.

    Attributes:
        watches: As given.
        listeners: Get one event per outcome; corrections are no further ones.
        on_pace: Is told target, cost weight and balance whenever the pace of spending is set.
        on_put_aside: Is told the keys (`OutcomeRow.key`) of outcomes that nothing can be learned from.
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
        self.watches = tuple(watches)
        self._joiner = OutcomeJoiner(store, self.options.remembered, outlooks=learners.live is not None)
        self.listeners: Sequence[OutcomeListener] = ()
        self.on_pace: Callable[[float, float, float], None] = lambda *_: None
        self.on_put_aside: Callable[[Sequence[Hashable]], None] = lambda _: None
        self._position = START
        self._fresh = Sieve[StreamedOutcome](_TRIES, RouterError)
        self._late = Sieve[Arrived](_TRIES, RouterError)
        self._waiting: deque[Arrived] = deque()
        self._retry_at = math.inf
        self._dirty = False
        self._knowing = threading.Lock()  # guards what is learned, and the models it is learned of
        self._looks_at = self._reliability_at = clock()
        self._publish_at = -math.inf
        self._came, self._set = asyncio.Event(), asyncio.Event()

    @property
    def recent(self) -> RecentDecisions:
        """The latest decisions of this process; a listener."""
        return self._joiner.recent

    @property
    def waiting(self) -> int:
        """Outcomes whose decisions are not readable yet."""
        return len(self._waiting)

    def step(self) -> int:
        """Take in what has come, look at what operators set, and publish it; returns how many outcomes were read.

        Raises:
            StoreUnavailableError: The store does not answer; try again later.
        """
        read = self.follow()
        self.look()
        self.publish()
        return read

    def follow(self, rest: float = 0.0) -> int:
        """Learn from some of what has come; returns how many outcomes were read.

        Args:
            rest: Pause after a few outcomes, in times of what they took; while it is behind, it is but a breath.

        Raises:
            StoreUnavailableError: The store does not answer; try again later.
        """
        now = self._clock()
        if now >= self._retry_at:
            self._retry(now, rest > 0.0)
        rows = self._store.read_outcomes(self._position, _BULK)
        for start in range(0, len(rows), _LOT):
            lot, began = rows[start : start + _LOT], time.thread_time()
            self._put_aside(self._fresh.work(lot, lambda part: self._take_in(now, part)))
            self._position = lot[-1].position
            if rest:
                time.sleep(_BREATH_S if len(rows) == _BULK else rest * (time.thread_time() - began))
        return len(rows)

    def look(self) -> bool:
        """Look at what operators set, and at what else is to be watched, if it is time; returns whether it was.

        Raises:
            StoreUnavailableError: The store does not answer, to one of the looks at least.
        """
        now = self._clock()
        if now < self._looks_at:
            return False
        self._looks_at = now + self.options.overrides_s
        failed: RouterError | None = None
        for look in (lambda: self._learners.providers.override(read_overrides(self._store)), *self.watches):
            try:
                look()
            except RouterError as error:
                failed = error
        self._publish_if_changed()
        if failed is not None:
            raise failed
        return True

    def catch_up(self, at_most_s: float) -> None:
        """Take in what there is, for so many seconds at most; a store that does not answer is left for later."""
        until = self._clock() + at_most_s
        try:
            self.look()
            while self.follow() and self._clock() < until:
                pass
        except RouterError as error:
            _log.warning("past outcomes cannot be read just now: %s", error)
        self.publish()

    def publish(self) -> None:
        """Put what is known now into the snapshot, if that changes anything."""
        with self._knowing:
            if self._dirty:
                self._dirty = False
                table = self._learners.providers.table(self._learners.profiles.table(self._base))
                changes: dict[str, Any] = {"table": table, "reliability": self._reliability(self._live())}
                if self._learners.live is not None:
                    learned = self._learners.live.learned(self._base)
                    if learned.pace is not None:
                        self.on_pace(learned.pace.target_usd, learned.pace.cost_weight, learned.pace.balance_usd)
                    changes |= {"estimate": learned.estimate, "pace": learned.pace, "experience": learned.experience}
                self._live.update(lambda now: replace(now, **changes))
                return
        self._publish_if_changed()

    def rebase(self, base: ModelTable, change: Callable[[EngineSnapshot], EngineSnapshot]) -> None:
        """Go on with other models, keeping what was learned. May be called from any thread.

        Args:
            base: The models with the priors of the catalog.
            change: What else shall change in the snapshot, in the same moment.
        """
        self._learners.providers.watch(base.refs)

        def swap(now: EngineSnapshot) -> EngineSnapshot:
            fresh = change(replace(now, table=self._learners.providers.table(self._learners.profiles.table(base))))
            self._base = base  # under the snapshot's lock, for `publish_availability` may come from another thread
            return fresh

        with self._knowing:
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
            self._looks_at = self._clock()
            self._set.set()
        self._came.set()

    async def run(self, learning: Executor, looking: Executor) -> None:
        """Follow until cancelled.

        Args:
            learning: One thread, in which outcomes are learned from.
            looking: Another one, in which watches look: a slow one must not keep anybody from learning.
        """
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(self._keep_learning(learning), name="learning")
            jobs.create_task(self._keep_looking(looking), name="looking")

    async def _keep_learning(self, executor: Executor) -> None:
        failures = 0
        while True:
            self._came.clear()
            read = await self._try(executor, self._advance, "outcomes cannot be read just now", failures)
            failures = failures + 1 if read is None else 0
            if read is None:
                await asyncio.sleep(min(5.0, self.options.poll_s * 2.0 ** min(failures, 10)))
            elif read < _BULK:
                pause_s = self.options.least_pause_s if read < _MANY else self.options.poll_s
                await asyncio.sleep(pause_s)
                await _woken(self._came, self.options.poll_s - pause_s)

    async def _keep_looking(self, executor: Executor) -> None:
        failures = 0
        while True:
            self._set.clear()
            looked = await self._try(executor, self.look, "what operators set cannot be read just now", failures)
            failures = failures + 1 if looked is None else 0
            await _woken(self._set, max(0.0, self._looks_at - self._clock()) + 0.001)

    async def _try(self, executor: Executor, work: Callable[[], int], failed: str, failures: int) -> int | None:
        """Do work aside; None where it failed, which is told the first time."""
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        except RouterError as error:
            if not failures:
                _log.warning("%s: %s", failed, error)
        except Exception:  # noqa: BLE001 - learning that fails must not take the server with it
            _log.exception("learning from outcomes failed")
        return None

    def _advance(self) -> int:
        """Learn from some of what has come, and publish it unless there is more and it was done just before."""
        read = self.follow(self.options.rest)
        now = self._clock()
        if read < _BULK or now >= self._publish_at:
            self._publish_at = now + self.options.publish_s
            self.publish()
        return read

    def _take_in(self, now: float, rows: Sequence[StreamedOutcome]) -> None:
        """Learn from outcomes that have come, as far as their decisions can be read."""
        arrived = self._arrived(rows)
        found = self._join(arrived)
        self._wait_for([one for one in arrived if one.row.decision_id not in found], now)

    def _put_aside(self, failed: Sequence[tuple[StreamedOutcome | Arrived, Exception]]) -> set[str]:
        """Go on without outcomes that cannot be learned from, and name them; returns the ids of their decisions."""
        for one, error in failed:
            told = "the outcome %r of decision %s is put aside, for learning from it fails; it stays in the store"
            _log.error(told, one.row.identity, one.row.decision_id, exc_info=error)
        self.on_put_aside([one.row.key for one, _ in failed])
        return {one.row.decision_id for one, _ in failed}

    def _arrived(self, rows: Iterable[StreamedOutcome]) -> list[Arrived]:
        """What can be read of outcomes, and is not too old."""
        oldest, arrived = self._now() - self.options.max_age_s, []
        for streamed in rows:
            try:
                record = OutcomeRecord.decode(streamed.row.payload)
            except StoreFormatError as error:
                _log.warning("an outcome is passed over: %s", error)
                continue
            if record.received_at >= oldest:
                arrived.append(Arrived(streamed.row, record))
        return arrived

    def _wait_for(self, arrived: Sequence[Arrived], now: float) -> None:
        """Keep outcomes whose decisions cannot be read yet; those that waited longest make room."""
        for one in arrived:
            one.due = now + _RETRY_S[0]
            self._retry_at = min(self._retry_at, one.due)
            self._waiting.append(one)
        while len(self._waiting) > self.options.max_waiting:
            self._waiting.popleft()

    def _retry(self, now: float, breathe: bool) -> None:
        """Look again for the decisions of those that are due; oldest first, so that corrections stay behind."""
        due = [one for one in self._waiting if one.due <= now]
        joined: set[str] = set()
        for start in range(0, len(due), _LOT):  # while the store is away all of them must go on waiting
            aside = self._late.work(due[start : start + _LOT], lambda part: joined.update(self._join(part)))
            joined.update(self._put_aside(aside))
            if breathe:
                time.sleep(_BREATH_S)
        for one in due:
            one.tries += 1
            one.due = now + _RETRY_S[min(one.tries, len(_RETRY_S) - 1)]
        self._waiting = deque(
            one for one in self._waiting if one.row.decision_id not in joined and one.tries < len(_RETRY_S)
        )
        self._retry_at = min((one.due for one in self._waiting), default=math.inf)

    def _join(self, arrived: Sequence[Arrived]) -> Collection[str]:
        """Learn from outcomes whose decisions can be read; returns the ids of these."""
        found = self._joiner.look_up(one.row.decision_id for one in arrived)
        joined = self._joiner.join(arrived, found)
        try:
            self._learn(joined)
        except BaseException:
            self._joiner.forget(joined)
            raise
        return found

    def _learn(self, joined: Sequence[Joined]) -> None:
        """Hand outcomes on to all who learn, and tell the listeners of those that are no corrections."""
        with self._knowing:
            self._learners.learn(joined, self._base, self._issued_at)
            self._dirty |= bool(joined)
        events = [one.event for one in joined if not one.outcome.further]
        for listener in self.listeners if events else ():
            listener.on_outcomes(events)

    def _publish_if_changed(self) -> None:
        """Put into the snapshot what can be had now, if that is something else."""
        served = self._live()
        if not np.array_equal(self._available(served).available, served.table.available):
            self.publish_availability()

    def _available(self, snapshot: EngineSnapshot) -> ModelTable:
        return replace(snapshot.table, available=self._learners.providers.table(self._base).available)

    def _reliability(self, snapshot: EngineSnapshot) -> Mapping[str, float]:
        now = self._clock()
        if now < self._reliability_at:
            return snapshot.reliability
        self._reliability_at = now + self.options.reliability_s
        # Twice, because 1 is what a strategy without outcomes counts for, and its reliability is one half.
        return {name: 2.0 * told.reliability for name, told in self._learners.monitor.performance().items()}


async def _woken(event: asyncio.Event, at_most_s: float) -> None:
    """Wait for an event, but not longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
