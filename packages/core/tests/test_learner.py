"""The learner's loop, in this process: what it publishes, what it takes back, and what does not stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from colours import quick
from servers import eventually
from taught_store import Teacher, teaching

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.errors import LearnerActiveError, StoreUnavailableError, TrainingDivergedError
from monkey_coder.heartbeat import LEASE, Heartbeat, LeaseLostError
from monkey_coder.learner import learn, owner_name
from monkey_coder.learning import Learning, LearningOptions, Workshop
from monkey_coder.quantum.learner_status import LearnerStatus, read_status
from monkey_coder.quantum.log_training import Challenger, LogOptions, LogTrainer
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_judge import JudgeOptions
from monkey_coder.quantum.policy_shelf import Said, StoreShelf
from monkey_coder.quantum.training_pipeline import TrainedPolicy
from monkey_coder.quantum.training_wishes import write_wishes
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

LENIENT = JudgeOptions(tolerance=1.0, least_decisions=1, least_checks=1, most_unchecked=1.0)
"""Lets pass whatever was trained, so that what happens then can be seen."""
STRICT = JudgeOptions(least_decisions=1_000_000)
"""Lets nothing pass."""


@dataclass
class Here:
    """A deployment, and a learner for it in this process."""

    state_dir: Path
    store: Store
    said: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def workshop(
        self, judging: JudgeOptions = LENIENT, least: int = 60, steps: int = 48, **changes: object
    ) -> Workshop:
        table = load_catalog(None).table()
        options = LogOptions(training=quick(steps=steps), judging=judging, least_new=least)

        def make() -> LogTrainer:
            return LogTrainer(table, options, 0, time.time)

        say = self.said.append
        shop = Workshop(self.store, make, lambda: table, say, self.stop, time.time, time.monotonic)
        return replace(shop, options=LearningOptions(look_s=0.02, judge_s=0.0, again_s=0.0), **changes)

    def once(self, **changes: object) -> LearnerStatus:
        status = learn(self.workshop(**changes), owner_name(), once=True)
        assert status is not None
        return status

    @property
    def shelf(self) -> StoreShelf:
        return StoreShelf(self.store, time.time)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with closing(open_store(tmp_path, None, time.time)) as store:
        yield Here(tmp_path, store)


@pytest.fixture
def teacher(here: Here) -> Iterator[Teacher]:
    with teaching(here.state_dir, here.store) as teacher:
        yield teacher


@contextmanager
def learning(here: Here, workshop: Workshop) -> Iterator[threading.Thread]:
    """The loop in a thread, until the block ends."""
    thread = threading.Thread(target=learn, args=(workshop, owner_name()))
    thread.start()
    try:
        yield thread
    finally:
        here.stop.set()
        thread.join()


def test_what_is_fit_serves_and_the_next_is_compared_with_it(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(200), time.time())
    status = here.once()
    assert (here.shelf.current(), status.policy) == (1, 1)
    assert [(told.publish, told.policy, told.against) for told in status.verdicts] == [(True, 1, None)]
    assert status.training is not None
    assert status.training.outcomes > 0
    assert (status.counts["outcomes"], status.counts["fresh"], status.lag_s) == (200, 0, 0.0)
    assert here.once().verdicts == status.verdicts  # nothing new came
    teacher.report(teacher.decide(80), time.time())
    status = here.once()
    assert [(told.policy, told.against) for told in status.verdicts] == [(1, None), (2, 1)]
    assert [each.by for each in here.shelf.switches()] == ["learner", "learner"]
    assert {"card.md", "agent.pt"} <= here.shelf.files(2).keys()


def test_what_is_not_fit_stays_in_shadow_and_is_judged_again(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(120), time.time())
    with learning(here, here.workshop(STRICT)):
        eventually(lambda: len(verdicts(here)) == 1)
        first = verdicts(here)[0]
        teacher.report(teacher.decide(10), time.time())
        eventually(lambda: verdicts(here)[0].at > first.at)
    assert here.shelf.numbers() == ()
    assert [(told.publish, told.policy) for told in verdicts(here)] == [(False, None)]
    assert sum(text.startswith("training on") for text in here.said) == 1


def verdicts(here: Here):
    status = read_status(here.store)
    return () if status is None else status.verdicts


def test_a_policy_that_does_worse_than_the_one_before_is_taken_back(
    here: Here, teacher: Teacher, trained_policy: TrainedPolicy
) -> None:
    trained = trained_policy
    bundle = PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)
    shelf = here.shelf
    for version, chance in ((1, 1.0), (2, 0.0)):
        shelf.set_current(shelf.put(bundle, {}), Said("train"))
        teacher.core.live.update(lambda now, v=version: replace(now, policy_version=v))
        teacher.report(teacher.decide(300), time.time(), chance=chance)
    status = here.once(least=1_000_000)
    assert shelf.current() == status.policy == 1
    last = shelf.switches()[-1]
    assert (last.policy, last.by) == (1, "regression")
    assert last.why
    assert any("policy 2 is taken back" in text for text in here.said)
    assert here.once(least=1_000_000).policy == 1  # and stays


def test_the_first_policy_is_taken_back_to_none(here: Here, teacher: Teacher, trained_policy: TrainedPolicy) -> None:
    trained = trained_policy
    teacher.report(teacher.decide(300), time.time(), chance=1.0)
    bundle = PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)
    here.shelf.set_current(here.shelf.put(bundle, {}), Said("train"))
    teacher.core.live.update(lambda now: replace(now, policy_version=1))
    teacher.report(teacher.decide(300), time.time(), chance=0.0)
    assert here.once(least=1_000_000).policy is None
    assert here.shelf.current() is None


def test_training_that_diverges_or_breaks_publishes_nothing_and_does_not_end_the_reading(
    here: Here, teacher: Teacher
) -> None:
    teacher.report(teacher.decide(100), time.time())

    class Breaking(LogTrainer):
        def train(self, *_: object, **__: object) -> None:  # type: ignore[override]
            raise errors.pop(0)

    errors = [TrainingDivergedError("the loss rose"), ZeroDivisionError("somebody's mistake")]
    for words in ("diverged: the loss rose", "ZeroDivisionError"):
        table = load_catalog(None).table()
        make = lambda table=table: Breaking(table, LogOptions(least_new=60), 0, time.time)  # noqa: E731
        status = here.once(make_trainer=make)
        assert status.training is not None
        assert words in status.training.note
        assert status.counts["outcomes"] == 100
    assert here.shelf.numbers() == ()


def test_while_it_trains_it_goes_on_reading(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(100), time.time())
    training, release = threading.Event(), threading.Event()

    class Slow(LogTrainer):
        def train(self, *args: object, **more: object) -> Challenger:
            training.set()
            assert release.wait(180.0)
            return super().train(*args, **more)  # type: ignore[arg-type]

    def make() -> LogTrainer:
        return Slow(load_catalog(None).table(), LogOptions(quick(steps=48), LENIENT, least_new=60), 0, time.time)

    with ThreadPoolExecutor(1) as aside, learning(here, here.workshop(make_trainer=make, aside=aside)):
        try:
            assert training.wait(180.0)
            teacher.report(teacher.decide(30), time.time())
            eventually(lambda: counts(here).get("outcomes") == 130)
            assert here.shelf.numbers() == ()
        finally:
            release.set()
        eventually(lambda: here.shelf.current() == 1)
    assert here.shelf.card(1)["log"]["outcomes"] == 100


def test_asked_to_end_while_it_trains_it_ends_and_publishes_nothing(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(100), time.time())
    training = threading.Event()

    class Endless(LogTrainer):
        def train(self, progress: Callable[[str, int, int, str], None], *_: object, **__: object) -> Challenger:
            while True:
                progress("value network", 1, 2, "")
                training.set()
                time.sleep(0.01)

    def make() -> LogTrainer:
        return Endless(load_catalog(None).table(), LogOptions(least_new=60), 0, time.time)

    with ThreadPoolExecutor(1) as aside, learning(here, here.workshop(make_trainer=make, aside=aside)) as thread:
        assert training.wait(180.0)
        here.stop.set()
        thread.join(180.0)
        assert not thread.is_alive()
    assert here.shelf.numbers() == ()


def counts(here: Here) -> Mapping[str, int]:
    status = read_status(here.store)
    return {} if status is None else status.counts


def test_with_too_few_outcomes_of_two_models_it_waits_for_more(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(4), time.time())
    status = here.once(least=2)
    assert status.training is not None
    assert "too little" in status.training.note
    assert here.shelf.numbers() == ()


def test_a_damaged_policy_in_service_is_replaced_by_any_that_works(here: Here, teacher: Teacher) -> None:
    number = here.store.put_policy(b"damaged", b"{}")
    assert here.store.set_current_policy(number, None)
    teacher.report(teacher.decide(120), time.time())
    assert here.once().policy == number + 1
    assert any(f"policy {number} cannot be used" in text for text in here.said)


def test_paused_in_the_middle_of_a_training_it_waits_there(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(120), time.time())

    def tell(text: str) -> None:
        here.said.append(text)
        if text.startswith("training on"):
            write_wishes(here.store, paused=True)

    with learning(here, here.workshop(tell=tell, steps=2_000)):
        eventually(lambda: doing(here) == "paused")
        time.sleep(0.2)
        assert here.shelf.numbers() == ()
        write_wishes(here.store, paused=False)
        eventually(lambda: here.shelf.numbers() == (1,))


def doing(here: Here) -> str | None:
    status = read_status(here.store)
    return None if status is None else status.doing


def test_a_note_that_is_damaged_or_lost_costs_reading_and_nothing_else(here: Here, teacher: Teacher) -> None:
    teacher.report(teacher.decide(120), time.time())
    first = here.once(least=1_000_000)
    found = here.store.document("learner", "state")
    assert found is not None
    assert here.store.put_document("learner", "state", b"[", found.version)
    assert here.once(least=1_000_000).counts == first.counts


def test_one_cycle_is_refused_while_another_learner_is_active(here: Here) -> None:
    assert here.store.acquire_lease(LEASE, "somebody", 60.0)
    with pytest.raises(LearnerActiveError, match="somebody is the active learner"):
        here.once()


def test_one_cycle_without_a_store_fails(here: Here) -> None:
    here.store.close()
    with pytest.raises(StoreUnavailableError):
        here.once()


def test_it_waits_for_a_lease_and_for_a_store_that_is_away(here: Here) -> None:
    assert here.store.acquire_lease(LEASE, "somebody", 600.0)
    with learning(here, here.workshop()) as thread:
        eventually(lambda: here.said)
        here.store.release_lease(LEASE, "somebody")
        eventually(lambda: "reading the outcomes so far" in here.said)
        here.store.close()
        eventually(lambda: any("store cannot be used" in text for text in here.said))
        assert thread.is_alive()
    assert here.said[0] == "waiting: somebody is the active learner"
    assert sum("waiting" in text for text in here.said) == 1


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_was_stopped_for_longer_than_its_lease_steps_back(tmp_path: Path) -> None:
    clock = Time()
    with closing(open_store(tmp_path, None, clock)) as store:
        here = Here(tmp_path, store)
        stopped = Heartbeat(store, "one", clock, clock, lease_s=10.0, beat_s=1_000.0)
        other = Heartbeat(store, "two", clock, clock, lease_s=10.0, beat_s=1_000.0)
        assert stopped.acquire()
        with stopped:
            Learning(here.workshop(), stopped).run(once=True)
            assert not other.acquire()
            clock.now += 11.0
            assert other.acquire()
            with other:
                with pytest.raises(LeaseLostError):
                    Learning(here.workshop(), stopped).run(once=True)
                assert store.lease_owner(LEASE) == "two"


def test_who_lost_its_lease_says_nothing_more(tmp_path: Path) -> None:
    clock = Time()
    with closing(open_store(tmp_path, None, clock)) as store:
        stopped = Heartbeat(store, "one", clock, clock, lease_s=10.0, beat_s=1_000.0)
        assert stopped.acquire()
        with stopped:
            stopped.say_now(note="still here")
            clock.now += 11.0
            with pytest.raises(LeaseLostError):
                stopped.say_now(note="too late")
            status = read_status(store)
            assert status is not None
            assert status.note == "still here"


def test_a_lease_is_held_as_long_as_it_beats(tmp_path: Path) -> None:
    clock = Time()

    def heard() -> bool:
        status = read_status(store)
        return status is not None and status.heartbeat_at == clock.now

    with closing(open_store(tmp_path, None, clock)) as store:
        heart = Heartbeat(store, "one", clock, clock, lease_s=10.0, beat_s=0.01)
        other = Heartbeat(store, "two", clock, clock, lease_s=10.0, beat_s=0.01)
        assert heart.acquire()
        with heart:
            for _ in range(4):
                clock.now += 4.0  # not half the lease: a beat may have renewed it just before, and said so just after
                eventually(heard)
                heart.require()
                assert not other.acquire()
        assert other.acquire()
        status = read_status(store)
        assert status is not None
        assert status.doing == "ended"
