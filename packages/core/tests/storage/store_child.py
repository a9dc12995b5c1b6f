"""A process that uses a store, for tests that kill it: says what was acknowledged, one line each, and goes on.

Usage: python store_child.py WHERE MODE NAME [COUNT]; WHERE is a redis:// address or a directory.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import closing
from pathlib import Path

from monkey_coder.storage.background_writer import BackgroundWriter
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import DecisionRow, OutcomeRow, Store
from monkey_coder.storage.redis_client import connect
from monkey_coder.storage.redis_store import RedisStore

PATIENCE_S = 180.0
"""For a server on a loaded machine."""


def opened(where: str) -> Store:
    if where.startswith("redis://"):
        return RedisStore(connect(where, PATIENCE_S, PATIENCE_S), time.time)
    return open_store(Path(where), None, time.time)


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def report(name: str, number: int) -> OutcomeRow:
    return OutcomeRow(f"{name}-{number}", "a/one", 1.0, b"x" * 300, outcome_id=f"{name}-{number}")


def acknowledge(store: Store, name: str, numbers) -> None:
    for number in numbers:
        store.append_outcomes([report(name, number)])
        say(number)


def acknowledge_through_writer(store: Store, name: str, numbers) -> None:
    writer = BackgroundWriter(store, lambda error: None, time.time)
    for number in numbers:
        writer.put(DecisionRow(f"{name}-{number}", time.time(), b"y" * 300))
        future = writer.put_outcomes([report(name, number)])
        future.add_done_callback(lambda done, number=number: isinstance(done.result()[0], Exception) or say(number))
        time.sleep(0.0002)


def write_everything(store: Store, name: str, numbers) -> None:
    new = 0
    for number in numbers:
        store.append_decisions([DecisionRow(f"{name}-{number}-{row}", float(number), b"y" * 300) for row in range(20)])
        new += store.append_outcomes([report("shared", number), report(name, number)]).count("new")
        store.acquire_lease(name, name, 5.0)
        store.trim(0.0)
    say(new)


if __name__ == "__main__":
    where, mode, name, *count = sys.argv[1:]
    with closing(opened(where)) as store:
        modes = {
            "one-by-one": acknowledge,
            "writer": acknowledge_through_writer,
            "everything": write_everything,
        }
        modes[mode](store, name, range(int(count[0])) if count else itertools.count())
