"""What is wrong with a request, field by field, without repeating what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from monkey_coder.errors import InvalidJsonError, InvalidRequestError

MOST_FIELDS: Final = 20
"""Mistakes named in one answer."""

MOST_MISTAKES: Final = 1000
"""Mistakes past which none is named: to describe 80,000 of them would keep everybody else waiting."""

LONGEST_NAME: Final = 60
"""Characters of a field name that are said back; the names of unknown fields are the caller's own."""


def from_validation(error: ValidationError) -> InvalidRequestError:
    """Name the fields that are wrong, and what is wrong with them."""
    if error.error_count() > MOST_MISTAKES:
        return InvalidRequestError(f"body: {error.error_count()} mistakes; /openapi.json describes what is expected")
    return from_mistakes(error.errors(include_url=False, include_context=False, include_input=False))


def from_mistakes(mistakes: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """The same from the dictionaries that pydantic and FastAPI make."""
    if mistakes[0]["type"] == "json_invalid":
        return InvalidJsonError(f"the body is not valid JSON: {mistakes[0]['msg'].removeprefix('Invalid JSON: ')}")
    fields = [
        {"field": _path(m["loc"]), "message": m["msg"].removeprefix("Value error, ")} for m in mistakes[:MOST_FIELDS]
    ]
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return InvalidRequestError(f"{fields[0]['field']}: {fields[0]['message']}{more}", fields)


def _path(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_short(part)}" for part in location)
    return path.removeprefix(".body").removeprefix(".") or "body"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
