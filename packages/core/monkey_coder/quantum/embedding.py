"""Static prompt embeddings: token vectors averaged, nothing downloaded, the same in every process.

The vectors and the tokenizer are those of WordLlama (256 dimensions, MIT licence), read from the installed
package's own files: its Python code would import a hub client and convert at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.text_pieces import PieceEncoder

HEAD_CHARS = 2048
TAIL_CHARS = 1024
"""Of a longer text only the head and the tail are read: that bounds the time, and tasks state their point there."""

_LEAST_LENGTH = np.finfo(np.float32).tiny


def head_and_tail(text: str) -> str:
    """Bound a text to its first `HEAD_CHARS` and last `TAIL_CHARS` characters."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]


def read_tokenizer() -> Tokenizer:
    """Read the tokenizer that the `wordllama` package ships: Llama 2's byte pairs, nothing padded or cut off."""
    tokenizer = Tokenizer.from_file(str(_package() / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _package() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ImportError("the package wordllama is missing: install the project's dependencies")
    return Path(spec.origin).parent


class StaticEmbedder:
    """Mean of static token vectors, scaled to unit length.

    Args:
        vectors: (vocabulary, dimensions) token vectors.
        tokenizer: Maps text to rows of `vectors`; `text_pieces` says what holds of its vocabulary.
    """

    def __init__(self, vectors: FloatArray, tokenizer: Tokenizer) -> None:
        self._vectors = vectors
        self._encoder = PieceEncoder(tokenizer)
        self.dimensions = vectors.shape[1]

    @classmethod
    def load(cls) -> StaticEmbedder:
        """Read the weights that the `wordllama` package ships."""
        weights = load_file(_package() / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        return cls(np.ascontiguousarray(weights, dtype=np.float32), read_tokenizer())

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, reading only the head and tail of long ones.

        Args:
            texts: Any Unicode text.

        Returns:
            (len(texts), dimensions) unit vectors; all zero for a text without tokens.
        """
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            # A matrix product would be no quicker: the time goes into fetching the rows.
            tokens = self._encoder.encode(head_and_tail(text))
            np.add.reduce(self._vectors.take(tokens, axis=0), axis=0, out=out[row])
        length = np.sqrt(np.einsum("bd,bd->b", out, out))[:, None]
        out /= np.maximum(length, _LEAST_LENGTH)
        return out
