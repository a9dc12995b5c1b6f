"""What a prompt may be changed in and stay the same, and what not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.prompt_wording import MOST_CHARS, wording

TEXT = 'Write a Python function in src/app/loader.py which sorts rows in ascending order, not the first 3. Log "done".'


def lowered(text: str) -> str:
    return text[0].lower() + text[1:]


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(TEXT.replace(" ", "\n"), id="reflowed"),
        pytest.param("  " + TEXT.replace(" ", "   ") + "\n\n", id="spaced"),
        pytest.param(TEXT[:-1], id="no full stop"),
        pytest.param("Please " + lowered(TEXT), id="please"),
        pytest.param(TEXT[:-1] + ", please.", id="please at the end"),
        pytest.param(TEXT + " Please!", id="a sentence of please"),
        pytest.param("Could you " + lowered(TEXT[:-1]) + "?", id="could you"),
        pytest.param("Could you please " + lowered(TEXT), id="could you please"),
        pytest.param("Can you kindly " + lowered(TEXT), id="kindly"),
        pytest.param("Hi! " + TEXT, id="hi"),
        pytest.param("Hello there,\n\n" + TEXT, id="hello"),
        pytest.param("Good morning. " + TEXT, id="good morning"),
        pytest.param("Hey, could you please help me to " + lowered(TEXT), id="several"),
        pytest.param("I would like you to " + lowered(TEXT), id="I would like"),
        pytest.param("I need you to " + lowered(TEXT), id="I need"),
        pytest.param(TEXT + " Thanks!", id="thanks"),
        pytest.param(TEXT + "\nThank you very much in advance.", id="in advance"),
        pytest.param(TEXT + " Thank you for your help.", id="for your help"),
        pytest.param(TEXT + " I would really appreciate it.", id="appreciate"),
        pytest.param(TEXT + " Any help would be greatly appreciated, thanks", id="appreciated"),
        pytest.param(TEXT.replace('"', "\u201c"), id="typographic quotes"),
        pytest.param(TEXT.replace("src/app/loader.py", "`src/app/loader.py`"), id="code marks"),
        pytest.param(TEXT.replace(" ", "\u00a0"), id="no-break spaces"),
    ],
)
def test_what_does_not_matter_is_left_out(same: str) -> None:
    assert same != TEXT
    assert wording(same.replace("\u201cdone\u201c", "\u201cdone\u201d")) == wording(TEXT)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TEXT.replace("3", "4"), id="number"),
        pytest.param(TEXT.replace("not ", ""), id="negation removed"),
        pytest.param(TEXT.replace("sorts", "doesn't sort"), id="negation added"),
        pytest.param(TEXT.replace("which sorts", "which never sorts"), id="never"),
        pytest.param(TEXT.replace("Python", "Java"), id="language"),
        pytest.param(TEXT.replace("loader", "reader"), id="file"),
        pytest.param(TEXT.replace("src/app", "src/web"), id="directory"),
        pytest.param(TEXT.replace(".py", ".pyi"), id="kind of file"),
        pytest.param(TEXT.replace("ascending", "descending"), id="order"),
        pytest.param(TEXT.replace("done", "gone"), id="quoted"),
        pytest.param(TEXT + " Handle empty input.", id="requirement added"),
        pytest.param(TEXT.replace(' Log "done".', ""), id="requirement removed"),
        pytest.param(TEXT.replace("rows", "columns"), id="object"),
        pytest.param(TEXT.replace("sorts rows in ascending order", "orders in ascending rows sorts"), id="words"),
    ],
)
def test_everything_else_is_kept(other: str) -> None:
    assert other != TEXT
    assert wording(other) != wording(TEXT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute n!", "Compute n"),
        ("What is 5! + 1", "What is 5 + 1"),
        ("Fix x[1:]", "Fix x[1]"),
        ("Is a < b?", "Is a <= b?"),
        ("Print 3.14", "Print 3. 14"),
        ("Print 1000", "Print 1 000"),
        ("Subtract 3 from 4", "Subtract 4 from 3"),
        ('Say "please enter a number"', 'Say "enter a number"'),
        ("Return x != y", "Return x = y"),
        ("Return a-b", "Return b-a"),
        ("Return -1", "Return 1"),
        ("Fix Order", "Fix Orders"),
        ("Fix getUser", "Fix getuser"),
        ("Do it on this host", "Do it on that host"),
        ("Traduce el texto", "Traduce the text"),
        ("Rename a to b", "Rename b to a"),
    ],
)
def test_small_marks_that_change_the_task_are_kept(one: str, other: str) -> None:
    assert wording(one) != wording(other)


def test_a_prompt_of_nothing_but_courtesy_keeps_it() -> None:
    assert wording("Thanks!") != wording("Hello!")
    assert wording("Please")


def test_very_long_prompts_are_not_compared() -> None:
    assert wording("a " * (MOST_CHARS // 2)) is not None
    assert wording("a " * MOST_CHARS) is None


@given(st.text(max_size=200))
def test_any_text_has_a_wording_and_ends_of_white_space_do_not_matter(text: str) -> None:
    assert wording(text) == wording(f" {text} ")


WORDS = st.lists(st.from_regex(r"[a-z]{3,8}|[0-9]{1,3}|[(),:+=]", fullmatch=True), min_size=1, max_size=30)


@given(WORDS, st.lists(st.sampled_from([" ", "\n", "  ", "\t", "\r\n"]), min_size=30, max_size=30))
def test_white_space_never_matters(words: list[str], spaces: list[str]) -> None:
    spaced = "".join(word + space for word, space in zip(words, spaces, strict=False))
    assert wording(spaced) == wording(" ".join(words))


@given(WORDS, st.data())
def test_another_word_always_matters(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    changed = [*words[:place], "zzzzzzzzz", *words[place + 1 :]]
    assert wording("Do " + " ".join(changed) + " now") != wording("Do " + " ".join(words) + " now")
