"""Decision ids: real ones are told from forged ones by every process that knows the secret."""

from __future__ import annotations

import os
import re

import pytest
from builders import SECRET, SetClock
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.identifiers import SignedIds

NOW = 1_790_000_000.25
IDS = SignedIds(SECRET, SetClock(NOW), os.urandom)
(GENUINE,) = IDS.make(1)
FOREIGN = "!\n= +/é\0-_"


def test_ids_are_unique_and_fit_into_a_url() -> None:
    made = IDS.make(500)
    assert len(set(made)) == 500
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", decision_id) for decision_id in made)


def test_no_ids_when_none_are_wanted() -> None:
    assert IDS.make(0) == []


def test_an_id_tells_when_it_was_made() -> None:
    clock = SetClock(NOW)
    ids = SignedIds(SECRET, clock, os.urandom)
    (made,) = ids.make(1)
    clock.now += 1e6
    assert ids.issued_at(made) == pytest.approx(NOW, abs=1e-5)


def test_another_process_with_the_secret_knows_the_id() -> None:
    elsewhere = SignedIds(SECRET, SetClock(0.0), os.urandom)
    assert elsewhere.issued_at(GENUINE) == pytest.approx(NOW, abs=1e-5)


def test_another_deployment_does_not() -> None:
    assert SignedIds(b"another secret of 24 byt", SetClock(NOW), os.urandom).issued_at(GENUINE) is None


@given(st.integers(0, len(GENUINE) - 1), st.sampled_from("ABZabz019-_"))
def test_any_changed_character_is_noticed(place, character) -> None:
    changed = GENUINE[:place] + character + GENUINE[place + 1 :]
    assert (IDS.issued_at(changed) is not None) == (changed == GENUINE)


@given(st.integers(0, len(GENUINE)), st.text(FOREIGN, min_size=1, max_size=4))
def test_an_id_has_one_spelling(place, extra) -> None:
    assert IDS.issued_at(GENUINE[:place] + extra + GENUINE[place:]) is None


def test_the_other_base64_alphabet_is_no_second_spelling() -> None:
    made = next(i for i in IDS.make(1000) if "-" in i)
    assert IDS.issued_at(made.replace("-", "+")) is None


@given(st.text(max_size=60))
def test_nonsense_is_no_id(text) -> None:
    assert IDS.issued_at(text) is None


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_secret_of_a_useless_length_is_refused(length) -> None:
    with pytest.raises(ValueError, match=f"16 to 64 bytes, has {length}"):
        SignedIds(b"x" * length, SetClock(NOW), os.urandom)
