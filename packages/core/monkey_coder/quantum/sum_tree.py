"""A sum tree on one array: draws leaves in proportion to their values in O(log n), whole batches at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """Non-negative numbers that can be changed, and drawn in proportion to their size.

    Node i has the children 2i and 2i + 1, the root is 1, and the leaves are the second half of the array. A parent is
    always the sum of its two children, never a running difference, so that rounding does not pile up and the same
    leaves give the same tree, bit for bit.

    Args:
        leaves: How many numbers; all are 0 at first.
    """

    def __init__(self, leaves: int) -> None:
        self._depth = max(1, leaves - 1).bit_length()
        self._first = 1 << self._depth
        self._leaves = leaves
        self._nodes = np.zeros(2 * self._first)

    @property
    def total(self) -> float:
        """Sum of all leaves."""
        return float(self._nodes[1])

    def get(self, leaf: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the values of these leaves."""
        return self._nodes[self._first + leaf]

    def set(self, leaf: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        """Change leaves; of a leaf named twice the last value counts.

        Args:
            leaf: (N,) in 0..leaves - 1.
            value: (N,) not negative.
        """
        nodes = self._nodes
        at = self._first + leaf
        nodes[at] = value
        for _ in range(self._depth):
            at = at >> 1
            if len(at) > 1:  # neighbours share a parent: long runs halve on every level
                at = at[np.concatenate(([True], at[1:] != at[:-1]))]
            nodes[at] = nodes[2 * at] + nodes[2 * at + 1]

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw leaves in proportion to their values, one from each of `size` equal shares of the total.

        Leaves of value 0 are never drawn. The total must be above 0.
        """
        return self.find((np.arange(size) + rng.random(size)) * (self.total / size))

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the leaf in which each running sum lies: the first whose sum up to and with itself exceeds it.

        Args:
            mass: (N,) in 0..total.
        """
        nodes = self._nodes
        mass = mass.copy()
        at = np.ones(len(mass), np.int64)
        for _ in range(self._depth):
            at *= 2
            left = nodes[at]
            # Rounding may leave a crumb of mass above the left sum; an empty right side is no place for it.
            right = (mass >= left) & (nodes[at + 1] > 0.0)
            mass -= np.where(right, left, 0.0)
            at += right
        return at - self._first
