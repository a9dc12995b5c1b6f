"""The tokens of a text, piece by piece: what the tokenizer says of the whole text, several times quicker.

Byte pair encoding merges neighbours only into tokens of its vocabulary, so it never merges across a place that no
token spans. A text may be cut there, and what a piece is encoded to depends on the piece alone. In the vocabulary
that is read here (`embedding`), spaces stand at most before the rest of a token, an ASCII digit, tab or line break
stands alone, and no token joins ASCII letters with another ASCII character.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import Model

MOST_REMEMBERED: Final = 32_768
"""Pieces whose tokens are remembered, in 10 MB at most; beyond that, remembering starts afresh."""
MOST_CHARS: Final = 24
"""Longer pieces are not remembered."""

_UNSPACED: Final = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\uabff\uf900-\ufaff\uff00-\uffef\U00010000-\U0010ffff]"
).search
"""Finds what is written without spaces between words (Thai, Khmer, Burmese, Chinese, Japanese), and what is rare: there
a piece may be a whole sentence, and is not remembered."""

_SPACE: Final = "\u2581"  # stands for a space in the vocabulary
_ASCII_PIECES = re.compile(r" *(?:[A-Za-z]+|[^A-Za-z0-9 \n\t]+)|[0-9\n\t]| +").findall
_PIECES = re.compile(r" *[^0-9 \n\t]+|[0-9\n\t]| +").findall


def pieces(text: str) -> list[str]:
    """Cut a text where no token of the vocabulary reaches across; joined, the pieces are the text."""
    return _ASCII_PIECES(text) if text.isascii() else _PIECES(text)


class PieceEncoder:
    """Encodes texts as the tokenizer would, and remembers the tokens of common pieces.

    What is remembered are single short words and runs of punctuation, without digits, each once, of all texts together;
    of scripts that have no spaces, where a piece may be a whole sentence, nothing is.

    Args:
        tokenizer: Puts a space before a text, takes spaces for U+2581, and encodes byte pairs; of its vocabulary holds
            what is said above.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = tuple(token.content for token in tokenizer.get_added_tokens_decoder().values())
        self._tokens = _Remembered(tokenizer.model)

    def encode(self, text: str) -> NDArray[np.intp]:
        """Tokens of any Unicode text, in order; none of an empty one."""
        if not text or any(map(text.__contains__, self._special)):
            return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.intp)
        found = pieces(" " + text.replace(_SPACE, " "))
        return np.frombuffer(b"".join(map(self._tokens.__getitem__, found)), np.intp)


class _Remembered(dict[str, bytes]):
    """Tokens of pieces, as the bytes of an array; those of an unknown piece are asked of the model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, piece: str) -> bytes:
        tokens = np.array([token.id for token in self._model.tokenize(piece.replace(" ", _SPACE))], np.intp).tobytes()
        if len(piece) <= MOST_CHARS and _UNSPACED(piece) is None:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[piece] = tokens
        return tokens
