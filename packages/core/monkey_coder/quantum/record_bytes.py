"""The bytes of a logged decision, put together and opened again.

They hold no prompt, and of what an answer tells nothing that follows from the arrays. They begin with a fixed prefix
(magic, version, checksum, two lengths). Then come what many decisions have in common (compressed JSON), what is this
one's own (JSON), and two arrays laid out by `Layout`: float32 and bytes, little-endian.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from monkey_coder.errors import StoreFormatError
from monkey_coder.ports import FloatArray
from monkey_coder.quantum.record_layout import Layout

VERSION: Final = 2
"""Of the bytes; raised whenever older code would misread them, a change in the order of `gates.REASONS` included."""

_MAGIC: Final = b"QDR"
_PREFIX: Final = Struct("<3sBIII")
FOLLOWS: Final = ("expected", "alternatives", "thread_results")
"""What of an answer is said again from the arrays, where there are any."""
OWN: Final = (
    "said",
    "alternatives",
    "threads",
    "made_at",
    "preferences",
    "task",
    "attempts_left",
    "input_tokens",
    "output_tokens",
    "budget_usd",
    "last",
    "stays",
    "same_as",
)
"""What is each decision's own: what its answer says, how many alternatives it tells of, each strategy's name, status
and milliseconds, then as in `DecisionRecord`; preferences as their values, no budget as null."""


@dataclass(frozen=True)
class Common:
    """What many decisions have in common: as in `DecisionRecord`, and names of what their answers say each for itself.

    Attributes:
        shared: JSON object of what answers from the cache have in common with the first one.
    """

    refs: tuple[str, ...]
    strategies: tuple[str, ...]
    layout: Layout
    dimensions: int
    encoding_version: int
    said: tuple[str, ...]
    shared: bytes = b"{}"


class Packed(NamedTuple):
    """What many decisions have in common, as bytes with their checksum."""

    compressed: bytes
    checksum: int


def pack(common: Packed, own: Sequence[object], arrays: bytes) -> bytes:
    """Put a decision's bytes together.

    Args:
        common: From `common_bytes`.
        own: The values of `OWN`.
        arrays: Both, as `Layout` has it.
    """
    header, compressed = orjson.dumps(own), common.compressed
    checksum = zlib.crc32(arrays, zlib.crc32(header, common.checksum))
    prefix = _PREFIX.pack(_MAGIC, VERSION, checksum, len(compressed), len(header))
    return b"".join((prefix, compressed, header, arrays))


@lru_cache(maxsize=64)
def common_bytes(common: Common) -> Packed:
    """What many decisions have in common, for `pack`."""
    return _packed(common, level=9)


def repeated_bytes(common: Common) -> Packed:
    """The same for answers from the cache, of which there are many kinds: in a third of the time, and not kept."""
    return _packed(common, level=3)


def _packed(common: Common, level: int) -> Packed:
    layout = common.layout
    told = (common.refs, common.strategies, layout.state, layout.extra, common.dimensions, common.encoding_version)
    compressed = zlib.compress(orjson.dumps((*told, common.said, orjson.Fragment(common.shared))), level=level)
    return Packed(compressed, zlib.crc32(compressed))


@dataclass(slots=True)
class OpenRecord:
    """A logged decision as it was written, for those who need little of many.

    Attributes:
        common: What it has in common with others.
        own: What `OWN` names, by name.
        numbers: float32, by `common.layout`.
        marks: uint8, by the same.
    """

    common: Common
    own: dict[str, Any]
    numbers: FloatArray
    marks: NDArray[np.uint8]

    @property
    def answer(self) -> dict[str, Any]:
        """What its answer says, without what follows from the arrays."""
        said: dict[str, Any] = dict(zip(self.common.said, self.own["said"], strict=True))
        shared: dict[str, Any] = orjson.loads(self.common.shared)
        return shared | said

    @property
    def embedding(self) -> FloatArray:
        """(D,) of the prompt; empty without arrays."""
        return self.numbers[self.common.layout.numbers["state"]][: self.common.dimensions]

    @property
    def choices(self) -> dict[str, str | None]:
        """What each strategy put first; None where it did not vote. Empty without arrays."""
        common, places = self.common, self.common.layout.marks
        first, voting = self.marks[places["first"]].view("<u2").tolist(), self.marks[places["voting"]].tolist()
        return {
            name: common.refs[column] if voted else None
            for name, column, voted in zip(common.strategies, first, voting, strict=True)
        }


def open_record(payload: bytes) -> OpenRecord:
    """Open what `pack` put together.

    Raises:
        StoreFormatError: The bytes are damaged, foreign, or of another version; the message says which.
    """
    if len(payload) < _PREFIX.size or not payload.startswith(_MAGIC):
        raise StoreFormatError("a logged decision does not begin as one; something else wrote to the decision log")
    _, version, checksum, common_bytes, own_bytes = _PREFIX.unpack_from(payload)
    if version != VERSION:
        raise StoreFormatError(
            f"a logged decision has version {version}, this program reads version {VERSION}; "
            "use the release that wrote it, or let the log age out"
        )
    body = memoryview(payload)[_PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise StoreFormatError("a logged decision is damaged: its checksum does not fit; restore the store's backup")
    try:
        return _opened(body, common_bytes, common_bytes + own_bytes)
    except (orjson.JSONDecodeError, zlib.error, TypeError, ValueError) as error:
        raise StoreFormatError(f"a logged decision cannot be read: {error}") from error


def _opened(body: memoryview, common_end: int, own_end: int) -> OpenRecord:
    common = _common(bytes(body[:common_end]))
    own = dict(zip(OWN, orjson.loads(body[common_end:own_end]), strict=True))
    floats, marks = common.layout.sizes
    if len(body) != own_end + 4 * floats + marks:
        raise ValueError("its arrays have another size than its header says")
    numbers = np.frombuffer(body, "<f4", floats, own_end)
    return OpenRecord(common, own, numbers, np.frombuffer(body, np.uint8, marks, own_end + 4 * floats))


@lru_cache(maxsize=64)
def _common(compressed: bytes) -> Common:
    told = orjson.loads(zlib.decompress(compressed))
    refs, strategies, state, extra, dimensions, encoding_version, said, *shared = told  # older rows share nothing
    layout = Layout(len(refs), len(strategies), state, tuple(extra))
    named = tuple(refs), tuple(strategies), layout, dimensions, encoding_version, tuple(said)
    return Common(*named, orjson.dumps(shared[0] if shared else {}))
