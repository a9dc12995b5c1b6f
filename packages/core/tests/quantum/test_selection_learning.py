"""Following the stream of outcomes: joined with decisions, learned once, shown in the next decisions, in any order."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_process
from builders import CHEAP, DEAR, MIDDLE, chosen, engine, table
from servers import PATIENCE_S

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.models import TASK_TYPES, FeedbackRequest
from monkey_coder.ports import OutcomeEvent
from monkey_coder.quantum.circuit_breaker import BreakerOptions
from monkey_coder.quantum.outcome_record import Reporter, outcome_row
from monkey_coder.quantum.provider_overrides import OVERRIDES
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.selection_learning import FollowerOptions
from monkey_coder.storage.port import OutcomeRow
from monkey_coder.storage.sqlite_store import SqliteStore

MODELS = table()
DEBUGGING = TASK_TYPES.index("debugging")


class Process(small_process.Process):
    """A process that writes its decisions at once, unless told otherwise."""

    def __init__(
        self, manager: QuantumRoutingManager, store: SqliteStore, options: FollowerOptions | None = None
    ) -> None:
        super().__init__(manager, store, MODELS, options=options)

    def decide(self, prompt: str = "Fix the failing test", *, logged: bool = True, **task: Any) -> Any:
        answer = super().decide(prompt, **task)
        if logged:
            self.write()
        return answer

    def learn(self, after_s: float = 0.0) -> int:
        self.clock.now += after_s
        return self.follower.step()

    def chance(self, ref: str) -> float:
        live = self.live().table
        return float(live.success[DEBUGGING, live.index[ref]])


@pytest.fixture
def process(store: SqliteStore) -> Iterator[Process]:
    with engine(models=MODELS) as manager:
        yield Process(manager, store)


@pytest.fixture
def other(store: SqliteStore) -> Iterator[Process]:
    with engine(models=MODELS) as manager:
        yield Process(manager, store)


def test_every_process_learns_the_same_from_one_report(process: Process, other: Process) -> None:
    process.report(process.decide(), success=False, model=DEAR.ref, latency_ms=500.0, output_tokens=10)
    assert process.learn() == other.learn() == 1
    assert process.learn() == other.learn() == 0
    for one in (process, other):
        assert one.chance(DEAR.ref) == pytest.approx(10 * 0.9 / 11)
        assert one.live().table.latency_s[2] < DEAR.latency_s
    np.testing.assert_array_equal(process.live().table.success, other.live().table.success)


def test_a_model_that_fails_all_the_time_loses_its_traffic_and_gets_it_back(process: Process) -> None:
    rng = np.random.default_rng(3)
    first = chosen(process.decide())
    went: list[str] = []

    def use(*, broken: bool) -> None:
        answer = process.decide()
        went.append(chosen(answer))
        usual = rng.random() < MODELS.success[DEBUGGING, MODELS.index[went[-1]]]
        process.report(answer, success=bool(usual and not (broken and went[-1] == first)))
        process.learn()

    for _ in range(600):
        use(broken=True)
    assert went[-100:].count(first) <= 15
    for _ in range(500):
        use(broken=False)
    assert went[-100:].count(first) >= 75


def test_the_decided_model_is_meant_unless_one_is_named(process: Process) -> None:
    answer = process.decide()
    before = process.chance(chosen(answer))
    process.report(answer, success=False)
    process.learn()
    assert process.chance(chosen(answer)) < before


def test_a_report_before_its_decision_is_learned_when_that_can_be_read(process: Process) -> None:
    answer = process.decide(logged=False)
    process.report(answer, success=False, model=DEAR.ref)
    process.learn()
    assert (process.follower.waiting, process.chance(DEAR.ref)) == (1, pytest.approx(0.9))
    process.write()
    process.learn(after_s=0.3)
    assert process.follower.waiting == 0
    assert process.chance(DEAR.ref) < 0.9


def test_a_report_whose_decision_never_comes_is_given_up(process: Process) -> None:
    process.report(process.decide(logged=False), success=False)
    for _ in range(20):
        process.learn(after_s=3600.0)
    assert process.follower.waiting == 0


def test_too_many_that_wait_make_the_oldest_go(store: SqliteStore) -> None:
    with engine(models=MODELS) as manager:
        process = Process(manager, store, FollowerOptions(max_waiting=3))
        answers = [process.decide(logged=False) for _ in range(5)]
        for answer in answers:
            process.report(answer, success=True)
        process.learn()
        assert process.follower.waiting == 3


@pytest.mark.parametrize("named", [True, False])
def test_a_correction_replaces_and_a_late_report_does_not(process: Process, other: Process, named: bool) -> None:
    answer = process.decide()
    now = time.time()
    model = {"model": chosen(answer)} if named else {}
    process.report(answer, success=False, occurred_at=now - 50.0)
    process.report(answer, success=True, occurred_at=now - 10.0, **model)
    process.report(answer, success=False, occurred_at=now - 30.0, **model)
    other.report(other.decide(), success=True)
    process.learn()
    ref = chosen(answer)
    base = float(MODELS.success[DEBUGGING, MODELS.index[ref]])
    assert process.chance(ref) > base


def test_the_same_outcome_id_counts_once(process: Process) -> None:
    answer = process.decide()
    for success in (False, True, False):
        process.report(answer, success=success, outcome_id="one", model=DEAR.ref)
    process.learn()
    assert process.chance(DEAR.ref) == pytest.approx(10 * 0.9 / 11)


def test_attempts_in_a_request_are_never_outcomes(process: Process) -> None:
    attempts = [{"model": DEAR.ref, "success": False}, {"model": CHEAP.ref, "success": True}]
    for _ in range(10):
        process.decide(attempts=attempts)
    process.learn()
    np.testing.assert_array_equal(process.live().table.success, MODELS.success)


def test_errors_open_the_breaker_in_every_process_and_say_nothing_of_quality(process: Process, other: Process) -> None:
    for _ in range(BreakerOptions().failures):
        process.report(process.decide(), error_type="timeout", model=DEAR.ref)
    process.learn()
    other.learn()
    for one in (process, other):
        assert one.chance(DEAR.ref) == pytest.approx(0.9)
        assert one.live().table.available.tolist() == [True, True, False]
        answer = one.decide(preferences={"quality": 1.0, "cost": 0.0, "latency": 0.0})
        assert DEAR.ref not in [chosen(answer), *map(chosen, answer["alternatives"])]
        assert {"model": DEAR.ref, "reason": "unavailable"}.items() <= answer["excluded"][0].items()


def test_an_operator_drains_a_provider_for_everybody(process: Process, other: Process) -> None:
    assert process.store.put_document(OVERRIDES, "mid", b'{"state": "drained"}', 0)
    for one in (process, other):
        one.learn(after_s=1.0)
        assert one.live().table.available.tolist() == [True, False, True]
    process.store.put_document(OVERRIDES, "mid", b'{"state": "auto"}', 1)
    process.learn(after_s=1.0)
    assert process.live().table.available.all()
    process.store.put_document(OVERRIDES, "mid", b"of another release", 2)
    process.learn(after_s=1.0)
    assert process.live().table.available.all()


def test_strategies_are_judged_by_what_became_of_their_choice(process: Process) -> None:
    for _ in range(30):
        process.report(process.decide(), success=False)
    process.learn(after_s=2.0)
    reliability = process.live().reliability
    assert set(reliability) == set(process.live().strategies)
    assert min(reliability.values()) < 1.0


def test_damaged_rows_are_passed_over_by_name(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    answer = process.decide()
    good = outcome_row(FeedbackRequest(decision_id=answer["decision_id"], success=True), Reporter("a", time.time()))
    process.store.append_outcomes([OutcomeRow("x", "a/b", 1.0, b"junk")])
    process.report({"decision_id": "x"}, success=True)
    process.unwritten.append(
        lambda: __import__("monkey_coder.storage.port", fromlist=["x"]).DecisionRow("x", 1.0, b"?")
    )
    process.write()
    process.store.append_outcomes([good])
    assert process.learn() == 3
    assert caplog.text.count("passed over") == 2
    assert process.chance(chosen(answer)) > float(MODELS.success[DEBUGGING, MODELS.index[chosen(answer)]])


def test_what_is_too_old_is_passed_over(process: Process) -> None:
    answer = process.decide()
    report = FeedbackRequest(decision_id=answer["decision_id"], success=False, model=DEAR.ref)
    process.store.append_outcomes([outcome_row(report, Reporter("a", time.time() - 8 * 86_400.0))])
    process.learn()
    assert process.chance(DEAR.ref) == pytest.approx(0.9)


def test_what_was_learned_outlives_watches_that_fail(process: Process, store: SqliteStore) -> None:
    def broken() -> None:
        raise StoreUnavailableError("not now")

    process.follower.watches = (broken,)
    process.report(process.decide(), success=False, model=DEAR.ref)
    with pytest.raises(StoreUnavailableError):
        process.learn()
    process.follower.publish()
    assert process.chance(DEAR.ref) < 0.9


async def test_a_watch_that_hangs_keeps_nobody_from_learning(process: Process) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        over.wait(PATIENCE_S)

    process.follower.watches = (hang,)
    with ThreadPoolExecutor(1) as learning, ThreadPoolExecutor(1) as looking:
        following = asyncio.create_task(process.follower.run(learning, looking))
        async with asyncio.timeout(PATIENCE_S):
            while not hanging.is_set():  # noqa: ASYNC110 - it is set in another thread
                await asyncio.sleep(0.01)
            process.report(process.decide(), success=False, model=MIDDLE.ref)
            process.follower.wake()
            while process.chance(MIDDLE.ref) >= 0.6:  # noqa: ASYNC110 - the snapshot tells nobody when it changes
                await asyncio.sleep(0.01)
        over.set()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


class Indigestible:
    """A listener that breaks at outcomes of one decision, as a fault of ours would."""

    def __init__(self, decision_id: str) -> None:
        self.bad, self.heard = decision_id, []

    def on_outcomes(self, events: Sequence[OutcomeEvent]) -> None:
        if any(event.origin == self.bad for event in events):
            raise ZeroDivisionError(self.bad)
        self.heard += [event.origin for event in events]


@pytest.mark.parametrize("late", [False, True])
def test_an_outcome_that_learning_breaks_at_is_put_aside_by_name_and_all_others_count_once(
    process: Process, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    answers = [process.decide(f"Task {number}", logged=not late) for number in range(40)]
    ids = [answer["decision_id"] for answer in answers]
    listener, aside = Indigestible(ids[7]), []
    process.follower.listeners, process.follower.on_put_aside = (listener,), aside.extend
    for answer in answers:
        process.report(answer, success=False, model=DEAR.ref)
    if late:
        assert process.learn() == 40
        process.write()
    errors = 0
    for _ in range(20):
        try:
            process.learn(after_s=0.3)
        except ZeroDivisionError:
            errors += 1
    assert 0 < errors < 10  # it might have passed
    assert sorted(listener.heard) == sorted({*ids} - {ids[7]})
    assert len(aside) == 1
    assert f"decision {ids[7]} is put aside" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert process.follower.waiting == 0
    process.report(process.decide("The next"), success=False, model=DEAR.ref)
    assert process.learn() == 1
    assert process.chance(DEAR.ref) < 0.5


@pytest.mark.parametrize(("bulk", "pauses"), [(2_000, [20.0, 20.0, 20.0]), (64, [1e-4, 1e-4])])
def test_learning_beside_a_server_rests_by_what_it_took_unless_it_is_behind(
    process: Process, monkeypatch: pytest.MonkeyPatch, bulk: int, pauses: list[float]
) -> None:
    slept: list[float] = []
    taking = itertools.count(0.0, 10.0)  # each lot takes ten seconds
    shown = SimpleNamespace(sleep=slept.append, thread_time=lambda: next(taking))
    monkeypatch.setattr("monkey_coder.quantum.selection_learning.time", shown)
    monkeypatch.setattr("monkey_coder.quantum.selection_learning._BULK", bulk)
    answer = process.decide()
    for number in range(70):
        process.report(answer, success=True, outcome_id=f"o{number}")
    assert process.follower.follow(rest=2.0) == min(bulk, 70)
    assert slept == pauses
    process.follower.follow()
    assert slept == pauses  # nobody waits for it


class Moody(SqliteStore):
    """A store that does not answer the first few times."""

    refusals = 0

    def read_outcomes(self, after: str, limit: int) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailableError("not now")
        return super().read_outcomes(after, limit)


async def test_following_survives_a_store_that_does_not_answer_and_wakes_when_told(tmp_path: Path) -> None:
    store = Moody(tmp_path / "store", time.time)
    store.refusals = 2
    options = FollowerOptions(poll_s=0.1, least_pause_s=0.01)
    with engine(models=MODELS) as manager, ThreadPoolExecutor(1) as learning, ThreadPoolExecutor(1) as looking:
        process = Process(manager, store, options)
        following = asyncio.create_task(process.follower.run(learning, looking))
        process.report(process.decide(), success=False, model=MIDDLE.ref)
        process.follower.wake()
        async with asyncio.timeout(PATIENCE_S):
            while process.chance(MIDDLE.ref) >= 0.6:  # noqa: ASYNC110 - the snapshot tells nobody when it changes
                await asyncio.sleep(0.01)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    store.close()


class Absent(SqliteStore):
    """A store whose decisions cannot be read at times."""

    away = False

    def decision_payloads(self, ids: Any) -> Any:
        if self.away:
            raise StoreUnavailableError("not now")
        return super().decision_payloads(ids)


def test_an_outcome_goes_on_waiting_when_the_store_is_away_at_its_turn(tmp_path: Path) -> None:
    store = Absent(tmp_path / "store", time.time)
    with engine(models=MODELS) as manager:
        process = Process(manager, store)
        process.report(process.decide(logged=False), success=False, model=DEAR.ref)
        process.learn()
        process.write()
        store.away = True
        with pytest.raises(StoreUnavailableError):
            process.learn(after_s=1.0)
        store.away = False
        assert process.follower.waiting == 1
        process.learn()
        assert process.follower.waiting == 0
        assert process.chance(DEAR.ref) == pytest.approx(10 * 0.9 / 11)
    store.close()
