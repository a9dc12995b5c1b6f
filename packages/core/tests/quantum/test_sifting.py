"""What breaks the work on a lot is found and put aside, and all else is done, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.quantum.sifting import Sieve


class Work:
    """Is done on what is not bad; of a part that holds something bad it is done up to there."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.done, self.calls = bad, [], 0

    def __call__(self, lot: Sequence[int]) -> None:
        self.calls += 1
        for item in lot:
            if item in self.bad:
                raise ZeroDivisionError(item)
            self.done.append(item)


@given(st.integers(0, 64).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, max(size - 1, 0))))))
def test_all_that_is_good_is_done_and_all_that_is_bad_is_named(given: tuple[int, set[int]]) -> None:
    size, bad = given
    bad = {item for item in bad if item < size}
    work = Work(bad)
    aside = Sieve[int](1, StoreUnavailableError).work(range(size), work)
    assert [item for item, _ in aside] == sorted(bad)
    assert [error.args for _, error in aside] == [(item,) for item in sorted(bad)]
    assert sorted(set(work.done)) == [item for item in range(size) if item not in bad]


def test_an_error_may_pass_before_anything_is_put_aside() -> None:
    sieve, work = Sieve[int](3, StoreUnavailableError), Work({2})
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            sieve.work([1, 2, 3], work)
    work.bad = set()
    assert sieve.work([1, 2, 3], work) == []
    work.bad = {5}
    assert [item for item, _ in sieve.work([4, 5], work)] == [5]
    for _ in range(2):  # they are counted anew
        with pytest.raises(ZeroDivisionError):
            sieve.work([4, 5], work)


def test_what_failed_once_and_then_does_not_is_not_put_aside() -> None:
    calls = 0

    def twice(_: Sequence[int]) -> None:
        nonlocal calls
        calls += 1
        if calls < 2:
            raise ZeroDivisionError

    assert Sieve[int](1, StoreUnavailableError).work([1, 2], twice) == []


def test_an_error_that_has_nothing_to_do_with_it_puts_nothing_aside() -> None:
    sieve = Sieve[int](1, StoreUnavailableError)

    def away(_: Sequence[int]) -> None:
        raise StoreUnavailableError("not now")

    for _ in range(5):
        with pytest.raises(StoreUnavailableError):
            sieve.work([1, 2], away)


def test_one_bad_thing_among_many_is_found_in_few_steps() -> None:
    work = Work({17})
    assert [item for item, _ in Sieve[int](1, StoreUnavailableError).work(range(32), work)] == [17]
    assert work.calls <= 12
