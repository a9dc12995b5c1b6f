"""Where policies are kept: the same promises from the store of a deployment and from a directory."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis_process import patient_store, running_redis

from monkey_coder.errors import PolicyError, StoreUnavailableError
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import DirectoryShelf, Said, Shelf, StoreShelf
from monkey_coder.quantum.training_pipeline import TrainedPolicy
from monkey_coder.storage.opening import FILE_NAME, open_store
from monkey_coder.storage.port import Store
from monkey_coder.storage.sqlite_store import SqliteStore

TRAIN, ASKED = Said("train"), Said("operator", "by hand")


@pytest.fixture
def bundle(trained_policy: TrainedPolicy) -> PolicyBundle:
    trained = trained_policy
    return PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(tmp_path, None, time.time)) as opened:
        yield opened


@pytest.fixture(params=["directory", "sqlite", "redis"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "directory":
        yield DirectoryShelf(tmp_path / "policies")
    elif request.param == "sqlite":
        yield StoreShelf(request.getfixturevalue("store"), time.time)
    else:
        with running_redis(tmp_path) as server, closing(patient_store(server.url)) as store:
            yield StoreShelf(store, time.time)


def test_what_is_kept_is_read_back_and_serves_when_told(shelf: Shelf, bundle: PolicyBundle) -> None:
    assert (shelf.numbers(), shelf.current()) == ((), None)
    assert shelf.put(bundle, {"card.md": b"# Policy"}) == 1
    assert (shelf.numbers(), shelf.current()) == ((1,), None)
    shelf.set_current(1, TRAIN)
    assert shelf.current() == 1
    read = shelf.load(1)
    assert read.parts.version == 1
    assert dict(read.reliability) == dict(bundle.reliability)
    assert shelf.card(1) == read.card == json.loads(json.dumps(bundle.card))
    assert shelf.files(1)["card.md"] == b"# Policy"


def test_a_policy_that_is_not_there_is_named(shelf: Shelf, bundle: PolicyBundle) -> None:
    shelf.put(bundle, {})
    asks: list[Callable[[int], object]] = [shelf.load, shelf.card, shelf.files, lambda n: shelf.set_current(n, ASKED)]
    for ask in asks:
        with pytest.raises(PolicyError, match=r"no policy 7 .*there are: 1"):
            ask(7)


def test_rolling_back_goes_to_what_served_before(shelf: Shelf, bundle: PolicyBundle) -> None:
    for expected in (1, 2, 3):
        assert shelf.put(bundle, {}) == expected
        shelf.set_current(expected, TRAIN)
    shelf.set_current(1, ASKED)
    shelf.set_current(1, ASKED)
    assert [shelf.rollback(ASKED), shelf.rollback(ASKED), shelf.current()] == [3, 2, 2]
    assert shelf.rollback(ASKED) == 1
    with pytest.raises(PolicyError, match="no earlier policy"):
        shelf.rollback(ASKED)


def test_the_last_ten_are_kept_and_the_one_that_serves(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    for _ in range(11):
        shelf.put(bundle, {})
    assert shelf.numbers() == (1, *range(3, 13))
    assert set(shelf.cards()) == set(shelf.numbers())


def test_who_changed_it_and_why_is_remembered(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, lambda: 100.0)
    for _ in range(2):
        shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    assert shelf.switch(2, 1, Said("learner", "better by 0.02"))
    shelf.rollback(Said("regression", "worse"))
    told = [(each.policy, each.at, each.by, each.why) for each in shelf.switches()]
    assert told == [
        (1, 100.0, "train", ""),
        (2, 100.0, "learner", "better by 0.02"),
        (1, 100.0, "regression", "worse"),
    ]


def test_a_challenger_does_not_take_the_place_of_one_it_was_not_compared_with(
    store: Store, bundle: PolicyBundle
) -> None:
    shelf = StoreShelf(store, time.time)
    for _ in range(3):
        shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    shelf.set_current(2, ASKED)
    assert not shelf.switch(3, 1, Said("learner"))
    assert shelf.current() == 2


def test_a_policy_can_be_withdrawn_and_brought_back(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    assert shelf.switch(None, 1, Said("regression"))
    assert shelf.current() is None
    assert shelf.rollback(ASKED) == 1


def test_an_operator_can_do_without_a_policy(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    for number in (1, 2):
        shelf.put(bundle, {})
        shelf.set_current(number, TRAIN)
    shelf.withdraw(ASKED)
    shelf.withdraw(ASKED)
    assert shelf.current() is None
    assert [each.policy for each in shelf.switches()] == [1, 2, None]
    assert [shelf.rollback(ASKED), shelf.rollback(ASKED)] == [2, 1]
    with pytest.raises(PolicyError, match="rollback --to none"):
        shelf.rollback(ASKED)


class Crowded(SqliteStore):
    """A store whose documents others always change first."""

    def put_document(self, kind: str, name: str, value: bytes, expected: int, keep: int = 0) -> bool:
        return False


def test_a_change_that_could_not_be_noted_is_said(tmp_path: Path, bundle: PolicyBundle) -> None:
    with closing(Crowded(tmp_path / "crowded", time.time)) as store:
        shelf = StoreShelf(store, time.time)
        shelf.put(bundle, {})
        with pytest.raises(StoreUnavailableError, match="policy 1 serves from now on, but that could not be noted"):
            shelf.set_current(1, TRAIN)
        assert shelf.current() == 1


def test_a_process_that_died_between_a_change_and_its_note_is_made_good(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    for _ in range(3):
        shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    assert store.set_current_policy(2, 1)  # and then it died
    shelf.set_current(3, TRAIN)
    assert [shelf.rollback(ASKED), shelf.rollback(ASKED)] == [2, 1]


def test_a_damaged_policy_is_named_and_never_served(store: Store, tmp_path: Path, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    shelf.put(bundle, {})
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("UPDATE policies SET blob = substr(blob, 1, length(blob) - 1), card = '{'")
    with pytest.raises(PolicyError, match="policy 1 is damaged"):
        shelf.load(1)
    with pytest.raises(PolicyError, match="card of policy 1"):
        shelf.card(1)
    assert shelf.cards() == {1: {}}


def test_a_policy_of_another_format_is_named_by_its_number(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    shelf.put(bundle, {})
    manifest = json.loads(shelf.files(1)["manifest.json"]) | {"format": 99}
    from monkey_coder.quantum.policy_blob import pack

    store.put_policy(pack({**shelf.files(1), "manifest.json": json.dumps(manifest).encode()}), b"{}")
    with pytest.raises(PolicyError, match=r"^policy 2 has bundle format 99"):
        shelf.load(2)


def test_a_damaged_history_begins_anew(store: Store, bundle: PolicyBundle) -> None:
    shelf = StoreShelf(store, time.time)
    for _ in range(2):
        shelf.put(bundle, {})
    shelf.set_current(1, TRAIN)
    assert store.put_document("policies", "history", b"{", 1)
    shelf.set_current(2, TRAIN)
    assert shelf.rollback(ASKED) == 1


def test_a_store_that_is_away_says_so(store: Store) -> None:
    shelf = StoreShelf(store, time.time)
    store.close()
    with pytest.raises(StoreUnavailableError):
        shelf.current()
