"""Shares of reporters: who is held back, and who has a say in what is borrowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.key_shares import share_factors, speaking

PRIOR = np.array([10.0])


def column(*values: float) -> np.ndarray:
    """(R, 1): a number for each reporter."""
    return np.array(values)[:, None]


@given(
    weights=st.lists(st.floats(0.0, 500.0), min_size=2, max_size=5),
    share=st.floats(0.5, 0.95),
)
def test_nobody_is_worth_more_than_its_share(weights: list[float], share: float) -> None:
    weight = column(*weights)
    counted = weight * share_factors(weight, np.zeros_like(weight), PRIOR, share)
    assert (counted <= share * (PRIOR + counted.sum(axis=0)) + 1e-9).all()
    assert (counted <= weight).all()


def test_what_was_told_alone_counts_where_nobody_else_has_spoken() -> None:
    alone, none = column(80.0, 0.0), column(0.0, 0.0)
    assert share_factors(column(80.0, 0.0), alone, PRIOR, 0.5)[0, 0] == 1.0
    assert share_factors(column(160.0, 0.0), alone, PRIOR, 0.5)[0, 0] == pytest.approx(0.5)
    assert share_factors(column(80.0, 0.0), none, PRIOR, 0.5)[0, 0] == pytest.approx(0.125)
    assert share_factors(column(80.0, 1.0), alone, PRIOR, 0.5)[0, 0] == pytest.approx(11.0 / 80.0)


def test_one_reporter_or_no_cap_hold_nobody_back() -> None:
    for weight, share in ((column(80.0), 0.5), (column(80.0, 1.0), 1.0)):
        assert (share_factors(weight, np.zeros_like(weight), PRIOR, share) == 1.0).all()
        assert (speaking(weight, np.zeros_like(weight), share) == 1.0).all()


def test_who_speaks_for_itself_does_not_speak_twice() -> None:
    speaks = speaking(column(40.0, 5.0, 0.0), column(10.0, 0.0, 0.0), 0.5)
    assert speaks[:, 0] == pytest.approx([0.25, 0.0, 1.0])
