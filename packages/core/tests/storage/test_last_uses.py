"""Last uses: whichever process notes one, all find the newest, as long as it is neither too old nor one too many."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from builders import SetClock
from redis_process import RedisProcess, patient_uses
from servers import eventually, free_port

from monkey_coder.errors import StoreFormatError, StoreUnavailableError
from monkey_coder.storage.last_uses import FILE_NAME, LastUse, LastUses, open_last_uses
from monkey_coder.storage.redis_uses import RedisLastUses
from monkey_coder.storage.sqlite_uses import SURPLUS, SqliteLastUses

NOW = 1_700_000_000.25
Opener = Callable[[], LastUses]


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> Iterator[Opener]:
    """Opens the same again and again, as processes do: 60 s and 3 keys are kept."""
    made: Opener = partial(open_last_uses, tmp_path, None, clock, 60.0, 3)
    if request.param != "sqlite":
        server: RedisProcess = request.getfixturevalue(f"redis_{'server' if request.param == 'redis' else 'cluster'}")
        with server.client() as client:
            client.flushdb()
        made = partial(patient_uses, server.url, clock, 60.0, 3)
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(made()))


def test_what_one_process_notes_the_others_find(open_again: Opener) -> None:
    one, other = open_again(), open_again()
    assert one.last_uses([]) == []
    assert one.last_uses([b"a"]) == [None]
    one.note_uses({b"a": LastUse(NOW, b"x/1"), b"\xff\x00 b": LastUse(NOW - 1.0, b"y/a b")})
    found = other.last_uses([b"\xff\x00 b", b"unknown", b"a"])
    assert found == [LastUse(NOW - 1.0, b"y/a b"), None, LastUse(NOW, b"x/1")]


def test_the_newest_use_wins_in_whatever_order_they_come(open_again: Opener) -> None:
    one, other = open_again(), open_again()
    one.note_uses({b"a": LastUse(NOW, b"new")})
    other.note_uses({b"a": LastUse(NOW - 0.5, b"old")})
    assert one.last_uses([b"a"]) == [LastUse(NOW, b"new")]
    other.note_uses({b"a": LastUse(NOW + 0.5, b"newest")})
    assert one.last_uses([b"a"]) == [LastUse(NOW + 0.5, b"newest")]


def test_a_use_that_is_too_old_is_forgotten(open_again: Opener, clock: SetClock) -> None:
    one = open_again()
    one.note_uses({b"a": LastUse(NOW, b"x"), b"b": LastUse(NOW + 30.0, b"y")})
    clock.now += 61.0
    assert one.last_uses([b"a", b"b"]) == [None, LastUse(NOW + 30.0, b"y")]


def test_those_used_longest_ago_go_when_there_are_too_many(open_again: Opener) -> None:
    keys = [bytes([number]) for number in range(6)]
    one = open_again()
    one.note_uses({key: LastUse(NOW + number, b"x") for number, key in enumerate(keys)})
    assert [use is not None for use in one.last_uses(keys)] == [False] * 3 + [True] * 3


def test_the_file_stays_within_its_bounds_while_it_is_written(tmp_path: Path, clock: SetClock) -> None:
    most, number = 100, 0
    with closing(SqliteLastUses(tmp_path / "uses", clock, 60.0, most)) as uses:
        for _ in range(30):
            uses.note_uses({str(number + n).encode(): LastUse(NOW + number + n, b"x") for n in range(100)})
            number += 100
        with closing(sqlite3.connect(tmp_path / "uses")) as reader:
            ((count,),) = reader.execute("SELECT count(*) FROM uses")
        assert most <= count <= most + SURPLUS
        assert uses.last_uses([str(number - 1).encode()]) != [None]


def test_redis_forgets_all_by_itself_when_nobody_comes(redis_server: RedisProcess) -> None:
    with redis_server.client() as client, closing(RedisLastUses(client, time.time, 0.2, 3, "short")) as uses:
        uses.note_uses({b"a": LastUse(time.time(), b"x")})
        eventually(lambda: not client.keys("short:*"))


def test_a_file_of_another_schema_or_a_store_is_refused_with_the_mend(tmp_path: Path, clock: SetClock) -> None:
    open_last_uses(tmp_path, None, clock, 60.0, 3).close()
    file = tmp_path / FILE_NAME
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFormatError, match=r"sessions\.sqlite3: has schema 99.* move the file away"):
        open_last_uses(tmp_path, None, clock, 60.0, 3)
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA application_id = 1")
    with pytest.raises(StoreFormatError, match="another program's database"):
        open_last_uses(tmp_path, None, clock, 60.0, 3)


def test_a_server_that_is_away_is_named_as_what_it_is(tmp_path: Path, clock: SetClock) -> None:
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        open_last_uses(tmp_path, f"redis://127.0.0.1:{free_port()}", clock, 60.0, 3)
