"""The models that a request names, held against those there are."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import UnknownModelError
from monkey_coder.models import RouteRequest


def require_known_models(request: RouteRequest, table: ModelTable) -> None:
    """Make sure that every model that a request names is in the catalog.

    Raises:
        UnknownModelError: One is not; the message says where it stands, and what may have been meant.
    """
    for field, ref in _named_models(request):
        if ref not in table.index:
            raise UnknownModelError(field, ref, get_close_matches(ref, table.refs))


def _named_models(request: RouteRequest) -> Iterator[tuple[str, str]]:
    for number, ref in enumerate(request.request.allowed_models):
        yield f"request.allowed_models[{number}]", ref
    for number, ref in enumerate(request.request.excluded_models):
        yield f"request.excluded_models[{number}]", ref
    for number, attempt in enumerate(request.episode.attempts):
        yield f"episode.attempts[{number}].model", attempt.model
