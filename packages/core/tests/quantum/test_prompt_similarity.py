"""Which prompts count as near-identical, and what is kept of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.prompt_similarity import (
    LIKENESS_BYTES,
    PromptSimilarity,
    SimilarityOptions,
    cosines,
    quantise,
)

TEXT = "Fix the off-by-one error in parse_rows: it skips the last of the 3 rows"


def test_a_likeness_is_short_and_equal_for_near_identical_prompts() -> None:
    similar = PromptSimilarity(b"secret")
    likeness = similar.likeness(TEXT)
    assert likeness is not None
    assert len(likeness) == LIKENESS_BYTES
    assert similar.likeness(f"Please {TEXT}.") == likeness
    assert similar.likeness(TEXT.replace("3", "4")) != likeness


def test_another_secret_gives_other_likenesses_and_the_same_one_the_same() -> None:
    assert PromptSimilarity(b"one").likeness(TEXT) != PromptSimilarity(b"two").likeness(TEXT)
    assert PromptSimilarity(b"one").likeness(TEXT) == PromptSimilarity(b"one").likeness(TEXT)


def test_lone_surrogates_have_a_likeness() -> None:
    assert PromptSimilarity(b"s").likeness("broken \ud800") != PromptSimilarity(b"s").likeness("broken")


def test_too_long_prompts_have_none() -> None:
    assert PromptSimilarity(b"s").likeness("x" * 20_000) is None


def test_the_cosine_must_reach_the_threshold() -> None:
    rows = np.array([[1.0, 0.0], [0.8, 0.6]], dtype=np.float32)
    stored = quantise(np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32))
    assert PromptSimilarity(b"s", SimilarityOptions(threshold=0.9)).agree(rows, stored, [5, 5], [5, 5]).tolist() == [
        True,
        False,
    ]
    assert PromptSimilarity(b"s", SimilarityOptions(threshold=0.7)).agree(rows, stored, [5, 5], [5, 5]).all()


def test_the_lengths_must_be_comparable() -> None:
    row = np.array([[1.0, 0.0]], dtype=np.float32)
    similar = PromptSimilarity(b"s", SimilarityOptions(length_ratio=0.5))
    assert similar.agree(row, quantise(row), [10], [20]).all()
    assert not similar.agree(row, quantise(row), [10], [21]).any()
    assert not similar.agree(row, quantise(row), [21], [10]).any()


def test_a_text_without_tokens_and_a_vector_of_another_size_agree_with_nothing() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    assert not PromptSimilarity(b"s").agree(rows, [quantise(rows)[0], b"\x7f\x00\x00"], [5, 5], [5, 5]).any()
    assert PromptSimilarity(b"s").agree(rows[:0], [], [], []).tolist() == []


def test_courtesy_keeps_the_real_embedding_close() -> None:
    embedder, similar = StaticEmbedder.load(), PromptSimilarity(b"s")
    texts = [TEXT, f"Could you please {TEXT[0].lower()}{TEXT[1:]}? Thanks in advance!", "Bake a cake with five eggs"]
    rows = embedder.embed(texts)
    sizes = [len(text) for text in texts]
    assert similar.agree(rows[1:], [quantise(rows[:1])[0]] * 2, sizes[1:], [sizes[0]] * 2).tolist() == [True, False]


@settings(max_examples=50)
@given(arrays(np.float32, (4, 16), elements=st.floats(-1, 1, width=32)))
def test_a_quantised_vector_is_nearly_the_vector(rows: np.ndarray) -> None:
    rows = rows + np.eye(4, 16, dtype=np.float32) * 3
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    np.testing.assert_allclose(cosines(unit, quantise(unit)), 1.0, atol=2e-3)
    np.testing.assert_allclose(cosines(unit, quantise(unit[::-1])), (unit * unit[::-1]).sum(axis=1), atol=1e-2)


@pytest.mark.parametrize("bad", [{"threshold": 1.5}, {"threshold": -0.1}, {"length_ratio": 2.0}])
def test_impossible_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie in 0"):
        SimilarityOptions(**bad)
