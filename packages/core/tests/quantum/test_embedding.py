"""The static embedder: any text gets a unit vector, the same one alone, in a batch, and in another process."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monkey_coder.quantum.embedding import HEAD_CHARS, TAIL_CHARS, StaticEmbedder, head_and_tail

BIDI = "\u202e\u05d1\u05d0\u05d2 \u0645\u0631\u062d\u0628\u0627"
ODD = ["\0", "😀" * 40, BIDI, "e\u0301" * 30, "<s></s><unk>", "\ufffe\U0010ffff", "   \t\n"]


@settings(max_examples=40)
@given(text=st.text(max_size=300))
@example(text="a" * 5000)
@example(text="\0" * 4000)
def test_every_text_gets_a_finite_vector_of_length_one_or_zero(static_embedder: StaticEmbedder, text) -> None:
    (vector,) = static_embedder.embed([text])
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    length = float(np.linalg.norm(vector))
    assert length == 0.0 or abs(length - 1.0) < 1e-5


def test_odd_texts_have_tokens_too(static_embedder: StaticEmbedder) -> None:
    np.testing.assert_allclose(np.linalg.norm(static_embedder.embed(ODD), axis=1), 1.0, rtol=1e-5)


def test_a_text_without_tokens_is_all_zero(static_embedder: StaticEmbedder) -> None:
    assert not static_embedder.embed([""]).any()


@settings(max_examples=30)
@given(texts=st.lists(st.text(max_size=60), max_size=6))
def test_a_text_embeds_the_same_alone_and_in_company(static_embedder: StaticEmbedder, texts) -> None:
    together = static_embedder.embed(texts)
    assert together.shape == (len(texts), static_embedder.dimensions)
    for row, text in enumerate(texts):
        assert static_embedder.embed([text])[0].tobytes() == together[row].tobytes()


def test_another_process_gives_the_same_bytes(static_embedder: StaticEmbedder) -> None:
    program = (
        "import hashlib; from monkey_coder.quantum.embedding import StaticEmbedder;"
        f"print(hashlib.sha256(StaticEmbedder.load().embed({ODD!r}).tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(static_embedder.embed(ODD).tobytes()).hexdigest()


def test_like_texts_lie_nearer_than_unlike_ones(static_embedder: StaticEmbedder) -> None:
    race, lock, poem = static_embedder.embed(
        ["fix the race condition in the cache", "a deadlock between two threads", "a poem about spring flowers"]
    )
    assert race @ lock > race @ poem


def test_of_a_long_text_only_head_and_tail_count(static_embedder: StaticEmbedder) -> None:
    head, tail = "start " * (HEAD_CHARS // 6 + 1), " end" * (TAIL_CHARS // 4)
    one, other = head[:HEAD_CHARS] + "x" * 200_000 + tail, head[:HEAD_CHARS] + "y z " * 5000 + tail
    assert static_embedder.embed([one]).tobytes() == static_embedder.embed([other]).tobytes()
    assert len(head_and_tail(one)) == HEAD_CHARS + 1 + TAIL_CHARS


def test_a_text_at_the_bound_is_read_whole() -> None:
    text = "a" * HEAD_CHARS + "b" * TAIL_CHARS
    assert head_and_tail(text) == text
