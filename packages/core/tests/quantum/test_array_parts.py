"""Dataclasses of arrays, taken apart and put together."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.array_parts import check_shapes, put_together, take_apart


@dataclass(frozen=True, eq=False)
class Part:
    names: tuple[str, ...]
    values: np.ndarray
    scale: float
    inner: object


def test_what_is_taken_apart_goes_together_again_by_way_of_json() -> None:
    part = Part(("a", "b"), np.arange(3.0), 0.5, object())
    arrays, header = take_apart(part, but=frozenset({"inner"}))
    again = put_together(Part, arrays, json.loads(json.dumps(header)), inner=part.inner)
    assert (again.names, again.scale, again.inner) == (part.names, part.scale, part.inner)
    np.testing.assert_array_equal(again.values, part.values)


def test_what_is_missing_or_not_finite_is_named() -> None:
    whole = {"values": np.zeros(1)}, {"names": [], "scale": 1.0, "inner": None}
    with pytest.raises(PolicyError, match="values of the Part is missing"):
        put_together(Part, {}, whole[1])
    with pytest.raises(PolicyError, match="values of the Part is not finite"):
        put_together(Part, {"values": np.array([np.inf])}, whole[1])


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(PolicyError, match=r"values of the Part has shape \(2,\), not \(3,\)"):
        check_shapes(Part((), np.zeros(2), 1.0, None), values=(3,))
