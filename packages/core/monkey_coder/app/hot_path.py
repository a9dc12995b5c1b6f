"""The front of the application: bounds every body, and answers the hot endpoint before any framework runs.

`POST /v1/quantum/route` goes from the socket to the batcher and back in plain ASGI. FastAPI knows the endpoint as
well (`main` declares it with the same `respond`), so that the OpenAPI document describes it truly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson
from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monkey_coder.api_keys import settled
from monkey_coder.app.access import admit, refusal
from monkey_coder.app.feedback import FEEDBACK_BATCH_PATH, FEEDBACK_PATH, respond_feedback, respond_feedback_batch
from monkey_coder.app.problems import INTERNAL, error_response
from monkey_coder.bootstrap import Engine
from monkey_coder.errors import BodyTooLargeError, OverloadedError, RouterError
from monkey_coder.models import Preferences, RouteBatchRequest, RouteRequest
from monkey_coder.quantum.cache_parts import Asked, Reply
from monkey_coder.validation import from_validation

PATH: Final = "/v1/quantum/route"
BATCH_PATH: Final = "/v1/quantum/route/batch"

_JSON: Final = (b"content-type", b"application/json")
_FEEDBACK: Final = {FEEDBACK_PATH: respond_feedback, FEEDBACK_BATCH_PATH: respond_feedback_batch}

TURNED_AWAY: Final = error_response(OverloadedError())
"""Rendered once: a server that has too much to do must not work on its refusals."""

WATCH_AFTER_S: Final = 0.25
"""How long a request has waited before its caller is watched: most are answered by then, and watching costs as much as
a third of a decision."""

_log = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The caller closed the connection before its request was complete."""


class Front:
    """ASGI application in front of the framework's.

    Args:
        app: Answers everything but the hot endpoint.
        engine: Returns the running engine.
        max_body_bytes: Limit of any request body.
    """

    def __init__(self, app: ASGIApp, engine: Callable[[], Engine], max_body_bytes: int) -> None:
        self.app = app
        self._engine = engine
        self.max_body_bytes = max_body_bytes

    @property
    def engine(self) -> Engine:
        """The running engine."""
        return self._engine()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; HEAD is answered like GET, and the server leaves out the body.

        While too many wait, who asks for a decision is turned away as soon as the first part of the body is here, or,
        if that is all of it, unless the cache knows the answer.
        """
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if scope["type"] != "lifespan":
            try:
                scope["caller"] = caller = admit(scope, self._engine().keys.table)
            except RouterError as error:
                await self._refuse(error, scope, receive, send)
                return
        if scope["type"] != "http" or scope["method"] in ("GET", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        hopeless = (lambda: self._engine().batcher.full) if scope["path"] == PATH else None
        try:
            body = await read_body(receive, self.max_body_bytes, hopeless)
        except ClientGoneError:
            return
        except OverloadedError:
            await self._turn_away(scope, receive, send)
            return
        except BodyTooLargeError as error:
            if scope["path"] in (PATH, BATCH_PATH):
                self._engine().metrics.on_finished(error.code)
            await error_response(error)(scope, receive, send)
            return
        if scope["path"] == PATH and scope["method"] == "POST":
            engine = self._engine()
            if engine.batcher.full:
                known = recalled(body, engine, caller.defaults)
                if known is None:
                    await self._turn_away(scope, receive, send)
                    return
                decided = finish(known, engine)
            else:
                try:
                    decided = await decide(body, engine, receive, caller.defaults)
                except ClientGoneError:
                    return
            if isinstance(decided, Response):
                await decided(scope, receive, send)
            else:
                length = (b"content-length", b"%d" % len(decided))
                await send({"type": "http.response.start", "status": 200, "headers": [_JSON, length]})
                await send({"type": "http.response.body", "body": decided})
        elif scope["path"] == BATCH_PATH and scope["method"] == "POST":
            response = await respond_batch(body, self._engine(), caller.defaults)
            await response(scope, receive, send)
        elif scope["path"] in _FEEDBACK and scope["method"] == "POST":
            response = await _FEEDBACK[scope["path"]](body, content_type(scope["headers"]), self._engine(), caller.id)
            await response(scope, receive, send)
        else:
            await self.app(scope, _replay(body, receive), send)

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._engine().metrics.on_finished(OverloadedError.code)
        await TURNED_AWAY(scope, receive, send)

    async def _refuse(self, error: RouterError, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in (PATH, BATCH_PATH):
            self._engine().metrics.on_finished(error.code)
        elif scope["path"] in _FEEDBACK:
            self._engine().metrics.on_feedback(error.code)
        await refusal(error)(scope, receive, send)


def content_type(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What a request says its body is; empty where it says nothing."""
    return next((value.decode("latin-1") for name, value in headers if name == b"content-type"), "")


async def respond(body: bytes, engine: Engine, receive: Receive, defaults: Preferences | None = None) -> Response:
    """The same as `decide`, always as a response."""
    decided = await decide(body, engine, receive, defaults)
    return decided if isinstance(decided, Response) else Response(decided, media_type="application/json")


async def decide(
    body: bytes, engine: Engine, receive: Receive, defaults: Preferences | None = None
) -> bytes | Response:
    """Decide one request, from the bytes of its body to those of the decision, or to the response that tells a problem.

    Args:
        body: As it came.
        engine: Decides.
        receive: Tells when the caller goes away.
        defaults: Preferences where the request says nothing, or None.

    Raises:
        ClientGoneError: The caller did not wait for the answer; the request was withdrawn.
    """
    reply: Reply | Exception
    try:
        begun = begin(body, engine, defaults)
        reply = await _decided(begun, engine, receive) if isinstance(begun, Asked) else begun
    except ClientGoneError:
        engine.metrics.on_finished("abandoned")
        raise
    except Exception as error:  # noqa: BLE001 - `finish` tells it apart
        reply = error
    return finish(reply, engine)


def begin(body: bytes, engine: Engine, defaults: Preferences | None) -> Asked | Reply:
    """The answer to a request, if the cache can give it at once; else what the batcher is to be asked.

    Args:
        body: As it came.
        engine: Decides.
        defaults: Preferences where the request says nothing, or None.

    Raises:
        InvalidRequestError: The body is not a request.
    """
    known = recalled(body, engine, defaults)
    if known is not None:
        return known
    cache = engine.caching.cache
    request = parse(body)
    asked = cache.ask(request if defaults is None else settled(request, defaults))
    found = cache.find(asked, body if defaults is None else None)
    return asked if found is None else found


def recalled(body: bytes, engine: Engine, defaults: Preferences | None) -> bytes | None:
    """The answer to a request whose very bytes the cache knows; arguments as of `begin`."""
    return engine.caching.cache.recall(body) if defaults is None else None


def finish(reply: Reply | Exception, engine: Engine) -> bytes | Response:
    """Count a request as over; returns its decision, or the response that tells a problem. Never raises.

    Args:
        reply: The decision; or what went wrong, of which callers are told no more than is meant for them.
        engine: Counts.
    """
    if isinstance(reply, dict):
        try:
            reply = orjson.dumps(reply)
        except orjson.JSONEncodeError as error:
            reply = error
    if isinstance(reply, bytes):
        engine.metrics.on_finished("decided")
        return reply
    if not isinstance(reply, RouterError):
        _log.error("a request failed", exc_info=reply)
        reply = RouterError(INTERNAL)
    engine.metrics.on_finished(reply.code)
    return error_response(reply)


async def respond_batch(body: bytes, engine: Engine, defaults: Preferences | None = None) -> Response:
    """Decide many requests; each gets its own answer or problem, in order. `defaults` as in `respond`."""
    try:
        batch = RouteBatchRequest.model_validate_json(body)
    except ValidationError as error:
        invalid = from_validation(error)
        engine.metrics.on_finished(invalid.code)
        return error_response(invalid)
    requests = batch.requests if defaults is None else [settled(request, defaults) for request in batch.requests]
    waiting = [_submitted(request, engine) for request in requests]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    results = [_in_batch(answer, engine) for answer in answers]
    return Response(orjson.dumps({"results": results}), media_type="application/json")


async def _submitted(request: RouteRequest, engine: Engine) -> Reply:
    asked = engine.caching.cache.ask(request)
    found = engine.caching.cache.find(asked)
    return await engine.batcher.submit(asked) if found is None else found


def _in_batch(answer: Reply | BaseException, engine: Engine) -> Mapping[str, Any]:
    if isinstance(answer, BaseException) and not isinstance(answer, RouterError):
        _log.error("a request of a batch failed", exc_info=answer)
        answer = RouterError(INTERNAL)
    if isinstance(answer, RouterError):
        engine.metrics.on_finished(answer.code)
        return {"decision": None, "problem": answer.problem().model_dump()}
    engine.metrics.on_finished("decided")
    return {"decision": orjson.Fragment(answer) if isinstance(answer, bytes) else answer, "problem": None}


async def _decided(asked: Asked, engine: Engine, receive: Receive) -> Reply:
    """Queue a request; one that waits long is withdrawn when its caller goes away."""
    future = engine.batcher.submit(asked)
    if len(engine.batcher) <= engine.settings.max_batch:
        return await future
    watches: list[asyncio.Task[None]] = []

    def watch() -> None:
        watches.append(asyncio.create_task(_cancel_when_gone(future, receive)))

    timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, watch)
    try:
        return await future
    except asyncio.CancelledError:
        if any(task.done() and not task.cancelled() for task in watches):
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        for task in watches:
            task.cancel()


async def _cancel_when_gone(future: asyncio.Future[Reply], receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()


def parse(body: bytes) -> RouteRequest:
    """Read a request from the bytes of a body.

    Raises:
        InvalidRequestError: It is not JSON, or not a request; the error names every field that is wrong.
    """
    try:
        return RouteRequest.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error


async def read_body(receive: Receive, limit_bytes: int, hopeless: Callable[[], bool] | None = None) -> bytes:
    """Read a request body.

    Args:
        receive: Where it comes from.
        limit_bytes: The most that is read.
        hopeless: Says whether it is of no use to wait for the rest of a body.

    Raises:
        BodyTooLargeError: It is longer than `limit_bytes`; the rest is not read.
        OverloadedError: It is hopeless; the rest is not read.
        ClientGoneError: The connection broke off.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        if more and hopeless is not None and hopeless():
            raise OverloadedError
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already to an application that wants to read it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
