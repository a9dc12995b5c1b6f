"""Files that travel as one value: what comes out is what went in, or nothing."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.policy_blob import pack, unpack

NAMES = st.text(st.characters(exclude_characters="/\\\0", codec="utf-8"), min_size=1).filter(
    lambda name: name not in (".", "..", "__metadata__")
)
FILES = st.dictionaries(NAMES, st.binary(max_size=200), max_size=5)


@given(FILES)
def test_what_was_packed_is_unpacked(files: dict[str, bytes]) -> None:
    assert unpack(pack(files), "it") == files
    assert pack(dict(reversed(files.items()))) == pack(files)


@given(FILES, st.data())
def test_a_damaged_or_cut_blob_is_refused(files: dict[str, bytes], data: st.DataObject) -> None:
    blob = pack(files)
    place = data.draw(st.integers(0, len(blob) - 1))
    damaged = bytearray(blob)
    damaged[place] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(damaged), blob[:place]):
        with pytest.raises(PolicyError, match=r"^policy 7 "):
            unpack(bad, "policy 7")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "a\0b"])
def test_a_name_that_leads_elsewhere_is_not_packed(name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        pack({name: b""})


def test_a_name_that_leads_elsewhere_is_not_unpacked() -> None:
    blob = pack({"aaa": b"1"})
    content = blob[40:].replace(b"aaa", b"../")
    from hashlib import sha256

    with pytest.raises(PolicyError, match="folders"):
        unpack(blob[:8] + sha256(content).digest() + content, "policy 1")


@pytest.mark.parametrize("foreign", [b"", b"MCPOLICY", pickle.dumps({"a": b"b"}), save({})])
def test_what_is_none_of_ours_is_refused(foreign: bytes) -> None:
    with pytest.raises(PolicyError):
        unpack(foreign, "policy 1")
