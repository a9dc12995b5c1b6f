"""The web application: endpoints parse, call one method, and shape the answer."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from monkey_coder import __version__
from monkey_coder.api_keys import settled
from monkey_coder.app import cache, catalog, decisions, preferences, training
from monkey_coder.app.access import OPERATIONS, caller_of, role_of
from monkey_coder.app.feedback import FEEDBACK_BATCH_PATH, FEEDBACK_PATH, respond_feedback, respond_feedback_batch
from monkey_coder.app.hot_path import BATCH_PATH, PATH, Front, parse, respond, respond_batch
from monkey_coder.app.problems import INTERNAL, MEDIA_TYPE, error_response, problem_response
from monkey_coder.app.providers import OVERRIDE_PATH, PROVIDERS_PATH, override_provider, provider_reports
from monkey_coder.bootstrap import Engine, open_engine
from monkey_coder.errors import RouterError
from monkey_coder.models import (
    FeedbackAnswer,
    FeedbackBatchAnswer,
    FeedbackBatchRequest,
    FeedbackRequest,
    OverrideRequest,
    Problem,
    RouteBatchAnswer,
    RouteBatchRequest,
    RouteRequest,
    RoutingDecision,
)
from monkey_coder.settings import Settings
from monkey_coder.validation import from_mistakes


async def engine_of(request: Request) -> Engine:
    """The engine that this process runs."""
    engine: Engine = request.app.state.engine
    return engine


RunningEngine = Annotated[Engine, Depends(engine_of)]

SWITCH_INTERVAL_S = 0.0005
PARENT_EVERY_S = 1.0

LONGEST_PATH = 200
"""Characters of an unknown path that are said back."""


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """How the OpenAPI document tells of a body that the endpoint reads by hand."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class Health(BaseModel):
    """Whether the process lives."""

    status: str
    version: str


def create_app(
    settings: Settings,
    open_: Callable[[Settings], AbstractAsyncContextManager[Engine]] = open_engine,
) -> Front:
    """Build the application; nothing is opened before its lifespan starts.

    Args:
        settings: From the environment.
        open_: Builds and closes the engine.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_(settings) as engine:
            app.state.engine = engine
            yield

    api = FastAPI(
        title="Quantum Routing Engine",
        version=__version__,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_error_handlers(api)
    _add_endpoints(api)
    _add_learning_endpoints(api)
    api.include_router(decisions.router)
    api.include_router(catalog.router)
    api.include_router(preferences.router)
    api.include_router(training.router)
    api.include_router(cache.router)
    api.openapi = lambda: _openapi(api)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return Front(api, lambda: api.state.engine, settings.max_body_bytes)


def create_app_from_environment() -> Front:
    """Factory for server processes that are started by name."""
    return create_app(Settings.from_environment(os.environ), _open_and_settle)


@asynccontextmanager
async def _open_and_settle(settings: Settings) -> AsyncIterator[Engine]:
    """Open the engine, and settle how this process shares its one interpreter.

    The garbage collector is kept away from all that lives as long as the process: answers are trees without cycles and
    go by reference count; full collections would only walk the catalog, the prices and the tokenizer again and again,
    in the middle of a batch. Threads take turns sooner than Python's 5 ms: an answer crosses three of them, and whoever
    writes the log must not keep it waiting.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    async with open_engine(settings) as engine:
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        async with asyncio.TaskGroup() as jobs:
            orphaned = jobs.create_task(_end_with_parent(), name="parent")
            try:
                yield engine
            finally:
                orphaned.cancel()


async def _end_with_parent() -> None:
    """End, where this is one of several web processes, when the one that started them is gone.

    Killed outright it cannot take them along, and they would hold the port against the next.
    """
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(PARENT_EVERY_S)
    if parent is not None:
        signal.raise_signal(signal.SIGTERM)


def _add_endpoints(api: FastAPI) -> None:
    one, many = "Choose the provider and model for a task", "The same for up to 256 tasks"

    @api.post(PATH, summary=one, response_model=RoutingDecision, openapi_extra=_body(RouteRequest))
    async def quantum_route(request: Request, engine: RunningEngine) -> Response:
        return await respond(await request.body(), engine, request.receive, caller_of(request).defaults)

    @api.post(BATCH_PATH, summary=many, response_model=RouteBatchAnswer, openapi_extra=_body(RouteBatchRequest))
    async def quantum_route_batch(request: Request, engine: RunningEngine) -> Response:
        return await respond_batch(await request.body(), engine, caller_of(request).defaults)

    front_door = "The Gary8D front door, which obeys the feature flag"

    @api.post("/v1/route", summary=front_door, response_model=RoutingDecision, openapi_extra=_body(RouteRequest))
    async def route(request: Request, engine: RunningEngine) -> Response:
        try:
            task, defaults = parse(await request.body()), caller_of(request).defaults
            task = task if defaults is None else settled(task, defaults)
            decision = await run_in_threadpool(engine.router.route_request, task)
        except RouterError as error:
            engine.metrics.on_finished(error.code)
            raise
        engine.metrics.on_finished("decided")
        if missing := engine.troubles():
            decision = decision.model_copy(update={"degraded": (*decision.degraded, *missing)})
        return Response(decision.model_dump_json(), media_type="application/json")

    @api.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Health:
        return Health(status="ok", version=__version__)

    @api.get("/readyz", summary="Whether it can decide")
    async def readyz(request: Request) -> Health:
        await engine_of(request)
        return Health(status="ready", version=__version__)

    @api.get("/metrics", summary="Prometheus metrics")
    async def metrics(engine: RunningEngine) -> Response:
        for told in engine.following.providers.report():
            engine.metrics.on_provider(told.breaker.name, available=told.available, breaker=told.breaker.state)
        engine.metrics.on_policy(engine.manager.snapshot().policy_version)
        if (learner := engine.learner.status) is not None:
            loss = None if learner.training is None else learner.training.loss
            engine.metrics.on_training(loss=loss, replay_size=learner.counts.get("outcomes"))
        return Response(await run_in_threadpool(engine.exposition.render), media_type=CONTENT_TYPE_LATEST)


def _add_learning_endpoints(api: FastAPI) -> None:
    one, many = "Tell what became of a decision", "The same for up to 1,000 reports"
    known: dict[int | str, dict[str, Any]] = {200: {"description": "Known already; no effect"}}

    @api.post(
        FEEDBACK_PATH,
        summary=one,
        status_code=202,
        responses=known,
        response_model=FeedbackAnswer,
        openapi_extra=_body(FeedbackRequest),
    )
    async def feedback(request: Request, engine: RunningEngine) -> Response:
        said, kind = await request.body(), request.headers.get("content-type", "")
        return await respond_feedback(said, kind, engine, caller_of(request).id)

    @api.post(
        FEEDBACK_BATCH_PATH,
        summary=many,
        status_code=202,
        responses=known,
        response_model=FeedbackBatchAnswer,
        openapi_extra=_body(FeedbackBatchRequest),
    )
    async def feedback_batch(request: Request, engine: RunningEngine) -> Response:
        said, kind = await request.body(), request.headers.get("content-type", "")
        return await respond_feedback_batch(said, kind, engine, caller_of(request).id)

    @api.get(PROVIDERS_PATH, summary="Health, breakers and overrides of all providers")
    async def providers(engine: RunningEngine) -> dict[str, Any]:
        return provider_reports(engine)

    @api.post(OVERRIDE_PATH, summary="Drain a provider, force it, or leave it to the breakers")
    async def override(name: str, wanted: OverrideRequest, engine: RunningEngine) -> dict[str, Any]:
        return await run_in_threadpool(override_provider, engine, name, wanted)


def _add_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(RouterError)
    async def ours(_: Request, error: RouterError) -> Response:
        return error_response(error)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return error_response(from_mistakes(error.errors()))

    @api.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        code, mend = {404: ("not_found", "; /openapi.json lists what there is"), 405: ("method_not_allowed", "")}.get(
            error.status_code, ("http_error", "")
        )
        title = str(error.detail)
        detail = f"{title}: {request.method} {request.url.path[:LONGEST_PATH]}{mend}"
        response = problem_response(Problem(title=title, status=error.status_code, code=code, detail=detail))
        response.headers.update(error.headers or {})
        return response

    @api.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return error_response(RouterError(INTERNAL))


def _openapi(api: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the role that every operation asks for, and problem documents as its errors."""
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, routes=api.routes)
        schemas = document["components"]["schemas"]
        for read_by_hand in (RouteRequest, RouteBatchRequest, FeedbackRequest, FeedbackBatchRequest, Problem):
            schema = read_by_hand.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {}) | {read_by_hand.__name__: schema}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for place, path in document["paths"].items():
            for method, operation in path.items():
                if (role := role_of(place, method.upper())) != OPERATIONS:
                    operation |= {"security": [{"key": []}], "x-role": role}
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {"description": "Problem (RFC 9457)", "content": content}
        api.openapi_schema = document
    return api.openapi_schema
