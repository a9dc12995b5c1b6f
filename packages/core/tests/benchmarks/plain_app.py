"""The yardstick: a plain Starlette route that validates the same body, and decides nothing."""

from __future__ import annotations

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from monkey_coder.models import RouteRequest


async def validate(request: Request) -> Response:
    try:
        body = RouteRequest.model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse({"errors": error.error_count()}, status_code=422)
    return JSONResponse({"chars": len(body.request.prompt)})


async def ready(_: Request) -> Response:
    return JSONResponse({"status": "ready"})


app = Starlette(routes=[Route("/v1/quantum/route", validate, methods=["POST"]), Route("/readyz", ready)])
