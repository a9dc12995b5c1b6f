"""Frozen dataclasses of arrays, taken apart into named arrays and JSON values for a file, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import PolicyError

Arrays = dict[str, NDArray[Any]]
Part = TypeVar("Part")


def take_apart(part: Any, but: frozenset[str] = frozenset()) -> tuple[Arrays, dict[str, Any]]:  # noqa: ANN401 (any dataclass)
    """Split a dataclass into its arrays, and all else as JSON values.

    Args:
        part: A dataclass instance whose fields are arrays, numbers, texts or tuples of these.
        but: Fields to leave out.
    """
    values = {f.name: getattr(part, f.name) for f in fields(part) if f.name not in but}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    rest = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if name not in arrays}
    return arrays, rest


def put_together(
    kind: type[Part],
    arrays: Mapping[str, NDArray[Any]],
    header: Mapping[str, Any],
    **more: Any,  # noqa: ANN401
) -> Part:
    """Rebuild what `take_apart` split.

    Args:
        kind: The dataclass.
        arrays: By field name; others are ignored.
        header: JSON values by field name; others are ignored.
        **more: Values of the fields that were left out.

    Raises:
        PolicyError: A field is missing, an array is not finite, or shapes contradict each other.
    """
    values: dict[str, Any] = dict(more)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            continue
        if field.name in arrays:
            values[field.name] = arrays[field.name]
            if not np.isfinite(arrays[field.name]).all():
                raise PolicyError(f"{field.name} of the {kind.__name__} is not finite; it must not be served: retrain")
        elif field.name in header:
            value = header[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        else:
            raise PolicyError(f"{field.name} of the {kind.__name__} is missing; restore or retrain it")
    return kind(**values)


def check_shapes(part: object, **shapes: tuple[int, ...]) -> None:
    """Compare the shapes of arrays with what they must be.

    Raises:
        PolicyError: One differs; the message names it.
    """
    for name, shape in shapes.items():
        found = getattr(part, name).shape
        if found != shape:
            raise PolicyError(f"{name} of the {type(part).__name__} has shape {found}, not {shape}; retrain it")
