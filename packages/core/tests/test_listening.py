"""Several processes on one port: each has its share of the callers, until it ends, and nobody else gets in."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from servers import PATIENCE_S, Server, command, eventually, serving

from monkey_coder.listening import SharedPort

HOST = "127.0.0.1"


def bound(port: int = 0) -> socket.socket:
    """As a server binds its port, linger there connections of the one before or not."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError:
        made.close()
        raise
    return made


@pytest.fixture
def kept() -> Iterator[SharedPort]:
    with SharedPort.keeping(bound()) as made:
        yield made


def handed_over(port: SharedPort) -> SharedPort:
    """What another process gets."""
    own: SharedPort = pickle.loads(pickle.dumps(port))
    return own


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted; they are closed."""
    listener.setblocking(False)
    found = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return found
        found += 1


def test_connections_are_shared_out_and_none_goes_to_who_does_not_listen_any_more(kept: SharedPort) -> None:
    with handed_over(kept) as first, handed_over(kept) as second, ExitStack() as callers:
        first.listen(1000)
        second.listen(1000)
        for _ in range(200):
            callers.enter_context(socket.create_connection((HOST, kept.getsockname()[1])))
        shares = waiting(first), waiting(second)
        assert sum(shares) == 200
        assert min(shares) > 40  # ten standard deviations below 100 lies 29
        second.close()
        for _ in range(20):
            callers.enter_context(socket.create_connection((HOST, kept.getsockname()[1])))
        assert waiting(first) == 20


def test_nobody_else_can_bind_a_port_that_is_kept_not_even_before_anybody_listens(kept: SharedPort) -> None:
    port = kept.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bound(port)
    with handed_over(kept) as own:
        own.listen()
        with pytest.raises(OSError, match="in use"):
            bound(port)


def test_a_port_can_be_kept_again_while_connections_of_before_linger() -> None:
    with SharedPort.keeping(bound()) as first, handed_over(first) as own:
        port = first.getsockname()[1]
        own.listen()
        with socket.create_connection((HOST, port)):
            own.accept()[0].close()  # the server closes first, so that its side lingers
    with SharedPort.keeping(bound(port)) as again, handed_over(again) as own:
        own.listen()
        socket.create_connection((HOST, port)).close()


def test_a_port_that_somebody_else_has_is_not_taken() -> None:
    with closing(bound()) as other:
        other.listen()
        with pytest.raises(OSError, match="in use"):
            SharedPort.beside(socket.AF_INET, HOST, other.getsockname()[1])


def test_workers_listen_each_by_itself_and_the_others_answer_when_one_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        eventually(lambda: len(listeners(server)) == 2)  # each its own
        second = command(tmp_path / "other", "serve", "--port", str(server.port))
        assert second.returncode != 0
        assert "cannot listen on" in second.stderr
        lost = min(listeners(server).values())
        os.kill(lost, signal.SIGKILL)
        eventually(lambda: lost not in listeners(server).values())
        eventually(lambda: answers(server))
        eventually(lambda: len(listeners(server)) == 2)  # there is another in its place
        eventually(lambda: answers(server))


def answers(server: Server) -> bool:
    """Whether it answers again and again, each time on a connection of its own."""
    try:
        return all(httpx.get(server.url + "/healthz", timeout=PATIENCE_S).status_code == 200 for _ in range(8))
    except httpx.TransportError:  # it was being killed, or is only just there
        return False


def listeners(server: Server) -> dict[str, int]:
    """The sockets that listen on the port of a server, and which of its processes has each."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[9] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == server.port}
    pid = server.process.pid
    found: dict[str, int] = {}
    for process in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        with suppress(OSError):  # it has ended
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    inode = descriptor.readlink().name.removeprefix("socket:[").removesuffix("]")
                    if inode in listening:
                        found[inode] = process
    return found
