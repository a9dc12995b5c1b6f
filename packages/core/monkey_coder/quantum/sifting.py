"""Goes on where work on a few of many things fails for good: they are found by halves, and put aside by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sieve(Generic[Item]):
    """Does work on lots. For one thread at a time.

    An error may pass, so the first ones are raised, and the lot is expected again. Then a lot that fails is tried once
    more, and halved, and halved again, until what the error comes from is alone.

    Args:
        tries: How many errors it takes until a lot is looked into.
        passing: Errors that have nothing to do with what is worked on; they are raised, however often they come.
    """

    def __init__(self, tries: int, passing: type[Exception]) -> None:
        self._tries, self._passing = tries, passing
        self._failures = 0

    def work(self, lot: Sequence[Item], do: Callable[[Sequence[Item]], None]) -> list[tuple[Item, Exception]]:
        """Do work on a lot.

        Args:
            lot: In order; parts of it are worked on in that order, and may be worked on again after an error.
            do: Works on a lot, or on a part of one.

        Returns:
            What it cannot be done on, each with the error that says why.

        Raises:
            Exception: What `do` raised; the same lot should be tried again later.
        """
        try:
            do(lot)
        except self._passing:
            raise
        except Exception:
            self._failures += 1
            if self._failures < self._tries:
                raise
            self._failures = 0
            return self._sift(lot, do)
        return []

    def _sift(self, lot: Sequence[Item], do: Callable[[Sequence[Item]], None]) -> list[tuple[Item, Exception]]:
        try:
            do(lot)
        except self._passing:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is handed on with what it comes from
            if len(lot) == 1:
                return [(lot[0], error)]
            half = len(lot) // 2
            return self._sift(lot[:half], do) + self._sift(lot[half:], do)
        return []
