"""The loop of the active learner: read the stream, train, judge, publish, and watch what serves.

It reads from its own place in the stream, also while it trains. What it takes in is the same however often it is given,
and a trained policy serves by compare-and-set against the one it was judged against: nothing is counted or published
twice.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import orjson

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import OutcomeTableError, PolicyError, StoreUnavailableError, TrainingDivergedError
from monkey_coder.heartbeat import Heartbeat, LeaseLostError
from monkey_coder.ports import Clock
from monkey_coder.publishing import as_policy
from monkey_coder.quantum.decision_record import DecisionRecord, decode
from monkey_coder.quantum.learner_status import VERDICTS_KEPT, Doing, TrainingRun, VerdictTold
from monkey_coder.quantum.log_training import Challenger, LogTrainer
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_judge import Verdict
from monkey_coder.quantum.policy_shelf import Said, StoreShelf
from monkey_coder.quantum.regression_guard import RegressionGuard
from monkey_coder.quantum.training_wishes import WishControl, write_wishes
from monkey_coder.quantum.transition_log import CountedOutcome, Lookup
from monkey_coder.storage.port import START, Store, StreamedOutcome

Result = TypeVar("Result")
Tell = Callable[[str], None]
"""Told what happens, a line each."""

_KIND: Final = "learner"
_STATE: Final = "state"
_LONGEST_PAUSE_S: Final = 3_600.0
_SAID_EVERY_S: Final = 2.0
_log = logging.getLogger(__name__)


def _say_nothing(_: str) -> None:
    """Tell nobody."""


class StoppedError(Exception):
    """The process was asked to end."""


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """How the learner goes about it.

    Attributes:
        look_s: Pause between looks at the stream.
        bulk: Outcomes read at once.
        save_s: Pause between notes of how far it has come.
        judge_s: Pause before a challenger that was not fit to serve is judged again.
        again_s: Pause after a training that failed, doubled each time, up to an hour.
        remembered: Latest outcomes that a policy is watched by.
    """

    look_s: float = 1.0
    bulk: int = 1_000
    save_s: float = 60.0
    judge_s: float = 60.0
    again_s: float = 60.0
    remembered: int = 20_000


@dataclass(frozen=True)
class Workshop:
    """What a learner works with.

    Attributes:
        store: Of the deployment.
        make_trainer: Makes a trainer that knows nothing yet.
        table: The models as they are now.
        tell: Told what happens.
        stop: Set when the process shall end.
        now: Seconds since 1970.
        clock: Monotonic seconds.
        options: How to go about it.
        aside: Where the heavy work is done; None: in the thread of the loop.
        murmur: Told how far something is that takes long.
    """

    store: Store
    make_trainer: Callable[[], LogTrainer]
    table: Callable[[], ModelTable]
    tell: Tell
    stop: threading.Event
    now: Callable[[], float]
    clock: Clock
    options: LearningOptions = field(default_factory=LearningOptions)
    aside: Executor | None = None
    murmur: Tell = _say_nothing

    def heavy(self, work: Callable[[], Result]) -> Result:
        """Do work aside, and wait for it."""
        return work() if self.aside is None else self.aside.submit(work).result()


class Learning:
    """One term of the active learner, from reading again what is known to the end of its lease. One thread.

    Args:
        workshop: With all that is needed.
        heart: Holds the lease.
    """

    def __init__(self, workshop: Workshop, heart: Heartbeat) -> None:
        self._shop, self._heart, self._options = workshop, heart, workshop.options
        self._shelf = StoreShelf(workshop.store, workshop.now)
        self._trainer = workshop.make_trainer()
        self._wishes = WishControl(workshop.store, workshop.clock, self._hold, workshop.tell)
        self._position = START
        self._latest: deque[CountedOutcome] = deque(maxlen=self._options.remembered)
        self._guard: RegressionGuard | None = None
        self._watched: int | None = None
        self._shadow: Challenger | None = None
        self._judge_at = self._save_at = self._train_at = float("-inf")
        self._failures = self._judged = 0

    def run(self, *, once: bool) -> None:
        """Learn until the lease is lost or the process shall end.

        Args:
            once: For one cycle.

        Raises:
            LeaseLostError: Another process may be the active learner by now.
            StoppedError: The process was asked to end.
            StoreUnavailableError: The store does not answer.
        """
        shop = self._shop
        self._position = self._trainer.restore(self._saved()[1])
        shop.tell("reading the outcomes so far")
        while True:
            self._read()
            self._watch()
            if self._wishes.look().paused:
                self._say("paused", "as somebody wished")
            elif self._trainer.ready() and shop.clock() >= self._train_at:
                self._train()
            elif self._shadow is not None and shop.clock() >= self._judge_at and self._outcomes() != self._judged:
                self._judge(self._shadow, again=True)
            else:
                self._say("idle")
            if shop.clock() >= self._save_at:
                self._save()
            if once:
                self._watch()
                self._heart.say_now(doing="idle", counts=dict(self._trainer.status()))
                return
            self._wait(self._options.look_s)

    def _read(self) -> None:
        """Take in all that has come."""
        while True:
            self._require()
            rows = self._shop.store.read_outcomes(self._position, self._options.bulk)
            counted = self._trainer.take(rows, self._decisions(rows))
            self._latest.extend(counted)
            if self._guard is not None:
                self._guard.observe(counted)
            if rows:
                self._position = rows[-1].position
            behind = len(rows) == self._options.bulk
            lag = max(0.0, self._shop.now() - rows[-1].row.occurred_at) if behind else 0.0
            self._heart.say(position=self._position, lag_s=lag, counts=dict(self._trainer.status()))
            if not behind:
                return

    def _decisions(self, rows: Sequence[StreamedOutcome]) -> Lookup:
        """Finds decisions: those of these outcomes were read together, others are read when they are asked for."""
        store = self._shop.store
        asked = list(dict.fromkeys(streamed.row.decision_id for streamed in rows))
        read: dict[str, bytes | None] = dict.fromkeys(asked)
        read |= store.decision_payloads(asked)

        def find(decision_id: str) -> DecisionRecord | None:
            payload = read[decision_id] if decision_id in read else store.decision(decision_id)
            return None if payload is None else decode(payload, whole=False)

        return find

    def _watch(self) -> None:
        """See how the policy that serves does, and take it back if it does worse than the one before it."""
        current = self._shelf.current()
        if current != self._watched:
            self._watched, self._guard = current, None
            self._heart.say(policy=current, guard={})
            if current is not None:
                self._guard = RegressionGuard(current, self._shelf.before())
                self._guard.observe(self._latest)
        if self._guard is None or current is None:
            return
        report = self._guard.report()
        self._heart.say(guard=asdict(report))
        if report.roll_back:
            self._require()
            if self._shelf.undo(current, Said("regression", report.reason)):
                self._shop.tell(f"policy {current} is taken back: {report.reason}")

    def _train(self) -> None:
        shop, began = self._shop, self._shop.clock()
        shop.tell(f"training on {self._trainer.status().get('outcomes')} outcomes")
        note, challenger, pause = "", None, self._options.again_s
        try:
            write_wishes(shop.store, stopped=False)
            self._trainer.table = shop.table()
            progress = self._progress()
            gathered = shop.heavy(self._trainer.gather)
            challenger = self._meanwhile(lambda: self._trainer.train(progress, self._wishes, gathered=gathered))
            note = f"trained on {challenger.card['data']['tasks']:,} tasks"
        except OutcomeTableError as error:
            note = f"too little to learn from: {error}"
        except TrainingDivergedError as error:
            note, pause = f"diverged: {error}", self._longer_pause()
        except (StoppedError, LeaseLostError, StoreUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - it must not end the reading, nor the watch over what serves
            note, pause = f"failed: {error!r}", self._longer_pause()
            _log.exception("training failed")
        run = _run_of(challenger, shop.now(), shop.clock() - began, note)
        self._heart.say(training=run)
        shop.tell(f"{note} in {run.seconds:.0f} s")
        if challenger is None:
            self._train_at = shop.clock() + pause
            return
        self._failures, self._shadow = 0, challenger
        self._judge(challenger)
        self._save()

    def _meanwhile(self, work: Callable[[], Result]) -> Result:
        """Do work aside, and go on reading and watching until it is done."""
        if self._shop.aside is None:
            return work()
        future: Future[Result] = self._shop.aside.submit(work)
        try:
            while not wait([future], self._options.look_s).done:
                try:
                    self._read()
                    self._watch()
                except StoreUnavailableError as error:  # the work may well outlast that
                    _log.warning("outcomes cannot be read while training: %s", error)
        finally:
            wait([future])  # where the reading ends, so does the work: both need the lease
        return future.result()

    def _longer_pause(self) -> float:
        """Seconds before the next training, after one more that failed."""
        self._failures += 1
        return min(self._options.again_s * 2.0 ** min(self._failures - 1, 32), _LONGEST_PAUSE_S)

    def _outcomes(self) -> int:
        return int(self._trainer.status()["outcomes"])

    def _judge(self, challenger: Challenger, *, again: bool = False) -> None:
        """Let a challenger serve if it is not worse than what serves; otherwise it stays in shadow.

        Args:
            challenger: The policy.
            again: Whether its last verdict is to be replaced.
        """
        self._say("judging")
        self._judged = self._outcomes()
        current = self._shelf.current()
        serving = self._bundle(current)
        verdict = self._shop.heavy(lambda: self._trainer.judge(challenger.bundle, serving))
        number = self._publish(challenger, current, verdict) if verdict.publish else None
        told = VerdictTold(
            at=self._shop.now(),
            publish=verdict.publish,
            policy=number,
            against=current,
            reason=verdict.reason,
            figures=verdict.to_json(),
        )
        before = self._heart.status.verdicts[: -1 if again else None]
        self._heart.say_now(verdicts=(*before, told)[-VERDICTS_KEPT:])
        self._shop.tell(f"policy {number} is served: {verdict.reason}" if number else f"in shadow: {verdict.reason}")
        if number is not None:
            self._shadow = None
        self._judge_at = self._shop.clock() + self._options.judge_s

    def _publish(self, challenger: Challenger, current: int | None, verdict: Verdict) -> int | None:
        now = datetime.fromtimestamp(self._shop.now(), UTC)
        policy = as_policy(challenger.trained, now, plots=False, about={"verdict": verdict.to_json()})
        self._require()
        number = self._shelf.put(*policy)
        return number if self._shelf.switch(number, current, Said("learner", verdict.reason)) else None

    def _bundle(self, number: int | None) -> PolicyBundle | None:
        """A policy; None where there is none, or it cannot be used: then any policy that works is better."""
        try:
            return None if number is None else self._shelf.load(number)
        except PolicyError as error:
            self._shop.tell(f"policy {number} cannot be used: {error}")
            return None

    def _saved(self) -> tuple[int, dict[str, Any]]:
        found = self._shop.store.document(_KIND, _STATE)
        if found is None:
            return 0, {}
        try:
            return found.version, dict(orjson.loads(found.value))
        except (ValueError, TypeError) as error:  # only reading more is lost
            _log.warning("how far the learner had come cannot be read: %r", error)
            return found.version, {}

    def _save(self) -> None:
        """Note from where the stream must be read again."""
        self._save_at = self._shop.clock() + self._options.save_s
        version, before = self._saved()
        state = dict(self._trainer.state())
        if state != before:
            self._require()
            self._shop.store.put_document(_KIND, _STATE, orjson.dumps(state), version)

    def _progress(self) -> Callable[[str, int, int, str], None]:
        said_at, said = float("-inf"), ""

        def progress(what: str, done: int, steps: int, note: str) -> None:
            nonlocal said_at, said
            self._require()
            self._wishes.wait()
            text = f"{what}: {done} of {steps} {note}".rstrip()
            self._say("training", text)
            now = self._shop.clock()
            if what != said or now - said_at >= _SAID_EVERY_S:
                said_at, said = now, what
                self._shop.murmur(text)

        return progress

    def _say(self, doing: Doing, note: str = "") -> None:
        self._heart.say(doing=doing, note=note)

    def _require(self) -> None:
        if self._shop.stop.is_set():
            raise StoppedError
        self._heart.require()

    def _hold(self, seconds: float) -> None:
        self._say("paused", "in the middle of a training, as somebody wished")
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._shop.stop.wait(seconds)
        self._require()


def _run_of(challenger: Challenger | None, now: float, seconds: float, note: str) -> TrainingRun:
    if challenger is None:
        return TrainingRun(ended_at=now, seconds=seconds, note=note)
    points, data = challenger.trained.points, challenger.card["data"]
    return TrainingRun(
        ended_at=now,
        seconds=seconds,
        tasks=data["tasks"],
        outcomes=data["outcomes"],
        loss=points[-1].loss if points else None,
        note=note,
    )
