"""A client of the routing engine for Python programs, blocking and asynchronous; `docs/how-to/client.md` shows both.

It needs httpx and the models of this package alone: ``pip install monkey-coder[client]``.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx

from monkey_coder.client_course import Course, EpisodeResult, Tried
from monkey_coder.models import (
    ExecuteRequest,
    FeedbackBatchAnswer,
    FeedbackBatchRequest,
    FeedbackRequest,
    FeedbackResult,
    Problem,
    RouteRequest,
    RoutingDecision,
    Value,
)

__all__ = ["AsyncRoutingClient", "EpisodeResult", "RoutingClient", "RoutingError", "Tried"]

_ROUTE: Final = "/v1/quantum/route"
_FEEDBACK: Final = "/v1/quantum/feedback"
_BATCH: Final = "/v1/quantum/feedback/batch"
_KEY_VARIABLE: Final = "MONKEY_CODER_API_KEY"
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0


class RoutingError(Exception):
    """The engine refused, or did not answer in time.

    Attributes:
        problem: What it said (RFC 9457); `status` 0 and code `unreachable` when it said nothing.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem


@dataclass
class _Patience:
    """How often, and when, a request is sent again."""

    retries: int
    rng: random.Random
    sent: int = 0

    def wait_s(self, response: httpx.Response | None) -> float | None:
        """Seconds to wait before sending again; None: this was the last time, or the answer is final."""
        self.sent += 1
        if self.sent > self.retries or (response is not None and response.status_code != 503):
            return None
        told = response.headers.get("retry-after", "") if response is not None else ""
        own = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self.sent - 1)) * self.rng.uniform(0.5, 1.0)
        return max(own, float(told)) if told.isdecimal() else own


class RoutingClient:
    """Talks to one engine. Safe to share between threads.

    Args:
        base_url: Such as ``http://127.0.0.1:8000``.
        api_key: Sent as a bearer token; None: what ``MONKEY_CODER_API_KEY`` says; empty: none.
        timeout_s: Of one request.
        retries: Further tries after a 503 or a broken connection; each waits at least what `Retry-After` says.
        transport: Instead of the network, for tests.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=transport)
        self._retries, self._sleep, self._rng = retries, sleep, random.Random()  # noqa: S311 - jitter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def route(self, task: str | RouteRequest) -> RoutingDecision:
        """Ask which model to use next.

        Args:
            task: A prompt, or a whole request.

        Raises:
            RoutingError: No model fits, the request is wrong, or the engine does not answer.
        """
        return RoutingDecision.model_validate_json(self._post(_ROUTE, _request(task)).content)

    def feedback(self, report: FeedbackRequest) -> bool:
        """Tell what became of a decision; returns once that is durable.

        Returns:
            Whether the report was new.

        Raises:
            RoutingError: The id is forged or expired, the report is wrong, or the engine does not answer.
        """
        return self._post(_FEEDBACK, report).status_code == 202

    def feedback_batch(self, reports: Sequence[FeedbackRequest]) -> tuple[FeedbackResult, ...]:
        """Tell what became of up to 1,000 decisions; the results are in the same order.

        Raises:
            RoutingError: The batch as a whole was not taken.
        """
        response = self._post(_BATCH, FeedbackBatchRequest(reports=tuple(reports)))
        return FeedbackBatchAnswer.model_validate_json(response.content).results

    def episode(
        self, task: str | RouteRequest, attempt: Callable[[RoutingDecision], Tried], max_attempts: int = 4
    ) -> EpisodeResult:
        """Route, try, report, and escalate until a try passes, or the budget or the attempts end.

        The budget is the request's ``preferences.max_cost_usd``; the engine takes off what the tries cost.

        Args:
            task: A prompt, or a whole request.
            attempt: Calls the model that was decided on, and judges the answer. What it raises is reported as an
                error of type ``other`` and goes on to the caller.
            max_attempts: The most tries, at least 1.

        Raises:
            RoutingError: As `route` and `feedback`, except that no model is left.
        """
        course = Course(_request(task), max_attempts)
        while (end := course.ended()) is None:
            try:
                decision = self.route(course.request())
            except RoutingError as error:
                if not _nothing_left(error):
                    raise
                if course.tries:
                    self.feedback(course.report(final=True))
                return EpisodeResult("no_model", tuple(course.tries))
            try:
                tried = attempt(decision)
            except BaseException:
                self.feedback(_failed(decision))
                raise
            self.feedback(course.note(decision, tried))
        return end

    def _post(self, path: str, body: Value) -> httpx.Response:
        patience = _Patience(self._retries, self._rng)
        content = _content(body)
        while True:
            response, broken = None, None
            try:
                response = self._http.post(path, content=content)
            except httpx.TransportError as error:
                broken = error
            wait_s = patience.wait_s(response)
            if wait_s is None:
                return _answered(response, broken)
            self._sleep(wait_s)


class AsyncRoutingClient:
    """The same for an event loop; the arguments are those of `RoutingClient`, their calls asynchronous."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=transport
        )
        self._retries, self._sleep, self._rng = retries, sleep, random.Random()  # noqa: S311 - jitter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def route(self, task: str | RouteRequest) -> RoutingDecision:
        """As `RoutingClient.route`."""
        return RoutingDecision.model_validate_json((await self._post(_ROUTE, _request(task))).content)

    async def feedback(self, report: FeedbackRequest) -> bool:
        """As `RoutingClient.feedback`."""
        return (await self._post(_FEEDBACK, report)).status_code == 202

    async def feedback_batch(self, reports: Sequence[FeedbackRequest]) -> tuple[FeedbackResult, ...]:
        """As `RoutingClient.feedback_batch`."""
        response = await self._post(_BATCH, FeedbackBatchRequest(reports=tuple(reports)))
        return FeedbackBatchAnswer.model_validate_json(response.content).results

    async def episode(
        self,
        task: str | RouteRequest,
        attempt: Callable[[RoutingDecision], Awaitable[Tried]],
        max_attempts: int = 4,
    ) -> EpisodeResult:
        """As `RoutingClient.episode`, with an attempt that is awaited."""
        course = Course(_request(task), max_attempts)
        while (end := course.ended()) is None:
            try:
                decision = await self.route(course.request())
            except RoutingError as error:
                if not _nothing_left(error):
                    raise
                if course.tries:
                    await self.feedback(course.report(final=True))
                return EpisodeResult("no_model", tuple(course.tries))
            try:
                tried = await attempt(decision)
            except Exception:
                await self.feedback(_failed(decision))
                raise
            await self.feedback(course.note(decision, tried))
        return end

    async def _post(self, path: str, body: Value) -> httpx.Response:
        patience = _Patience(self._retries, self._rng)
        content = _content(body)
        while True:
            response, broken = None, None
            try:
                response = await self._http.post(path, content=content)
            except httpx.TransportError as error:
                broken = error
            wait_s = patience.wait_s(response)
            if wait_s is None:
                return _answered(response, broken)
            await self._sleep(wait_s)


def _request(task: str | RouteRequest) -> RouteRequest:
    return RouteRequest(request=ExecuteRequest(prompt=task)) if isinstance(task, str) else task


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    key = os.environ.get(_KEY_VARIABLE, "") if api_key is None else api_key
    return headers | {"authorization": f"Bearer {key}"} if key else headers


def _content(body: Value) -> bytes:
    return body.model_dump_json(exclude_unset=True).encode()


def _failed(decision: RoutingDecision) -> FeedbackRequest:
    return FeedbackRequest(decision_id=decision.decision_id, model=decision.ref, error_type="other")


def _nothing_left(error: RoutingError) -> bool:
    return error.problem.code in ("no_eligible_model", "all_models_unavailable")


def _answered(response: httpx.Response | None, broken: httpx.TransportError | None) -> httpx.Response:
    """The answer if it is a good one, an error otherwise."""
    if response is None:
        detail = f"the engine cannot be reached: {broken}"
        raise RoutingError(Problem(title="Unreachable", status=0, code="unreachable", detail=detail)) from broken
    if response.status_code >= 400:
        try:
            raise RoutingError(Problem.model_validate_json(response.content))
        except ValueError as error:  # it was not the engine that answered
            status, detail = response.status_code, f"status {response.status_code}: {response.text[:200]}"
            raise RoutingError(Problem(title="Error", status=status, code="http_error", detail=detail)) from error
    return response
