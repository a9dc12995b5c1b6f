"""How `serve` ends when it cannot start, and when somebody will not wait for it."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

from servers import PATIENCE_S, command, free_port, serving

FAILS_IN_WORKERS = """
import multiprocessing

def make():
    if multiprocessing.parent_process() is not None:
        raise RuntimeError("not here")
    from monkey_coder.quantum.routing_strategies import objective_strategies
    strategy = objective_strategies()[0]

    class Renamed:
        name = "renamed"
        score = strategy.score

    return Renamed()
"""


def install(folder: Path) -> Path:
    """A package with a strategy that works where it is tried first, and in no worker."""
    folder.mkdir()
    (folder / "picky.py").write_text(FAILS_IN_WORKERS)
    about = folder / "picky-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: picky\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[monkey_coder.strategies]\npicky = picky:make\n")
    return folder


def test_workers_that_cannot_start_end_the_server_with_an_error(tmp_path: Path) -> None:
    place, port = install(tmp_path / "site"), free_port()
    done = command(
        tmp_path / "state", "serve", "--workers", "2", "--port", str(port), settings={"PYTHONPATH": str(place)}
    )
    assert done.returncode == 1, done.stderr
    assert "not here" in done.stderr


def test_interrupted_twice_it_ends_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    with serving(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall(
            b"POST /v1/quantum/route HTTP/1.1\r\nhost: r\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
        )
        assert caller.recv(1000).startswith(b"HTTP/1.1 100 ")  # it has a request in hand, whose body never comes
        server.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE_S
        while "Shutting down" not in server.said():
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.01)
        assert server.end(signal.SIGINT) == 128 + signal.SIGINT
        assert "Traceback" not in server.said()


def test_web_processes_end_when_the_one_that_started_them_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        server.end(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except ConnectionRefusedError:
                break  # the port is free for the next
            assert time.monotonic() < deadline
            time.sleep(0.1)
