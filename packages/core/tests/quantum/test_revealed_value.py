"""What a solved task is worth to somebody, found out from made-up choices whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.revealed_value import LEAST, Choice, revealed_value


def choices_of(worth: float, asked: float, count: int, seed: int, noise: float = 0.05) -> list[Choice]:
    """Somebody to whom a task is worth `worth` USD meets trades, and takes those that pay, more or less."""
    rng = np.random.default_rng(seed)
    taken: list[Choice] = []
    while len(taken) < count:
        success = float(rng.uniform(-0.3, 0.3))
        cost = float(np.sign(success) * rng.lognormal(np.log(0.1 * asked), 1.0))
        if rng.random() < 1.0 / (1.0 + np.exp(-(success - cost / worth) / noise)):
            taken.append(Choice(success, cost, asked))
    return taken


@pytest.mark.parametrize("worth", [0.2, 1.0, 5.0])
def test_the_truth_lies_in_the_interval_and_more_choices_narrow_it(worth: float) -> None:
    inside, widths = 0, {30: [], 300: []}
    for seed in range(20):
        for count, found in widths.items():
            told = revealed_value(choices_of(worth, 1.0, count, seed))
            assert told is not None
            assert told.low < told.value_usd < told.high
            found.append(np.log(told.high / told.low))
            inside += count == 300 and told.low <= worth <= told.high
    assert np.mean(widths[300]) < np.mean(widths[30])
    assert inside >= 14  # of 20, at 90%: taken trades are a selection, which the estimate takes as they are


def test_upgrades_say_more_and_downgrades_less_than_was_asked() -> None:
    up = revealed_value([Choice(0.1, 0.3, 1.0)] * 40)
    down = revealed_value([Choice(-0.1, -0.3, 1.0)] * 40)
    assert up is not None
    assert down is not None
    assert up.value_usd > 3.0  # 0.30 USD for a tenth of a success
    assert down.value_usd < 3.0
    assert (up.upgrades, down.upgrades) == (40, 0)
    assert up.explained == down.explained == 1.0


def test_contradictions_are_owned_up_to() -> None:
    told = revealed_value([Choice(0.1, 0.3, 1.0), Choice(-0.1, -0.01, 1.0)] * 20)
    assert told is not None
    assert told.explained == 0.5


def test_few_choices_say_nothing_and_those_that_trade_nothing_do_not_count() -> None:
    assert revealed_value([]) is None
    good = Choice(0.1, 0.1, 1.0)
    free = [Choice(0.1, -0.1, 1.0), Choice(-0.1, 0.1, 1.0), Choice(0.0, 0.1, 1.0), Choice(0.1, 0.0, 1.0)] * 50
    assert revealed_value([good] * (LEAST - 1) + free) is None
    told = revealed_value([good] * LEAST + free)
    assert told == revealed_value([good] * LEAST)
    assert told is not None
    assert told.choices == LEAST


@given(
    st.lists(
        st.builds(Choice, st.floats(-1.0, 1.0), st.floats(-1e4, 1e4), st.floats(1e-6, 1e6)),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_any_choices_give_a_finite_estimate_that_ignores_their_order(choices: list[Choice], rng) -> None:
    told, again = revealed_value(choices), revealed_value(rng.sample(choices, len(choices)))
    assert (told is None) == (again is None)
    if told is not None and again is not None:
        assert 0.0 < told.low <= told.value_usd <= told.high < np.inf
        assert again.value_usd == pytest.approx(told.value_usd)
