from __future__ import annotations

from dataclasses import fields, replace

import pytest

from monkey_coder.lean_values import lean, lean_with_room, once


@lean
class Point:
    """Two numbers."""

    x: int
    y: int = 2


@lean_with_room
class Squared:
    """Counts how often its square is worked out."""

    side: int
    worked_out: list[int]

    @once
    def square(self) -> int:
        """Of the side."""
        self.worked_out.append(self.side)
        return self.side**2


def test_a_lean_value_is_a_dataclass() -> None:
    assert replace(Point(1), x=3) == Point(3, 2)
    assert [field.name for field in fields(Point)] == ["x", "y"]
    assert repr(Point(1)) == "Point(x=1, y=2)"


def test_a_lean_value_takes_nothing_that_it_has_no_field_for() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]


def test_what_is_worked_out_once_is_kept_for_each_value_by_itself() -> None:
    first, second = Squared(3, []), Squared(4, [])
    assert (first.square, first.square, second.square) == (9, 9, 16)
    assert (first.worked_out, second.worked_out) == ([3], [4])


def test_a_copy_works_it_out_afresh() -> None:
    value = Squared(3, [])
    assert value.square == 9
    assert replace(value, side=5).square == 25


def test_what_fails_is_tried_again() -> None:
    class Late:
        ready = False

        @once
        def answer(self) -> int:
            if not self.ready:
                raise ValueError("not yet")
            return 42

    late = Late()
    with pytest.raises(ValueError, match="not yet"):
        _ = late.answer
    late.ready = True
    assert late.answer == 42


def test_the_class_itself_shows_what_the_property_says() -> None:
    assert Squared.square.__doc__ == "Of the side."
