"""The sum tree against a plain list of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.sum_tree import SumTree

values = st.floats(0.0, 1e6, allow_subnormal=False)


def filled(numbers: list[float]) -> SumTree:
    tree = SumTree(len(numbers))
    tree.set(np.arange(len(numbers)), np.array(numbers))
    return tree


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), values)))))
def test_total_and_leaves_follow_every_change(case) -> None:
    leaves, changes = case
    tree, plain = SumTree(leaves), np.zeros(leaves)
    for leaf, value in changes:
        tree.set(np.array([leaf]), np.array([value]))
        plain[leaf] = value
    np.testing.assert_array_equal(tree.get(np.arange(leaves)), plain)
    np.testing.assert_allclose(tree.total, plain.sum())


@given(st.lists(values, min_size=1, max_size=40), st.lists(st.tuples(st.integers(0, 39), values), max_size=60))
def test_one_big_change_is_the_same_as_many_small_ones(start, changes) -> None:
    at_once, one_by_one = filled(start), filled(start)
    changes = [(leaf % len(start), value) for leaf, value in changes]
    if changes:
        leaves, new = zip(*changes, strict=True)
        at_once.set(np.array(leaves), np.array(new))
    for leaf, value in changes:
        one_by_one.set(np.array([leaf]), np.array([value]))
    assert at_once.total == one_by_one.total


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any), st.randoms(use_true_random=False))
def test_finds_the_leaf_that_a_running_sum_finds(numbers, random) -> None:
    tree = filled([float(number) for number in numbers])
    mass = np.array([random.random() * sum(numbers) for _ in range(50)])
    np.testing.assert_array_equal(tree.find(mass), np.searchsorted(np.cumsum(numbers), mass, side="right"))


@given(st.lists(values, min_size=1, max_size=40).filter(any), st.integers(0, 2**32 - 1))
def test_never_draws_an_empty_leaf(numbers, seed) -> None:
    drawn = filled(numbers).draw(64, np.random.default_rng(seed))
    assert np.array(numbers)[drawn].min() > 0.0


def test_whole_mass_falls_on_the_last_filled_leaf() -> None:
    tree = filled([0.1, 0.2, 0.3, 0.0, 0.0])
    assert tree.find(np.array([tree.total])) == [2]


def test_draws_in_proportion() -> None:
    drawn = filled([1.0, 0.0, 3.0]).draw(40_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn) / 40_000, [0.25, 0.0, 0.75], atol=0.001)
