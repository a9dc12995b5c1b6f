"""A head that was parsed before is known again, and nothing else is taken for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.api_keys import KeyTable
from monkey_coder.app.access import OPEN
from monkey_coder.app.known_head import KnownHead

KEYS = KeyTable.of([])
NAMES = st.sampled_from(["host", "user-agent", "accept", "x-content-length", "authorization"])
LINES = st.lists(st.tuples(NAMES, st.text("abc:; 0123456789", max_size=12)), max_size=4)


def message(body: bytes, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> bytes:
    lines = [*before, ("Content-Length", str(len(body))), *after]
    head = ["POST /v1/quantum/route HTTP/1.1", *(f"{name}: {value}" for name, value in lines), "", ""]
    return "\r\n".join(head).encode() + body


@given(st.lists(st.binary(max_size=300), min_size=2, max_size=4), LINES, LINES)
def test_another_body_behind_the_same_head_is_read(bodies: list[bytes], before: list, after: list) -> None:
    for first, second in pairwise(bodies):
        known = KnownHead.of(message(first, before, after), OPEN, KEYS)
        assert known is not None
        assert known.body(message(second, before, after)) == second


@given(st.binary(max_size=60), LINES, st.data())
def test_what_is_cut_off_goes_on_or_differs_is_not_taken_for_it(body: bytes, lines: list, data: st.DataObject) -> None:
    whole = message(body, lines, [])
    known = KnownHead.of(whole, OPEN, KEYS)
    assert known is not None
    assert known.body(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert known.body(whole + b"P") is None
    head = len(whole) - len(body)
    place = data.draw(st.integers(0, head - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(whole)
    changed[place] ^= other
    assert known.body(bytes(changed)) is None


@pytest.mark.parametrize(
    "whole",
    [
        b"POST / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    ],
)
def test_a_message_that_does_not_plainly_say_how_long_it_is_teaches_nothing(whole: bytes) -> None:
    assert KnownHead.of(whole, OPEN, KEYS) is None
