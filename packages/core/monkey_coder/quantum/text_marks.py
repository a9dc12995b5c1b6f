"""Cheap marks of a text that its embedding does not hold: how long it is, which characters and telling words, its end.

In order (`MARKS` of them): log(1 + n) of the bytes of each class of `BYTE_CLASSES`; their shares of all bytes; whether
each of `WORDS` is in the first `WORD_CHARS` characters; log(1 + characters); log(words); bytes per word / 8, at most
`MOST_WORD`; whether a question mark is in the last `END_CHARS` characters; whether the text ends with a full stop or
colon.

All but the number of characters is read from the head and tail of a long text (`embedding.head_and_tail`).
"""

from __future__ import annotations

import math
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

_CLASS: Final = bytes([next((c for c, of in enumerate(BYTE_CLASSES) if byte in of), 255) for byte in range(256)])
_EACH_CLASS: Final = tuple(bytes([number]) for number in range(len(BYTE_CLASSES)))


def text_marks(texts: Sequence[str]) -> FloatArray:
    """Mark texts.

    Args:
        texts: Any Unicode text.

    Returns:
        (len(texts), MARKS) float32, finite; each row depends on its own text alone.
    """
    out = np.zeros((len(texts), MARKS), np.float32)
    if not texts:
        return out
    windows = [head_and_tail(text) for text in texts]
    read = np.array([_numbers(text, window) for text, window in zip(texts, windows, strict=True)], np.float64)
    size, counts, classes = read[:, :1], read[:, 1:-5], len(BYTE_CLASSES)
    out[:, :classes] = np.log1p(counts.astype(np.float32))
    out[:, classes : 2 * classes] = counts / size
    out[:, -5:] = read[:, -5:]
    lowered = [window[:WORD_CHARS].lower() for window in windows]
    together = "\0".join(lowered)
    for column, word in enumerate(WORDS, start=2 * classes):
        if word in together:  # most are in none
            out[:, column] = [word in text for text in lowered]
    return out


def _numbers(text: str, window: str) -> tuple[float, ...]:
    """How many bytes the window has and one more, how many of each class, and the last five marks."""
    data = window.encode("utf-8", "replace")
    size, words = len(data) + 1.0, window.count(" ") + 1
    return (
        size,
        *map(data.translate(_CLASS).count, _EACH_CLASS),
        math.log1p(len(text)),
        math.log(words),
        min(size / words / 8.0, MOST_WORD),
        "?" in text[-END_CHARS:],
        text.endswith((".", ":")),
    )
