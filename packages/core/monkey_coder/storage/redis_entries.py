"""How values are written into Redis and read back; the scripts that write entries say what they hold."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from monkey_coder.storage.port import Document, OutcomeRow, StreamedOutcome

_HEAD: Final = struct.Struct(">qd")  # version, time


def pack_document(version: int, time_s: float, value: bytes) -> bytes:
    """Write a version as one string."""
    return _HEAD.pack(version, time_s) + value


def unpack_document(packed: bytes) -> Document:
    """Read what `pack_document` wrote."""
    version, time_s = _HEAD.unpack_from(packed)
    return Document(version, time_s, packed[_HEAD.size :])


def read_entry(position: bytes, content: Mapping[bytes, bytes] | Sequence[bytes]) -> StreamedOutcome:
    """Read an entry of the outcome stream, with its content as the client gives it or as a script does."""
    fields = content if isinstance(content, Mapping) else dict(zip(content[::2], content[1::2], strict=True))
    identity, decision, model = (fields[name].decode() for name in (b"i", b"d", b"m"))
    outcome_id = identity[1:] if identity.startswith("o") else None
    row = OutcomeRow(decision, model, float(fields[b"t"]), fields[b"p"], outcome_id)
    replaces = OutcomeRow(decision, model, float(fields[b"rt"]), fields[b"rp"]) if b"rt" in fields else None
    return StreamedOutcome(position.decode(), row, replaces)
