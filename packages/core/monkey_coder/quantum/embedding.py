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

HEAD_CHARS = 2048
TAIL_CHARS = 1024
"""Of a longer text only the head and the tail are read: that bounds the time, and tasks state their point there."""


def head_and_tail(text: str) -> str:
    """Bound a text to its first `HEAD_CHARS` and last `TAIL_CHARS` characters."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]


class StaticEmbedder:
    """Mean of static token vectors, scaled to unit length.

    Args:
        vectors: (vocabulary, dimensions) token vectors.
        tokenizer: Maps text to rows of `vectors`.
    """

    def __init__(self, vectors: FloatArray, tokenizer: Tokenizer) -> None:
        self._vectors = vectors
        self._tokenizer = tokenizer
        self.dimensions = vectors.shape[1]

    @classmethod
    def load(cls) -> StaticEmbedder:
        """Read the weights that the `wordllama` package ships."""
        spec = find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise ImportError("the package wordllama is missing: install the project's dependencies")
        root = Path(spec.origin).parent
        tokenizer = Tokenizer.from_file(str(root / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights = load_file(root / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        return cls(np.ascontiguousarray(weights, dtype=np.float32), tokenizer)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, reading only the head and tail of long ones.

        Args:
            texts: Any Unicode text.

        Returns:
            (len(texts), dimensions) unit vectors; all zero for a text without tokens.
        """
        encodings = self._tokenizer.encode_batch_fast([head_and_tail(text) for text in texts], add_special_tokens=False)
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for row, encoding in enumerate(encodings):
            # A matrix product would be no quicker: the time goes into fetching the rows.
            self._vectors.take(encoding.ids, axis=0).sum(axis=0, out=out[row])
        length = np.sqrt(np.einsum("bd,bd->b", out, out))[:, None]
        np.divide(out, length, out=out, where=length > 0)
        return out
