"""Several files as one value with a checksum, so that a policy can travel through a store: never pickle.

Eight bytes that say what it is, the SHA-256 of the rest, and a safetensors file in which each file is an array of
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from monkey_coder.errors import PolicyError

_MAGIC: Final = b"MCPOLICY"
_DIGEST: Final = sha256().digest_size


def pack(files: Mapping[str, bytes]) -> bytes:
    """Put files into one blob; the same files give the same bytes.

    Args:
        files: Contents by plain name, without a folder.

    Raises:
        ValueError: A name is none, or names a folder.
    """
    for name in files:
        if not _plain(name):
            raise ValueError(f"{name!r} is no plain file name")
    content = save({name: np.frombuffer(files[name], np.uint8) for name in sorted(files)})
    return _MAGIC + sha256(content).digest() + content


def unpack(blob: bytes, called: str) -> dict[str, bytes]:
    """Take out what `pack` put in.

    Args:
        blob: The bytes.
        called: What error messages call it.

    Raises:
        PolicyError: The bytes are damaged or foreign.
    """
    if not blob.startswith(_MAGIC):
        raise PolicyError(f"{called} is no policy of ours: choose another policy, or retrain")
    content = blob[len(_MAGIC) + _DIGEST :]
    if sha256(content).digest() != blob[len(_MAGIC) : len(_MAGIC) + _DIGEST]:
        raise PolicyError(f"{called} is damaged: its checksum does not fit; choose another policy, or retrain")
    try:
        files = {name: array.tobytes() for name, array in load(content).items()}
    except SafetensorError as error:
        raise PolicyError(f"{called} cannot be read ({error}): choose another policy, or retrain") from error
    if not all(map(_plain, files)):
        raise PolicyError(f"{called} holds names with folders in them, and is not used: retrain")
    return files


def _plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not any(sign in name for sign in "/\\\0")
