"""What the failure of one model says about the others: found from outcomes, and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.ports import SETBACK_LOGITS
from monkey_coder.quantum.setback import Setback


def logit(chance: float) -> float:
    return float(np.log(chance / (1.0 - chance)))


def test_a_failure_lowers_the_odds_of_the_others_by_what_the_failed_model_was_given() -> None:
    setback = Setback(logits=1.5)
    assert logit(setback.after(0.8, 0.6)) == pytest.approx(logit(0.8) - 0.9)
    assert setback.after(0.8, 0.0) == pytest.approx(0.8)


@pytest.mark.parametrize("truth", [0.0, 0.7, 4.0])
def test_it_is_found_from_attempts_that_followed_failures(truth: float) -> None:
    rng, setback = np.random.default_rng(3), Setback()
    for _ in range(1500):
        chance, before = rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.4)
        setback.learn(chance, before, float(rng.random() < Setback(logits=truth).after(chance, before)))
    assert setback.logits == pytest.approx(truth, abs=0.35)


def test_a_few_outcomes_move_it_little() -> None:
    setback = Setback()
    for _ in range(2):
        setback.learn(0.6, 0.8, 1.0)
    assert 0.5 * SETBACK_LOGITS < setback.logits < SETBACK_LOGITS


def test_a_word_that_counts_for_nothing_moves_nothing() -> None:
    setback = Setback()
    setback.learn(0.6, 0.8, 1.0, weight=0.0)
    assert setback.logits == SETBACK_LOGITS


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 4), st.floats(0, 1)), max_size=40))
def test_whatever_comes_chances_stay_chances_and_no_failure_is_good_news(
    told: list[tuple[float, float, float]],
) -> None:
    setback = Setback()
    for chance, before, score in told:
        setback.learn(chance, before, score)
        assert 0.0 < setback.after(chance, before) <= max(chance, 0.01) + 1e-9
