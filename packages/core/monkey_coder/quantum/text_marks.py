"""Cheap marks of a text that its embedding does not hold: how long it is, which characters and telling words, its end.

In order (`MARKS` of them): log(1 + n) of the bytes of each class of `BYTE_CLASSES`; their shares of all bytes; whether
each of `WORDS` is in the first `WORD_CHARS` characters; log(1 + characters); log(words); bytes per word / 8, at most
`MOST_WORD`; whether a question mark is in the last `END_CHARS` characters; whether the text ends with a full stop or
colon.

All but the number of characters is read from the head and tail of a long text (`embedding.head_and_tail`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.embedding import head_and_tail

BYTE_CLASSES: Final[tuple[bytes, ...]] = (
    b"0123456789",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"abcdefghijklmnopqrstuvwxyz",
    b"\n",
    b"()[]{}",
    b"=<>+-*/^%$",
    b"?!",
    b"\"'`_#:;\\|",
    bytes(range(128, 256)),
)
"""Classes of bytes of the UTF-8 text that are counted."""

WORDS: Final[tuple[str, ...]] = (
    *("```", "def ", "class ", "import ", "traceback", "error", "assert", "return", ">>>"),
    *("what", "which", "who", "how", "why", "how many"),
    *("find ", "write ", "implement", "fix", "function", "not ", "except", "\na", "http", "if ", "each", "option"),
    *("prove", "given"),
)
"""Lower-case pieces of text that are looked for."""

WORD_CHARS: Final = 1500
END_CHARS: Final = 60
MOST_WORD: Final = 8.0

MARKS: Final = 2 * len(BYTE_CLASSES) + len(WORDS) + 5
"""How many marks there are."""

_MEMBERSHIP: Final = np.array([[byte in members for members in BYTE_CLASSES] for byte in range(256)], np.float32)


def text_marks(texts: Sequence[str]) -> FloatArray:
    """Mark texts.

    Args:
        texts: Any Unicode text.

    Returns:
        (len(texts), MARKS) float32, finite; each row depends on its own text alone.
    """
    out = np.empty((len(texts), MARKS), np.float32)
    if not texts:
        return out
    windows = [head_and_tail(text) for text in texts]
    encoded = [window.encode("utf-8", "replace") for window in windows]
    lengths = np.array([len(data) for data in encoded])
    classes = len(BYTE_CLASSES)
    counts = _byte_counts(encoded, lengths) @ _MEMBERSHIP
    np.log1p(counts, out=out[:, :classes])
    np.divide(counts, lengths[:, None] + 1.0, out=out[:, classes : 2 * classes])
    lowered = [window[:WORD_CHARS].lower() for window in windows]
    out[:, 2 * classes : -5] = [[word in text for word in WORDS] for text in lowered]
    words = np.array([window.count(" ") + 1 for window in windows])
    out[:, -5] = np.log1p([len(text) for text in texts])
    out[:, -4] = np.log(words)
    out[:, -3] = np.minimum((lengths + 1.0) / words / 8.0, MOST_WORD)
    out[:, -2] = ["?" in text[-END_CHARS:] for text in texts]
    out[:, -1] = [text.endswith((".", ":")) for text in texts]
    return out


def _byte_counts(encoded: Sequence[bytes], lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """(B, 256) how often each byte is in each text."""
    rows = np.repeat(np.arange(len(encoded)) * 256, lengths)
    placed = rows + np.frombuffer(b"".join(encoded), np.uint8)
    return np.bincount(placed, minlength=256 * len(encoded)).reshape(-1, 256).astype(np.float32)
