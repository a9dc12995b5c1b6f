"""Values of which every decision makes dozens: they cost less to build, and are as constant as mypy can see to it.

A frozen dataclass sets every field through `object.__setattr__`, which takes three to five times as long as setting it,
and until Python 3.12 `functools.cached_property` takes a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

Made = TypeVar("Made")

if TYPE_CHECKING:
    from functools import cached_property as once
else:

    class once:  # noqa: N801 - it is written as a decorator
        """A property that is worked out when it is first read, and then kept; on classes without slots alone.

        Two threads that read it first at the same time may both work it out, which for pure values is as good.
        """

        def __init__(self, work_out: Callable[[Any], Any]) -> None:
            self._work_out = work_out
            self._name = work_out.__name__
            self.__doc__ = work_out.__doc__

        def __get__(self, owner: object, kind: type | None = None) -> object:
            """Work it out; what is kept then stands before this on the instance."""
            if owner is None:
                return self
            kept = owner.__dict__[self._name] = self._work_out(owner)
            return kept


@dataclass_transform(frozen_default=True)
def lean(kind: type[Made]) -> type[Made]:
    """A dataclass that is not to be changed, of which nothing but mypy takes care."""
    return dataclass(slots=True)(kind)


@dataclass_transform(frozen_default=True)
def lean_with_room(kind: type[Made]) -> type[Made]:
    """The same without slots, so that `once` has somewhere to keep what it worked out."""
    return dataclass(kind)


__all__ = ["lean", "lean_with_room", "once"]
