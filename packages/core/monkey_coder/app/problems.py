"""Errors as RFC 9457 problem documents: one way for the hot endpoints and for FastAPI's own."""

from __future__ import annotations

import math
from typing import Final

import orjson
from starlette.responses import Response

from monkey_coder.errors import RouterError
from monkey_coder.models import Problem

MEDIA_TYPE: Final = "application/problem+json"
INTERNAL: Final = "something broke inside; the log of the server says what"


def problem_response(problem: Problem, retry_after_s: float | None = None) -> Response:
    """Render a problem document."""
    headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
    body = orjson.dumps(problem.model_dump())
    return Response(body, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def error_response(error: RouterError) -> Response:
    """Render an error of ours."""
    return problem_response(error.problem(), error.retry_after_s)
