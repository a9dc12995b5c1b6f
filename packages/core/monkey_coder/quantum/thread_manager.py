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
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from monkey_coder.models import ThreadStatus
from monkey_coder.ports import Clock, FloatArray, RouteBatch, Scores, Strategy
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


@dataclass(frozen=True, slots=True)
class ThreadOutcome:
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
            scores = self.strategy.score(batch)
            require_countable(scores, batch)
            self._scores = scores
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and must not take the others along
            self._error = f"{type(error).__name__}: {error}"
            self.move("FAILED")
        else:
            self.move("SUCCESS")
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
        if _finite(values):
            continue
        odd = ~np.isfinite(values)
        if (odd & batch.candidates & ~scores.abstains[:, None]).any():
            raise ValueError(f"{name} holds entries that are no finite numbers")
    for name, each in (("confidence", scores.confidence), ("abstains", scores.abstains)):
        if each.shape != shape[:1]:
            raise ValueError(f"{name} has shape {each.shape}, expected {shape[:1]}")
    if not _finite(scores.confidence) and not np.isfinite(scores.confidence[~scores.abstains]).all():
        raise ValueError("confidence holds entries that are no finite numbers")


def _finite(values: FloatArray) -> bool:
    """Whether all entries surely are finite numbers; the sum of their squares is the quickest to tell."""
    return math.isfinite(np.vdot(values, values))


def is_instant(strategy: Strategy) -> bool:
    """Whether a strategy says of itself, by an attribute `instant`, that it is a few steps of arithmetic and no more.

    Such a one runs in the calling thread, which would else only wait: handing it over costs more than it does.
    """
    return bool(getattr(strategy, "instant", False))


class _FanOut:
    """The threads of one batch, and the moment at which there is nothing left to wait for."""

    def __init__(
        self,
        threads: Iterable[QuantumThread],
        instant: Sequence[QuantumThread],
        batch: RouteBatch,
        enough: Callable[[Sequence[ThreadOutcome]], bool] | None,
    ) -> None:
        self._batch = batch
        self._enough = enough
        self._waiting = deque(threads)
        self._instant = deque(instant)
        self._left = len(self._waiting) + len(self._instant)
        self._changed = threading.Condition()
        self.arrived: list[QuantumThread] = []
        self.satisfied = False

    def run_lane(self) -> None:
        """Run threads one after the other until none is left or needed; called in the pool, once for each lane."""
        self._run(self._waiting)

    def run_instant(self) -> None:
        """Run the instant ones; called in the thread that waits for the others."""
        self._run(self._instant)

    def _run(self, queue: deque[QuantumThread]) -> None:
        while not self.satisfied:
            try:
                thread = queue.popleft()
            except IndexError:  # asking for its length first would race with the other lanes
                return
            thread.run(self._batch)
            with self._changed:
                self._left -= 1
                if thread.status == "SUCCESS":
                    self.arrived.append(thread)
                    if self._enough is not None and not self.satisfied:
                        self.satisfied = self._enough([t.outcome(rank) for rank, t in enumerate(self.arrived)])
                if self._left == 0 or self.satisfied:
                    self._changed.notify()

    def wait(self, timeout_s: float) -> None:
        """Wait until all have answered, enough have, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._left == 0 or self.satisfied, timeout_s)


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
        threads = [QuantumThread(strategy, self.clock) for strategy in strategies]
        # Under a limit all take turns in the pool, in their order: the calling thread would be one thread more.
        instant = [thread for thread in threads if max_threads is None and is_instant(thread.strategy)]
        able = [thread for thread in threads if thread not in instant and self._may_run(thread.strategy.name)]
        fan_out = _FanOut(able, instant, batch, enough)
        for _ in range(min(max_threads or len(able), len(able))):
            self._pool.submit(fan_out.run_lane)
        fan_out.run_instant()
        fan_out.wait(timeout_s)
        self._settle(threads, asked={id(thread) for thread in (*instant, *able)}, satisfied=fan_out.satisfied)
        arrival = {id(thread): rank for rank, thread in enumerate(fan_out.arrived)}
        return [thread.outcome(arrival.get(id(thread))) for thread in threads]

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

    def _settle(self, threads: Sequence[QuantumThread], asked: Container[int], satisfied: bool) -> None:
        """Bring all threads to a final status, and note who overran; `asked` holds the ids of those that could run."""
        with self._lock:
            for thread in threads:
                thread.move("CANCELLED" if satisfied and id(thread) in asked else "TIMEOUT")
                self._note(thread)

    def _note(self, thread: QuantumThread) -> None:
        name, status = thread.strategy.name, thread.status
        if status == "SUCCESS":
            if (slot := self._slots.get(name)) is not None:
                slot.timeouts_in_a_row, slot.benched_until, slot.bench_s = 0, None, 0.0
            return
        slot = self._slots.setdefault(name, _Slot())
        if thread.started and not thread.returned:
            slot.abandoned.append(thread)
        if status == "TIMEOUT" and thread.started:
            slot.timeouts_in_a_row += 1
            if slot.timeouts_in_a_row >= self.rules.after_timeouts:
                slot.bench_s = min(max(self.rules.first_s, 2.0 * slot.bench_s), self.rules.longest_s)
                slot.benched_until = self.clock() + slot.bench_s
