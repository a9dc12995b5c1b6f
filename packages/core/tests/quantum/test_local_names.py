"""Which names may be called anything, and which are what the prompt is about."""

from __future__ import annotations

import keyword
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.local_names import rename_local_names
from monkey_coder.quantum.prompt_wording import wording

PYTHON = """Why is this slow?
```python
def mean(values):
    total = 0
    for item in values:
        total += item
    return total / len(values)
```
"""
JAVASCRIPT = "Fix: function grow(cells, rate) { const next = cells * rate; let again = next + 1; return again - next; }"
C = "Review `int sum(int *xs, int n) { int acc = 0; for (int i = 0; i < n; i++) acc += xs[i]; return acc; }`"


def renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, text)


@pytest.mark.parametrize(
    ("text", "old"),
    [
        (PYTHON, "total"),
        (PYTHON, "values"),
        (PYTHON, "item"),
        (JAVASCRIPT, "next"),
        (JAVASCRIPT, "again"),
        (JAVASCRIPT, "cells"),
        (C, "acc"),
        (C, "i"),
        (C, "n"),
        ("Why?\n```\na, b = 1, 2\nprint(a + b, a)\n```", "a"),
        (
            "Why?\n```\npairs = {}\nfor key, value in pairs.items():\n    pairs[key] = value\n```",
            "key",
        ),
    ],
)
def test_a_local_variable_may_be_called_anything(text: str, old: str) -> None:
    assert old in text
    assert wording(renamed(text, old, "fresh_name")) == wording(text)


def test_two_local_variables_may_be_renamed_at_once() -> None:
    assert wording(renamed(renamed(PYTHON, "total", "a1"), "item", "b1")) == wording(PYTHON)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        pytest.param(PYTHON, "mean", "median", id="function"),
        pytest.param("class Order:\n    pass\norder = Order()\nprint(order + 1)", "Order", "User", id="class"),
        pytest.param("order = Order()\nprint(order + 1)\nFix Order", "Order", "User", id="called class"),
        pytest.param("data = load('data.csv')\nprint(data + 1)", "data", "info", id="variable named like a file"),
        pytest.param("x = 1\nopen(x + 1, 'users')\nusers = x + 2\nprint(users)", "users", "orders", id="in a string"),
        pytest.param("total = 1\nprint(total + 2)\nThe total is wrong", "total", "count", id="spoken of"),
        pytest.param("size = 3\nbox.size = size + 1", "size", "width", id="attribute"),
        pytest.param("deep = 3\nwalk(deep=deep + 1)\nprint(deep)", "deep", "wide", id="keyword argument"),
        pytest.param("def f(loud=True):\n    x = loud + 1\n    return x + loud", "loud", "quiet", id="default"),
        pytest.param("ascending = 1\nprint(ascending + 1)", "ascending", "descending", id="with a meaning"),
        pytest.param("max_size = 1\nprint(max_size + 1)", "max_size", "min_size", id="with a part that has a meaning"),
        pytest.param("Set timeout = 30 in the configuration", "timeout", "retries", id="bound and never used"),
        pytest.param("Make a list of users for clients in London (clients)", "clients", "friends", id="prose"),
        pytest.param("LIMIT = 3\nprint(LIMIT + 1)", "LIMIT", "OTHER", id="constant"),
        pytest.param("root = 1\nprint(root + 1)\ncd /root", "root", "home", id="path"),
        pytest.param("act = pick(3)\nprint(act(1) + act(2))", "act", "run", id="called"),
        pytest.param("UPDATE staff SET age = age + 1; SELECT 1", "age", "pay", id="column"),
        pytest.param("select 1 from t where age = 3 and age < 5;", "age", "pay", id="column in lower case"),
        pytest.param("<input id='a'><input id='b'></form>; return", "id", "name", id="attribute of a tag"),
        pytest.param("Set retries=3 and timeout=retries*10", "retries", "attempts", id="setting in a sentence"),
        pytest.param("run --count=3 --count=4; echo {}", "count", "limit", id="option"),
        pytest.param("get http://host/?id=3&id=4; print {}", "id", "key", id="parameter of an address"),
        pytest.param("note = 1  # note that\nprint(note + 1)", "note", "hint", id="comment"),
    ],
)
def test_a_target_keeps_its_name(text: str, old: str, new: str) -> None:
    assert old in text
    assert wording(renamed(text, old, new)) != wording(text)


def test_a_variable_that_is_renamed_in_one_place_only_is_another_program() -> None:
    assert wording(PYTHON.replace("total += item", "count += item")) != wording(PYTHON)


def test_a_variable_that_takes_the_name_of_another_is_another_program() -> None:
    assert wording(renamed(PYTHON, "item", "total")) != wording(PYTHON)


def test_exchanging_two_variables_everywhere_is_the_same_program() -> None:
    exchanged = renamed(renamed(renamed(PYTHON, "item", "zz"), "total", "item"), "zz", "total")
    assert wording(exchanged) == wording(PYTHON)


def test_exchanging_operands_is_another_program() -> None:
    text = "left_side = 1\na = 2\nb = 3\nprint(a - b)"
    assert wording(text.replace("a - b", "b - a")) != wording(text)


@pytest.mark.parametrize(
    "text", ["def", "def f", "def f(", "= = =", "for", "for x", "let", "x =", "( ) = )", ", x = 1"]
)
def test_broken_code_is_read_as_far_as_it_goes(text: str) -> None:
    tokens = text.split()
    assert len(rename_local_names(tokens)) == len(tokens)


NAMES = st.from_regex(r"[b-z][a-z]{2,8}[0-9]", fullmatch=True).filter(lambda n: not keyword.iskeyword(n))


@given(st.lists(NAMES, min_size=3, max_size=3, unique=True), st.lists(NAMES, min_size=3, max_size=3, unique=True))
def test_any_renaming_of_variables_keeps_the_wording_and_the_program(old: list[str], new: list[str]) -> None:
    shape = "Explain\n{0} = [1, 2]\n{1} = {0}[0] * 2\nfor {2} in {0}:\n    {1} += {2}\nprint({1})"
    assert wording(shape.format(*old)) == wording(shape.format(*new))


@given(st.lists(st.sampled_from(["a", "x", "=", "(", ")", ",", "for", "in", "def", "+", "1", ".", "let"]), max_size=40))
def test_as_many_tokens_come_out_as_go_in(tokens: list[str]) -> None:
    out = rename_local_names(tokens)
    assert len(out) == len(tokens)
    assert all(given == made or made[0] == "\x01" for given, made in zip(tokens, out, strict=True))
