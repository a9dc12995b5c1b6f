"""Running strategies side by side under one deadline (T2.2.3, R2.2).

A `QuantumThread` is one strategy's work on one batch. Its status follows `LEGAL` and nothing else:

    PENDING -> RUNNING -> SUCCESS | FAILED
    PENDING | RUNNING -> TIMEOUT | CANCELLED

Python cannot stop a running thread. A strategy that overran its deadline therefore keeps its worker until it
returns; while it does, it is not asked again, so that each strategy holds one stuck worker at the most and never
blocks another. After repeated timeouts it is benched, and probed with one batch once the bench time is over.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from monkey_coder.models import ThreadStatus
from monkey_coder.ports import Clock, RouteBatch, Scores, Strategy
from monkey_coder.quantum.daemon_pool import DaemonPool

LEGAL: Final[Mapping[ThreadStatus, frozenset[ThreadStatus]]] = {
    "PENDING": frozenset({"RUNNING", "TIMEOUT", "CANCELLED"}),
    "RUNNING": frozenset({"SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"}),
    "SUCCESS": frozenset(),
    "FAILED": frozenset(),
    "TIMEOUT": frozenset(),
    "CANCELLED": frozenset(),
}
"""Where a thread may go from each status; the last four are final."""


class ThreadOutcome(NamedTuple):
    """What one strategy did before the deadline.

    Attributes:
        strategy: Its name.
        status: Final status.
        scores: Its opinion; only with SUCCESS.
        seconds: Time it ran; until the deadline when it did not finish; None when it never started.
        arrival: Rank of arrival among the successful, 0 first; only with SUCCESS.
        error: Type and message of what it raised; only with FAILED.
    """

    strategy: str
    status: ThreadStatus
    scores: Scores | None = None
    seconds: float | None = None
    arrival: int | None = None
    error: str | None = None


class QuantumThread:
    """One strategy's work on one batch. All methods are safe to call from any thread."""

    __slots__ = ("_clock", "_ended", "_error", "_lock", "_returned", "_scores", "_started", "_status", "strategy")

    def __init__(self, strategy: Strategy, clock: Clock) -> None:
        self.strategy = strategy
        self._clock = clock
        self._lock = threading.Lock()
        self._status: ThreadStatus = "PENDING"
        self._started: float | None = None
        self._ended: float | None = None
        self._scores: Scores | None = None
        self._error: str | None = None
        self._returned = False

    @property
    def started(self) -> bool:
        """Whether it got a worker."""
        return self._started is not None

    @property
    def returned(self) -> bool:
        """Whether the strategy has let go of its worker, in time or late."""
        return self._returned

    @property
    def status(self) -> ThreadStatus:
        """Where it stands."""
        return self._status

    def move(self, to: ThreadStatus) -> bool:
        """Go to another status; returns False, and changes nothing, where that is not legal."""
        with self._lock:
            if to not in LEGAL[self._status]:
                return False
            self._status = to
            if to == "RUNNING":
                self._started = self._clock()
            else:
                self._ended = self._clock()
            return True

    def run(self, batch: RouteBatch) -> None:
        """Score the batch, unless the thread was cancelled before its turn came; never raises.

        An opinion that cannot be counted is a failure like any other.
        """
        if not self.move("RUNNING"):
            return
        try:
            self._scores, self._error = _ask(self.strategy, batch)
            self.move("SUCCESS" if self._error is None else "FAILED")
        finally:
            self._returned = True

    def outcome(self, arrival: int | None = None) -> ThreadOutcome:
        """Report a thread that has come to a final status."""
        with self._lock:
            seconds = None if self._started is None or self._ended is None else self._ended - self._started
            return ThreadOutcome(
                self.strategy.name,
                self._status,
                self._scores if self._status == "SUCCESS" else None,
                seconds,
                arrival if self._status == "SUCCESS" else None,
                self._error if self._status == "FAILED" else None,
            )


def _ask(strategy: Strategy, batch: RouteBatch) -> tuple[Scores | None, str | None]:
    """A strategy's opinion, or type and message of what kept it from having one that can be counted."""
    try:
        scores = strategy.score(batch)
        require_countable(scores, batch)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plug-in may raise anything, and must not take the others along
        return None, f"{type(error).__name__}: {error}"
    return scores, None


def require_countable(scores: Scores, batch: RouteBatch) -> None:
    """Make sure that an opinion can be counted; what it holds for abstentions and non-candidates does not matter.

    Raises:
        ValueError: An array of another shape, or an entry that is no finite number.
    """
    shape = batch.candidates.shape
    for name, values in (("utility", scores.utility), ("success", scores.success), ("evidence", scores.evidence)):
        if values is None:
            continue
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
        if math.isfinite(np.vdot(values, values)):  # one odd entry leaves no finite sum of squares
            continue
        odd = ~np.isfinite(values)
        if (odd & batch.candidates & ~scores.abstains[:, None]).any():
            raise ValueError(f"{name} holds entries that are no finite numbers")
    for name, each in (("confidence", scores.confidence), ("abstains", scores.abstains)):
        if each.shape != shape[:1]:
            raise ValueError(f"{name} has shape {each.shape}, expected {shape[:1]}")
    sure = scores.confidence
    if not math.isfinite(np.vdot(sure, sure)) and not np.isfinite(sure[~scores.abstains]).all():
        raise ValueError("confidence holds entries that are no finite numbers")


def is_instant(strategy: Strategy) -> bool:
    """Whether a strategy says of itself, by an attribute `instant`, that it is a few steps of arithmetic and no more.

    Such a one runs in the calling thread, which would else only wait: handing it over costs more than it does.
    """
    return bool(getattr(strategy, "instant", False))


def _told_at_once(strategy: Strategy, batch: RouteBatch, clock: Clock, arrival: int | None = None) -> ThreadOutcome:
    """What a strategy did that ran here and now; `arrival` is its rank if it has an opinion."""
    started = clock()
    scores, error = _ask(strategy, batch)
    seconds = clock() - started
    if scores is None:
        return ThreadOutcome(strategy.name, "FAILED", None, seconds, None, error)
    return ThreadOutcome(strategy.name, "SUCCESS", scores, seconds, arrival)


def _in_turn(
    strategies: Sequence[Strategy],
    batch: RouteBatch,
    clock: Clock,
    enough: Callable[[Sequence[ThreadOutcome]], bool] | None,
) -> list[ThreadOutcome]:
    """One outcome for each of some instant strategies, asked one after the other until enough have answered."""
    outcomes: list[ThreadOutcome] = []
    arrived: list[ThreadOutcome] = []
    satisfied = False
    for strategy in strategies:
        if satisfied:
            outcomes.append(ThreadOutcome(strategy.name, "CANCELLED"))
            continue
        told = _told_at_once(strategy, batch, clock, len(arrived))
        outcomes.append(told)
        if told.scores is not None:
            arrived.append(told)
            satisfied = enough is not None and enough(arrived)
    return outcomes


class _FanOut:
    """The work of one batch, by place among its strategies, and the moment when there is nothing left to wait for."""

    def __init__(
        self,
        threads: Mapping[int, QuantumThread],
        batch: RouteBatch,
        enough: Callable[[Sequence[ThreadOutcome]], bool] | None,
    ) -> None:
        self._batch = batch
        self._enough = enough
        self._waiting = deque(threads.items())
        self._left = len(threads)
        self._lock = threading.Lock()
        self._over = threading.Lock()  # held until there is nothing left to wait for; much lighter than a condition
        self._over.acquire()
        self.arrived: dict[int, ThreadOutcome] = {}
        self.satisfied = False

    def run_lane(self) -> None:
        """Run threads one after the other until none is left or needed; called in the pool, once for each lane."""
        while not self.satisfied:
            try:
                place, thread = self._waiting.popleft()
            except IndexError:  # asking for its length first would race with the other lanes
                return
            thread.run(self._batch)
            with self._lock:
                self._left -= 1
                if thread.status == "SUCCESS":
                    self._note(place, thread.outcome(len(self.arrived)))
                if (self._left == 0 or self.satisfied) and self._over.locked():
                    self._over.release()

    def run_instant(self, strategies: Mapping[int, Strategy], clock: Clock) -> dict[int, ThreadOutcome]:
        """Ask instant strategies until enough have answered; called in the thread that waits for the others."""
        outcomes = {}
        for place, strategy in strategies.items():
            if self.satisfied:
                outcomes[place] = ThreadOutcome(strategy.name, "CANCELLED")
                continue
            told = _told_at_once(strategy, self._batch, clock)
            if told.scores is not None:
                with self._lock:
                    told = told._replace(arrival=len(self.arrived))
                    self._note(place, told)
            outcomes[place] = told
        return outcomes

    def _note(self, place: int, outcome: ThreadOutcome) -> None:
        self.arrived[place] = outcome
        if self._enough is not None and not self.satisfied:
            self.satisfied = self._enough(tuple(self.arrived.values()))

    def wait(self, timeout_s: float) -> None:
        """Wait until all have answered, enough have, or the time is up."""
        if self._left and not self.satisfied:
            self._over.acquire(timeout=timeout_s)


@dataclass(slots=True)
class _Slot:
    """What the manager remembers of one strategy."""

    abandoned: list[QuantumThread] = field(default_factory=list)
    timeouts_in_a_row: int = 0
    benched_until: float | None = None
    bench_s: float = 0.0

    def stuck(self) -> int:
        """How many workers it holds past their deadline."""
        self.abandoned = [thread for thread in self.abandoned if not thread.returned]
        return len(self.abandoned)


@dataclass(frozen=True, slots=True)
class BenchRules:
    """When a strategy that keeps overrunning is left out.

    Attributes:
        after_timeouts: Timeouts in a row that bench it.
        first_s: First bench time; it doubles with every failed probe.
        longest_s: Upper bound of the bench time.
    """

    after_timeouts: int = 3
    first_s: float = 1.0
    longest_s: float = 60.0


@dataclass
class ThreadManager:
    """Fans a batch out to strategies on a bounded pool and collects what came before the deadline.

    Attributes:
        workers: Size of the pool; at least two per strategy keeps a stuck one from starving the others.
        clock: Monotonic seconds.
        rules: When to bench a strategy.
    """

    workers: int
    clock: Clock
    rules: BenchRules = field(default_factory=BenchRules)

    def __post_init__(self) -> None:
        self._pool = DaemonPool(self.workers, "quantum")
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}

    def run(
        self,
        strategies: Sequence[Strategy],
        batch: RouteBatch,
        timeout_s: float,
        max_threads: int | None = None,
        enough: Callable[[Sequence[ThreadOutcome]], bool] | None = None,
    ) -> list[ThreadOutcome]:
        """Ask strategies at once and report what each did; never raises for what a strategy does.

        Args:
            strategies: Whom to ask.
            batch: What to score.
            timeout_s: Deadline of the whole fan-out in seconds.
            max_threads: At most so many run at the same time; None: one per strategy, and none for the instant ones.
            enough: Looks at the successes so far, in order of arrival; once it returns True the others are cancelled.

        Returns:
            One outcome per strategy, in their order.
        """
        if max_threads is None and all(map(is_instant, strategies)):
            # Nothing to hand over and nobody to wait for: neither threads nor what they would share.
            return _in_turn(strategies, batch, self.clock, enough)
        # Under a limit all take turns in the pool, in their order: the calling thread would be one thread more.
        instant = {n: each for n, each in enumerate(strategies) if max_threads is None and is_instant(each)}
        threads = {n: QuantumThread(each, self.clock) for n, each in enumerate(strategies) if n not in instant}
        able = {n: thread for n, thread in threads.items() if self._may_run(thread.strategy.name)}
        fan_out = _FanOut(able, batch, enough)
        for _ in range(min(max_threads or len(able), len(able))):
            self._pool.submit(fan_out.run_lane)
        outcomes = fan_out.run_instant(instant, self.clock)
        if able:
            fan_out.wait(timeout_s)
        satisfied = fan_out.satisfied
        for n, thread in threads.items():
            self._settle(thread, cancelled=n in able and satisfied)
            arrived = fan_out.arrived.get(n)
            outcomes[n] = thread.outcome(None if arrived is None else arrived.arrival)
        return [outcomes[n] for n in range(len(strategies))]

    def stuck(self) -> dict[str, int]:
        """How many workers each strategy holds past its deadline."""
        with self._lock:
            return {name: held for name, slot in self._slots.items() if (held := slot.stuck())}

    def benched(self) -> tuple[str, ...]:
        """Strategies that are left out at the moment."""
        now = self.clock()
        with self._lock:
            return tuple(
                name for name, s in self._slots.items() if s.benched_until is not None and s.benched_until > now
            )

    def close(self) -> None:
        """Let the pool go; a stuck strategy is waited for neither here nor when the process ends."""
        self._pool.close()

    def _may_run(self, name: str) -> bool:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            if slot.stuck():
                return False
            if slot.benched_until is None:
                return True
            now = self.clock()
            if slot.benched_until > now:
                return False
            # One batch is the probe; others keep leaving the strategy out until the probe has come back.
            slot.benched_until = now + slot.bench_s
            return True

    def _settle(self, thread: QuantumThread, *, cancelled: bool) -> None:
        thread.move("CANCELLED" if cancelled else "TIMEOUT")
        with self._lock:
            slot = self._slots.setdefault(thread.strategy.name, _Slot())
            if thread.started and not thread.returned and thread.status != "SUCCESS":
                slot.abandoned.append(thread)
            if thread.status == "SUCCESS":
                slot.timeouts_in_a_row, slot.benched_until, slot.bench_s = 0, None, 0.0
            elif thread.status == "TIMEOUT" and thread.started:
                slot.timeouts_in_a_row += 1
                if slot.timeouts_in_a_row >= self.rules.after_timeouts:
                    slot.bench_s = min(max(self.rules.first_s, 2.0 * slot.bench_s), self.rules.longest_s)
                    slot.benched_until = self.clock() + slot.bench_s
