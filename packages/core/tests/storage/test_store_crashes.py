"""Real processes, killed for real: what was acknowledged is there, and the next goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis_process import patient_store, running_redis
from servers import PATIENCE_S, eventually

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import START, DecisionRow, OutcomeRow

CHILD = Path(__file__).with_name("store_child.py")


@pytest.fixture(params=["sqlite", "redis"])
def where(request, tmp_path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path)
    else:
        with running_redis(tmp_path) as server:
            yield server.url


@contextmanager
def child(where: str, mode: str, name: str, *rest: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(CHILD), where, mode, name, *rest],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said_until_killed(process, lines: int, pause_s: float = 0.05) -> list[str]:
    """Let a child say so much and a little more, kill it in the middle of its work, and return all it said."""
    said = [process.stdout.readline().strip() for _ in range(lines)]
    assert "" not in said, process.stderr.read()
    time.sleep(pause_s)
    process.kill()
    said += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    return said


def open_where(where: str):
    return closing(patient_store(where) if where.startswith("redis://") else open_store(Path(where), None, time.time))


def stored_ids(store) -> set[str]:
    return {outcome.row.decision_id for outcome in store.read_outcomes(START, 100_000)}


@pytest.mark.parametrize("mode", ["one-by-one", "writer"])
def test_what_was_acknowledged_survives_the_killing_of_its_process(where, mode) -> None:
    acknowledged: set[str] = set()
    for name in ("first", "second"):
        with child(where, mode, name) as process:
            acknowledged |= {f"{name}-{number}" for number in said_until_killed(process, 100)}
    assert len(acknowledged) >= 200
    with open_where(where) as store:
        assert acknowledged <= stored_ids(store)


def test_what_was_acknowledged_survives_the_killing_of_redis(tmp_path) -> None:
    with running_redis(tmp_path) as server, child(server.url, "one-by-one", "only") as process:
        said = [process.stdout.readline().strip() for _ in range(100)]
        time.sleep(0.05)
        server.kill()
        said += process.stdout.read().split()
        assert "StoreUnavailableError" in process.stderr.read()
        server.start()
        with open_where(server.url) as store:
            assert {f"only-{number}" for number in said} <= stored_ids(store)


def test_two_processes_that_write_at_once_do_not_get_into_each_others_way(where) -> None:
    with child(where, "everything", "a", "60") as one, child(where, "everything", "b", "60") as other:
        answers = [process.communicate(timeout=PATIENCE_S) for process in (one, other)]
    assert [stderr for _, stderr in answers] == ["", ""]
    assert sum(int(stdout) for stdout, _ in answers) == 3 * 60  # those that both reported were new to one of them
    with open_where(where) as store:
        assert len(store.decisions((0.0, ""), 100_000)) == 2 * 60 * 20
        assert len(stored_ids(store)) == 3 * 60


def test_a_process_that_is_killed_while_it_writes_leaves_no_lock_behind(tmp_path) -> None:
    with child(str(tmp_path), "everything", "a") as process:
        with open_where(str(tmp_path)) as store:
            eventually(lambda: stored_ids(store))  # it is at work now
        time.sleep(0.05)
    with open_where(str(tmp_path)) as store:
        store.append_decisions([DecisionRow("after", 1.0, b"")])  # an error, were the file locked
        assert process.returncode is not None


def test_writers_of_one_file_wait_for_each_other_in_threads_of_many_stores(tmp_path) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            with open_where(str(tmp_path)) as store:
                for number in range(30):
                    store.append_decisions([DecisionRow(f"{name}-{number}-{row}", 1.0, b"x") for row in range(50)])
                    store.append_outcomes([OutcomeRow(f"{name}-{number}", "a/one", 1.0, b"x")])
        except StoreUnavailableError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_where(str(tmp_path)) as store:
        assert len(stored_ids(store)) == 4 * 30
