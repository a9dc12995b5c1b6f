"""Asks a Redis server in the thread that wants to know.

To hand a question to another thread and the answer back takes several times as long as the server does, whenever the
interpreter is busy.

Nobody waits longer than they say, not even for the second half of an answer. The socket is left blocking, and the
operating system ends a wait: Python's own time-outs give the interpreter away twice as often.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ssl import SSLWantReadError, SSLWantWriteError
from struct import Struct
from typing import Any, Final, Protocol

import hiredis

from monkey_coder.ports import Clock

LEAST_S: Final = 1e-4
"""A shorter time-out would be none: to the operating system zero means for ever."""

_TIMEVAL: Final = Struct("@ll")
_READ_BYTES: Final = 65_536
_TOO_LATE: Final = (BlockingIOError, TimeoutError, SSLWantReadError, SSLWantWriteError)


class AnswerLateError(Exception):
    """No whole answer came in time."""


class Connection(Protocol):
    """What is needed of a connection of the client library, which knows how to greet a server."""

    def connect(self) -> None:
        """Connect and greet."""
        ...

    def disconnect(self) -> None:
        """Close."""
        ...

    def pack_command(self, *args: bytes) -> Sequence[bytes]:
        """The bytes of a command."""
        ...


class DirectLine:
    """One connection, for one thread at a time.

    Args:
        connection: Not connected yet; that is done here, and may wait and raise.
        clock: Monotonic seconds.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        connection.connect()
        self._socket: socket.socket = connection._sock  # type: ignore[attr-defined]  # no other way to it
        self._socket.settimeout(None)
        self._reader = hiredis.Reader()
        self._cut_off = False

    def ask(self, due: float, *command: bytes) -> Any:  # noqa: ANN401 - whatever the server says
        """Ask, and wait for the answer.

        Args:
            due: Until when, by the clock.
            command: Name and arguments.

        Raises:
            AnswerLateError: It did not come in time; `answer` takes it when it comes.
            OSError: The connection is of no use any more.
            hiredis.HiredisError: The server refused, or does not speak the protocol; the same holds.
        """
        self._cut_off = True
        self._bound(socket.SO_SNDTIMEO, due)
        try:
            self._socket.sendall(b"".join(self._connection.pack_command(*command)))
        except _TOO_LATE as error:
            raise AnswerLateError from error
        self._cut_off = False
        return self.answer(due)

    def answer(self, due: float) -> Any:  # noqa: ANN401 - whatever the server says
        """Wait for the answer to what was asked last; arguments and errors as of `ask`."""
        if self._cut_off:
            raise ConnectionAbortedError("what was asked could not be sent")
        reader = self._reader
        while (reply := reader.gets()) is False:
            self._bound(socket.SO_RCVTIMEO, due)
            try:
                received = self._socket.recv(_READ_BYTES)
            except _TOO_LATE as error:
                raise AnswerLateError from error
            if not received:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(received)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _bound(self, option: int, due: float) -> None:
        left_s = due - self._clock()
        if left_s <= 0.0:
            raise AnswerLateError
        left_us = int(max(left_s, LEAST_S) * 1e6)
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(*divmod(left_us, 1_000_000)))


class DirectLines:
    """Keeps one connection ready. Safe to use from any thread.

    Args:
        make: Makes a connection of the client library.
        clock: Monotonic seconds.
    """

    def __init__(self, make: Callable[[], Connection], clock: Clock) -> None:
        self._make, self._clock = make, clock
        self._ready: DirectLine | None = None
        self._out = 0
        self._lock = threading.Lock()

    def take(self) -> DirectLine | None:
        """A connection for the caller alone, to be given back or dropped; None: there is none at the moment."""
        with self._lock:
            line, self._ready = self._ready, None
            self._out += line is not None
            return line

    def give_back(self, line: DirectLine) -> None:
        """Keep a connection ready whose answers have all been read."""
        with self._lock:
            self._out -= 1
            self._ready, surplus = line, self._ready
        if surplus is not None:
            surplus.close()

    def drop(self, line: DirectLine) -> None:
        """Close a connection that is of no use any more."""
        with self._lock:
            self._out -= 1
        with suppress(Exception):  # of the client library; the server may be gone
            line.close()

    def recover(self, line: DirectLine, within_s: float) -> None:
        """Wait for an answer that is late, so that the connection can be given back.

        Raises:
            Exception: It does not come, and the connection is dropped.
        """
        try:
            line.answer(self._clock() + within_s)
        except BaseException:
            self.drop(line)
            raise
        self.give_back(line)

    def prepare(self) -> None:
        """Connect where there is no connection; may wait, and raise what the client library does."""
        with self._lock:
            if self._ready is not None or self._out:
                return
            self._out += 1
        try:
            line = DirectLine(self._make(), self._clock)
        except BaseException:
            with self._lock:
                self._out -= 1
            raise
        self.give_back(line)

    def close(self) -> None:
        """Close what is ready."""
        line = self.take()
        if line is not None:
            self.drop(line)
