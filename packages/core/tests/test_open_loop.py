"""The load generator of the benchmarks: what it reports must be what happened."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from monkey_coder.models import RouteRequest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def open_loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("open_loop")


class Server(asyncio.Protocol):
    """Answers as told, one request after the other; an answer of None breaks the connection."""

    asked = 0
    stalled_until = 0.0

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self._answer = answer
        self._buffer = b""
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(head.rpartition(b"content-length: ")[2]) if found else 0
        if not found or len(rest) < length:
            return
        self._buffer = b""
        Server.asked += 1
        loop = asyncio.get_running_loop()
        self._later = loop.call_at(max(loop.time(), Server.stalled_until), self._reply, Server.asked)

    def connection_lost(self, _: Exception | None) -> None:
        if self._later is not None:
            self._later.cancel()

    def _reply(self, number: int) -> None:
        answer = self._answer(number)
        if answer is None:
            self._transport.abort()
        else:  # in two pieces, as networks do
            self._transport.write(answer[:20])
            self._transport.write(answer[20:])


def http(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 2", "", "ok"]).encode()


OK = http("200 OK")


@asynccontextmanager
async def serving(answer: Callable[[int], bytes | None]) -> AsyncIterator[str]:
    Server.asked, Server.stalled_until = 0, 0.0
    server = await asyncio.get_running_loop().create_server(lambda: Server(answer), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_every_request_is_valid_and_every_prompt_another(open_loop: Any) -> None:
    requests = open_loop.route_requests(200, "host:1", seed=3) + open_loop.route_requests(200, "host:1", seed=4)
    bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
    read = [RouteRequest.model_validate_json(body) for body in bodies]
    assert len({each.request.prompt for each in read}) == 400
    assert {each.quantum_config.cache for each in read} == {"bypass"}
    for request, body in zip(requests, bodies, strict=True):
        assert f"content-length: {len(body)}\r\n".encode() in request
    orjson.loads(bodies[0])


async def test_all_is_sent_at_the_rate_asked_for(open_loop: Any) -> None:
    async with serving(lambda _: OK) as url:
        record = await open_loop.Load(url, open_loop.route_requests(200, "h"), 400.0, 5).run()
    assert sorted(record.due) == pytest.approx([number / 400.0 for number in range(200)], abs=1e-6)
    assert record.status == [200] * 200
    said = open_loop.summary(record, 200, 0.5)
    assert (said["requests"], said["accepted"], said["refused"], said["errors"]) == (200, 200, 0, 0)
    assert said["p50_ms"] <= said["p95_ms"] <= said["p99_ms"] <= said["max_ms"]


async def test_a_stall_makes_everything_late_that_was_due_meanwhile(open_loop: Any) -> None:
    def stall_once(number: int) -> bytes:
        if number == 20:
            Server.stalled_until = asyncio.get_running_loop().time() + 0.4
        return OK

    async with serving(stall_once) as url:  # a single connection: a closed loop would see one slow answer
        record = await open_loop.Load(url, open_loop.route_requests(200, "h"), 200.0, 1).run()
    late = [latency for latency in record.latency if latency > 0.1]
    assert len(late) >= 50  # 0.3 s of 200 a second, and those behind them
    assert max(late) >= 0.3
    said = open_loop.summary(record, 200, 1.0)
    assert said["lag_max_ms"] > 100.0
    assert said["last_bad_s"] > 0.1 + 0.2


async def test_refusals_and_broken_connections_are_told_apart(open_loop: Any) -> None:
    answers = {0: http("503 Service Unavailable", "Retry-After: 1"), 1: http("503 Service Unavailable"), 2: None}
    async with serving(lambda number: answers.get(number % 10, OK)) as url:
        record = await open_loop.Load(url, open_loop.route_requests(100, "h"), 500.0, 40).run()
    said = open_loop.summary(record, 100, 0.2)
    assert (said["accepted"], said["refused"], said["errors"]) == (70, 20, 10)
    assert said["refused_with_retry_after"] == 10
    assert said["refused_in_50_ms"] is not None


async def test_what_is_never_answered_is_an_error(open_loop: Any) -> None:
    def stop(number: int) -> bytes:
        if number >= 5:
            Server.stalled_until = asyncio.get_running_loop().time() + 60.0
        return OK

    async with serving(stop) as url:
        record = await open_loop.Load(url, open_loop.route_requests(10, "h"), 1000.0, 1).run(patience_s=0.2)
    said = open_loop.summary(record, 10, 0.01)
    assert said["accepted"] + said["errors"] == 10
    assert said["errors"] >= 1


def test_the_page_says_what_was_measured_where_and_whether_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    report = importlib.import_module("throughput_report")
    made = report.Report()
    rounds = [
        {"rate": rate, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": 0, "refused": 0} for rate in (1, 3, 9)
    ]
    made.rows.append(report.Row("closed loop", "engine", rounds))
    made.rows.append(report.Row("closed loop", "plain", rounds, [0.5, 0.25, 1.0]))
    made.judge("fast enough", "3/s", met=False)
    made.stages = [{"stage": "parse", "batch_1_us": 6.04, "batch_64_us": 4.8}]
    page = made.page({"Machine": "a small one"}, ["--rounds", "3"], 10.0, 3, "abc")
    assert "| closed loop | engine | 3 | 1.00 | 2.00 | 3.00 | - | 0 | - |" in page
    assert "0.50 (0.25 to 1.00)" in page
    assert "| fast enough | 3/s | no |" in page
    assert "| parse | 6.0 | 4.8 |" in page
    for part in ("a small one", "bench_http.py --rounds 3", "abc"):
        assert part in page
