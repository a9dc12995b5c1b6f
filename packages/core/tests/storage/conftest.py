"""Stores to test: a file, a Redis server, and a Redis Cluster of one node, each with data of the test's own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis_process import DURABLE, RedisProcess, patient_store, running_redis
from servers import free_port

from monkey_coder.storage.port import Retention, Store
from monkey_coder.storage.sqlite_store import SqliteStore

Opener = Callable[..., Store]
"""Opens the same data again and again, as several processes do; takes `retention`."""

_FRESH = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    clustered = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))  # by default 10,000 above the other
    with running_redis(tmp_path_factory.mktemp("cluster"), *DURABLE, *clustered) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def make_opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Opener]]:
    """Makes openers of new, empty data; everything opened is closed at the end."""
    with ExitStack() as opened:

        def make() -> Opener:
            number = next(_FRESH)

            def open_again(retention: Retention | None = None) -> Store:
                store: Store
                if request.param == "sqlite":
                    store = SqliteStore(tmp_path / f"{number}.sqlite3", time.time, retention)
                else:
                    fixture = "redis_server" if request.param == "redis" else "redis_cluster"
                    url = request.getfixturevalue(fixture).url
                    store = patient_store(url, retention, f"test-{number}")
                return opened.enter_context(closing(store))

            return open_again

        yield make


@pytest.fixture
def open_again(make_opener: Callable[[], Opener]) -> Opener:
    return make_opener()


@pytest.fixture
def store(open_again: Opener) -> Store:
    return open_again()
