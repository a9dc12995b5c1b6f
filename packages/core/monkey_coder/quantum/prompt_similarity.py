"""Tells whether two prompts of one class of request are so alike that a decision for one is a decision for the other.

Two tests must agree. The **likeness** of a prompt is a keyed digest of its wording (`prompt_wording`): equal likenesses
mean equal numbers, negations, identifiers, paths, quoted strings, languages and order, so that a candidate is found by
one look-up, in this process or in Redis. Then the **cosine** of the static embeddings must reach a calibrated
threshold, and the lengths must be comparable; that catches what a wording leaves out too generously.

Neither holds text. The digest is BLAKE2b keyed with a secret of the deployment, so that who reads the cache cannot try
guessed prompts; the embedding is kept in 8 bits a dimension, and is as sensitive as the decision log's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np

from monkey_coder.ports import BoolArray, FloatArray
from monkey_coder.quantum.prompt_wording import wording

LIKENESS_BYTES: Final = 16
WORDING_VERSION: Final = 1
"""Part of every digest; raised whenever `prompt_wording` or `local_names` change."""
_PERSON: Final = b"likeness %d" % WORDING_VERSION


@dataclass(frozen=True, slots=True)
class SimilarityOptions:
    """When prompts are near-identical.

    Attributes:
        threshold: Lowest cosine of the two embeddings, 0 to 1; the default is calibrated (docs/results/cache.md).
        length_ratio: Shorter length / longer length, at least.
    """

    threshold: float = 0.76
    length_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            ValueError: A bound lies outside 0..1.
        """
        for name in ("threshold", "length_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, is {getattr(self, name)}")


class PromptSimilarity:
    """Digests prompts with one secret, and compares embeddings.

    Args:
        secret: Shared by all processes that share a cache; at most 64 bytes.
        options: When prompts are near-identical.
    """

    def __init__(self, secret: bytes, options: SimilarityOptions | None = None) -> None:
        self._keyed = blake2b(digest_size=LIKENESS_BYTES, key=secret, person=_PERSON)
        self.options = options or SimilarityOptions()

    def likeness(self, prompt: str) -> bytes | None:
        """Digest a prompt's wording: 16 bytes, or None for a prompt that is too long to be compared."""
        words = wording(prompt)
        if words is None:
            return None
        digest = self._keyed.copy()
        digest.update(words.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def agree(
        self,
        embeddings: FloatArray,
        vectors: Sequence[bytes],
        chars: Sequence[int],
        stored_chars: Sequence[int],
    ) -> BoolArray:
        """Check candidates of equal likeness.

        Args:
            embeddings: (B, D) unit embeddings of the new prompts.
            vectors: B stored embeddings, as `quantise` made them; one of another size agrees with nothing.
            chars: Lengths of the new prompts.
            stored_chars: Lengths of the stored ones.

        Returns:
            (B,) whether the stored decision may serve. A text without tokens has a zero embedding, and agrees with
            nothing.
        """
        if not len(embeddings):
            return np.zeros(0, dtype=np.bool_)
        close = cosines(embeddings, vectors) >= self.options.threshold
        here, there = np.asarray(chars, dtype=np.float64), np.asarray(stored_chars, dtype=np.float64)
        comparable = np.minimum(here, there) >= self.options.length_ratio * np.maximum(here, there)
        agreed: BoolArray = close & comparable
        return agreed


def quantise(embeddings: FloatArray) -> list[bytes]:
    """Keep unit embeddings in one signed byte a dimension; cosines are off by about 0.001 at most.

    Args:
        embeddings: (B, D) of unit length, or zero.

    Returns:
        B values of D bytes.
    """
    largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=1e-12)
    whole = np.rint(embeddings * (127.0 / largest)).astype(np.int8)
    return [row.tobytes() for row in whole]


def cosines(embeddings: FloatArray, vectors: Sequence[bytes]) -> FloatArray:
    """(B,) cosine of each embedding with its stored vector; -1 where that one has another size."""
    count, width = embeddings.shape
    blank = bytes(width)
    fits = np.array([len(vector) == width for vector in vectors], dtype=np.bool_)
    joined = b"".join(v if len(v) == width else blank for v in vectors)
    stored = np.frombuffer(joined, dtype=np.int8).reshape(count, width).astype(np.float32)
    length = np.sqrt(np.einsum("bd,bd->b", stored, stored))
    product = np.einsum("bd,bd->b", embeddings, stored)
    cosine = np.divide(product, length, out=np.zeros_like(product), where=length > 0)
    return np.where(fits, cosine, np.float32(-1.0))
