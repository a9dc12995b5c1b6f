"""Text marks: finite and bounded for any text, each text alone, and what they are said to be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.text_marks import BYTE_CLASSES, MARKS, WORDS, text_marks

CLASSES = len(BYTE_CLASSES)
FIRST_WORD = 2 * CLASSES


def mark(text: str) -> np.ndarray:
    return text_marks([text])[0]


@given(st.lists(st.text(max_size=300), max_size=5))
def test_any_texts_give_finite_marks_and_each_alone_the_same_as_together(texts) -> None:
    together = text_marks(texts)
    assert together.shape == (len(texts), MARKS)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    for row, text in enumerate(texts):
        np.testing.assert_array_equal(mark(text), together[row])


def test_even_lone_surrogates_have_marks() -> None:
    assert np.isfinite(mark("\ud800 broken \udfff")).all()


def test_bytes_are_counted_by_class() -> None:
    marks = mark("Ab1\n(x) = é?")
    counts = np.expm1(marks[:CLASSES])
    digits, upper, lower, lines, brackets, operators, exclaimed, quotes, foreign = np.round(counts)
    assert (digits, upper, lower, lines, brackets, operators, exclaimed, quotes) == (1, 1, 2, 1, 2, 1, 1, 0)
    assert foreign == 2  # é has two bytes
    np.testing.assert_allclose(marks[CLASSES : 2 * CLASSES], counts / 14.0, atol=1e-6)


def test_words_are_found_whatever_their_case_but_only_near_the_start() -> None:
    place = FIRST_WORD + WORDS.index("traceback")
    assert mark("TraceBack (most recent call last)")[place] == 1.0
    assert mark("x" * 1500 + "traceback")[place] == 0.0


def test_questions_and_full_stops_count_at_the_end() -> None:
    assert mark("Is it so? " + "x" * 60)[-2] == 0.0
    assert mark("x" * 60 + "Is it so?")[-2] == 1.0
    assert mark("Do it.")[-1] == 1.0
    assert mark("Do it")[-1] == 0.0


def test_the_middle_of_a_long_text_changes_nothing_but_its_length() -> None:
    start, end = "def f(): pass " * 200, " the end" * 200
    short, long = mark(start + "x" * 10_000 + end), mark(start + "y?1(" * 2_500 + end)
    np.testing.assert_array_equal(short, long)
    assert mark(start + "x" * 20_000 + end)[-5] > short[-5]
