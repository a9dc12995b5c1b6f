"""One port for several processes, each with a listening socket of its own.

Where processes accept from one socket, whoever wakes first takes all that wait: of a thousand connections that come at
once one of two processes was seen to take 831, and its callers waited the longer. Among sockets of their own the kernel
shares connections out by a hash of their addresses, and leaves out a process that has ended (SO_REUSEPORT in
socket(7)).
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Final, Self

CAN_SHARE: Final = sys.platform == "linux"
"""Elsewhere such sockets are there, too, but connections are not spread over them."""


class SharedPort(socket.socket):
    """A socket that is bound to a port; handed to another process, it becomes one of its own on the same port.

    The one that was bound first never listens: it keeps the port for those of this user who know of it. Whoever else
    would listen there is told that the address is in use, as by any server.
    """

    @classmethod
    def keeping(cls, bound: socket.socket) -> Self:
        """Keep the port that a socket is bound to, and take the place of that socket.

        Args:
            bound: To an IP address and a port, and not listening.
        """
        kept = cls(bound.family, bound.type, bound.proto, fileno=bound.detach())
        # To be bound beside connections that linger takes the first; from now on it would let in anybody who has it.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return kept

    @classmethod
    def beside(cls, family: int, host: str, port: int) -> Self:
        """Another socket on a port that is kept.

        Raises:
            OSError: It is not kept, and somebody else has it.
        """
        own = cls(family, socket.SOCK_STREAM)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            own.bind((host, port))
        except OSError:
            own.close()
            raise
        return own

    def __reduce__(self) -> tuple[Any, ...]:
        """What makes one of its own in another process."""
        host, port = self.getsockname()[:2]
        return SharedPort.beside, (int(self.family), host, port)
