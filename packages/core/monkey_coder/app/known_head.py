"""The head of a request that was parsed before: who sends the same bytes again means the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from monkey_coder.api_keys import Caller, KeyTable

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})(?=\r\n)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"
_MOST_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class KnownHead:
    """What came before the body, but for the number of the body's bytes.

    Attributes:
        before: The bytes before that number.
        after: Those behind it, to the end of the head.
        caller: Who was admitted with it.
        table: By these keys.
    """

    before: bytes
    after: bytes
    caller: Caller
    table: KeyTable

    @classmethod
    def of(cls, message: bytes, caller: Caller, table: KeyTable) -> Self | None:
        """The head of one whole message; None where the message does not plainly say how long its body is.

        Args:
            message: From the first byte of the request line to the last one of the body; the parser was content.
            caller: Who was admitted.
            table: By these keys.
        """
        head, end, body = message.partition(_END)
        lengths = [*_LENGTH.finditer(head + b"\r\n")]
        if not end or len(lengths) != 1 or b"transfer-encoding" in head.lower():
            return None
        start, stop = lengths[0].span(1)
        return cls(head[:start], head[stop:] + end, caller, table) if int(head[start:stop]) == len(body) else None

    def body(self, message: bytes) -> bytes | None:
        """The body of a message that has this head and is whole, and nothing more; else None."""
        start = len(self.before)
        if not message.startswith(self.before):
            return None
        stop = message.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = message[start:stop]
        if stop < 0 or not digits.isdigit() or not message.startswith(self.after, stop):
            return None
        body = message[stop + len(self.after) :]
        return body if len(body) == int(digits) else None
