"""Texts in pieces: the tokens are those of the whole text, for any text, however many pieces have been seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from monkey_coder.quantum.embedding import read_tokenizer
from monkey_coder.quantum.text_pieces import MOST_CHARS, MOST_REMEMBERED, PieceEncoder, pieces

_CODE = "Fix the race in LRU_cache(n=10):\n\tdef evict(self, key) -> None:\n        return self._map[key]  # TODO"
_WORDS = [*_CODE.split(" "), "", " ", "\n    ", "naïve", "“why?”", "\u2581", "缓存", "½,", "😀", "<s>", "</s>", "<unk"]
_TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(_WORDS), max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read_tokenizer()


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> PieceEncoder:
    return PieceEncoder(tokenizer)


@settings(max_examples=200)
@given(text=_TEXTS)
@example(text="")
@example(text="   \t\n")
@example(text=_CODE * 20)
@example(text="word" * 500)
def test_the_tokens_are_those_of_the_whole_text(tokenizer: Tokenizer, encoder: PieceEncoder, text) -> None:
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.encode(text).tolist() == whole
    assert encoder.encode(text).tolist() == whole  # and again, from memory


def test_no_token_of_the_vocabulary_reaches_beyond_a_piece(tokenizer: Tokenizer) -> None:
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    bytes_alone = {f"<0x{byte:02X}>" for byte in range(256)}
    for token in tokenizer.get_vocab().keys() - special - bytes_alone:
        text = token.replace("\u2581", " ")
        assert pieces(text) == [text]


@given(text=_TEXTS)
def test_the_pieces_make_up_the_text(text) -> None:
    assert "".join(pieces(text)) == text


def test_words_are_remembered_and_what_may_be_a_whole_sentence_is_not(tokenizer: Tokenizer) -> None:
    asked: list[str] = []

    class Noting:
        encode, get_added_tokens_decoder = tokenizer.encode, tokenizer.get_added_tokens_decoder
        model = SimpleNamespace(tokenize=lambda piece: asked.append(piece) or tokenizer.model.tokenize(piece))

    encoder: Any = PieceEncoder(cast("Any", Noting()))
    text = "Fix 修复登录页面 для “naïve” users แก้ไขข้อผิดพลาด ログイン"
    for again in (False, True):
        asked.clear()
        assert encoder.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids
        sentences = ["\u2581修复登录页面", "\u2581แก้ไขข้อผิดพลาด", "\u2581ログイン"]
        assert [piece for piece in asked if piece not in sentences] == (
            [] if again else ["\u2581Fix", "\u2581для", "\u2581“naïve”", "\u2581users"]
        )
        assert [piece for piece in asked if piece in sentences] == sentences


def test_more_pieces_than_are_remembered_are_encoded_as_well(tokenizer: Tokenizer) -> None:
    encoder, letters = PieceEncoder(tokenizer), "bcdfghjklmnpqrstvwxyz"
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in letters[:4]]
    assert len(words) > MOST_REMEMBERED
    text = " ".join([*words, "x" * (MOST_CHARS + 1), *words[:50]])
    assert encoder.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids
