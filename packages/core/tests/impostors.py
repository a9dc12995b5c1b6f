"""Things on a port that are no Redis, though they may begin like one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from servers import PATIENCE_S


@contextmanager
def impostor(says: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that says this to each connection; returns its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    says(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(PATIENCE_S)


def half(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"*1\r\n$100\r\nhalf of wha")


def noise(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def drip(connection: socket.socket) -> None:
    connection.recv(4096)
    with suppress(OSError):  # whoever listened may have gone
        for byte in b"*1\r\n$1000\r\n" + b"x" * 40:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
