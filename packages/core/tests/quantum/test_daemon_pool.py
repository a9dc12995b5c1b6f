"""The pool that strategies run on: bounded, and nothing that a process has to wait for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from servers import PATIENCE_S, eventually

from monkey_coder.quantum.daemon_pool import DaemonPool


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_it_never_has_more_threads_than_told_and_loses_no_job() -> None:
    pool, lock = DaemonPool(3, "bounded"), threading.Lock()
    done, at_once, most = [], 0, 0

    def job(number: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.001)
        with lock:
            at_once -= 1
            done.append(number)

    callers = [
        threading.Thread(target=lambda c=c: [pool.submit(lambda n=n: job(100 * c + n)) for n in range(25)])
        for c in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    eventually(lambda: len(done) == 100)
    assert sorted(done) == [100 * c + n for c in range(4) for n in range(25)]
    assert most <= 3
    assert len(threads_of("bounded")) <= 3
    pool.close()
    eventually(lambda: not threads_of("bounded"))


def test_threads_are_made_for_work_and_used_again() -> None:
    pool = DaemonPool(50, "reused")
    assert threads_of("reused") == []
    for _ in range(50):
        ended = threading.Event()
        pool.submit(ended.set)
        assert ended.wait(PATIENCE_S)
        time.sleep(0.001)  # for the thread to come back, which now and then takes longer
    assert len(threads_of("reused")) < 50
    pool.close()


def test_a_busy_thread_does_not_keep_a_job_from_a_free_place() -> None:
    pool, release, ended = DaemonPool(2, "busy"), threading.Event(), threading.Event()
    pool.submit(lambda: release.wait(PATIENCE_S))
    for _ in range(3):  # also when the second thread has been idle before
        ended.clear()
        pool.submit(ended.set)
        assert ended.wait(PATIENCE_S)
    release.set()
    pool.close()


def test_a_job_that_raises_is_logged_and_its_thread_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    pool, ended = DaemonPool(1, "raising"), threading.Event()
    pool.submit(lambda: 1 // 0)
    pool.submit(ended.set)
    assert ended.wait(PATIENCE_S)
    assert "ZeroDivisionError" in caplog.text
    pool.close()


def test_closed_it_drops_what_waits_and_takes_nothing_more() -> None:
    pool, entered, release, ran = DaemonPool(1, "closing"), threading.Event(), threading.Event(), []

    def hold() -> None:
        entered.set()
        release.wait(PATIENCE_S)

    pool.submit(hold)
    pool.submit(lambda: ran.append("too late"))
    assert entered.wait(PATIENCE_S)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)
    release.set()
    eventually(lambda: not threads_of("closing"))
    assert ran == []


STUCK = """
import threading, time
from builders import Fixed, ask, engine

class Stuck:
    name = "stuck"
    def score(self, batch):
        threading.Event().wait()

with engine(Stuck(), Fixed("good", [0.1, 0.9, 0.1], instant=True)) as manager:
    (answer,) = manager.decide([ask(options={"timeout_ms": 200})])
    print(answer["model"], answer["degraded"])
"""


def test_a_strategy_that_is_stuck_for_ever_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK],
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,  # which is what fails where it is kept
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "middle ['deadline']\n", "")
