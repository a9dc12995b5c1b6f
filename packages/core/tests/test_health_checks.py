"""Active checks: real HTTP servers that answer, fail and hang, one process that asks, and all that are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from builders import SetClock
from servers import PATIENCE_S, eventually, free_port, serving

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.health_checks import HEALTH, Check, HealthChecks, HealthView, http_check, stored_checks
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.storage.sqlite_store import SqliteStore

REFS = ("good/one", "sick/one", "silent/one", "gone/one", "unchecked/one")


@pytest.fixture
def clock() -> SetClock:
    return SetClock(1000.0)


async def until(happened: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.01)


class Provider:
    """A real HTTP server whose status may be set; None: it takes the connection, and says nothing."""

    def __init__(self, status: int | None) -> None:
        self.status, self.asked, self.release = status, 0, asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                if self.status is None:
                    await self.release.wait()
                head = b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                writer.write(head % (self.status or 200))
                await writer.drain()
        finally:  # also when the test ends meanwhile
            writer.close()

    async def start(self) -> tuple[asyncio.Server, str]:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/health"


def told(store: SqliteStore, clock: SetClock, every_s: float) -> set[str]:
    """Which providers another process holds to be reachable."""
    manager = ProviderManager(REFS, clock, np.random.default_rng(0))
    HealthView(store, manager, every_s, clock).look()
    reports = {report.breaker.name: report for report in manager.report()}
    assert all(report.available == report.healthy for report in reports.values())
    return {name for name, report in reports.items() if report.healthy}


async def test_what_does_not_answer_is_kept_away_until_it_does(store: SqliteStore, clock: SetClock) -> None:
    every_s = 0.02
    good, sick, silent = Provider(404), Provider(503), Provider(None)  # 404 is an answer, too
    started = [await provider.start() for provider in (good, sick, silent)]
    urls = dict(zip(("good", "sick", "silent"), (url for _, url in started), strict=True))
    urls["gone"] = f"http://127.0.0.1:{free_port()}/"
    with ThreadPoolExecutor(1) as executor:
        async with http_check(timeout_s=1.0) as check:
            checks = HealthChecks(store, urls, check, every_s, "one", clock)
            running = asyncio.create_task(checks.run(executor))
            await until(lambda: told(store, clock, every_s) == {"good", "unchecked"})
            said = {"sick": "503", "silent": "Timeout", "gone": "ConnectError"}
            await until(lambda: all(words in stored_checks(store)[name].said for name, words in said.items()))
            sick.status = silent.status = 200
            silent.release.set()
            await until(lambda: told(store, clock, every_s) == {"good", "unchecked", "sick", "silent"})
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        clock.now += 10.0
        assert told(store, clock, every_s) == {name.partition("/")[0] for name in REFS}
    for server, _ in started:
        server.close()


async def test_one_process_asks_for_all(store: SqliteStore, clock: SetClock) -> None:
    asked: dict[str, int] = {"one": 0, "two": 0}

    def counting(name: str) -> Check:
        async def check(url: str) -> int:
            asked[name] += 1
            return 200

        return check

    with ThreadPoolExecutor(2) as executor:
        runs = [
            asyncio.create_task(HealthChecks(store, {"p": "x"}, counting(name), 0.01, name, clock).run(executor))
            for name in asked
        ]
        await until(lambda: sum(asked.values()) >= 5)
        assert 0 in asked.values()
        first = max(asked, key=lambda name: asked[name])
        runs[list(asked).index(first)].cancel()

        def taken_over() -> bool:
            clock.now += 1.0  # its lease runs out, also one that it was about to renew
            return min(asked.values()) >= 2

        await until(taken_over)
        for run in runs:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


def test_one_failure_is_none_and_what_cannot_be_read_counts_for_nothing(
    store: SqliteStore, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_document(HEALTH, "good", b'{"at": 1000.0, "failures": 1, "said": "500"}', 0)
    store.put_document(HEALTH, "sick", b'{"at": "yesterday"}', 0)
    assert told(store, clock, 10.0) == {"good", "sick", "silent", "gone", "unchecked"}
    assert "sick cannot be read" in caplog.text


async def test_checks_go_on_when_the_store_was_away(
    store: SqliteStore, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(url: str) -> int:
        raise AssertionError("nobody may ask without the lease")

    store.close()
    with ThreadPoolExecutor(1) as executor:
        run = asyncio.create_task(HealthChecks(store, {"p": "x"}, never, 0.01, "one", clock).run(executor))
        await until(lambda: caplog.text.count("put off") >= 2)
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run


async def test_checks_go_on_over_what_another_release_wrote(store: SqliteStore, clock: SetClock) -> None:
    store.put_document(HEALTH, "p", b'{"at": "yesterday"}', 0)

    async def good(url: str) -> int:
        return 200

    with ThreadPoolExecutor(1) as executor:
        run = asyncio.create_task(HealthChecks(store, {"p": "x"}, good, 0.01, "one", clock).run(executor))
        await until(lambda: run.done() or "p" in stored_checks(store))
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
    assert stored_checks(store)["p"].failures == 0


async def test_a_check_reads_no_body_and_an_address_that_cannot_be_one_is_not_reached() -> None:
    ended = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"4\r\nnope\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server, http_check(PATIENCE_S) as check:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await asyncio.wait_for(check(address), PATIENCE_S) == 200
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        with pytest.raises(OSError, match="InvalidURL"):
            await check("http://a:b:c/")


def test_an_operator_overrules_checks(clock: SetClock) -> None:
    manager = ProviderManager(REFS, clock, np.random.default_rng(0))
    manager.unhealthy(["sick"])
    assert manager.available(REFS).tolist() == [True, False, True, True, True]
    manager.override({"sick": "available"})
    assert manager.available(REFS).all()


def test_the_catalog_names_the_addresses(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("extends: default\nproviders:\n  openai: {health_url: 'https://status.example.com/x'}\n")
    assert load_catalog(file).health_urls == {"openai": "https://status.example.com/x"}
    assert load_catalog().health_urls == {}


def test_a_server_keeps_away_from_a_provider_whose_address_says_so(tmp_path: Path) -> None:
    status = [503]

    class Sick(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Sick) as sick, ThreadPoolExecutor(1) as executor:
        executor.submit(sick.serve_forever, 0.05)
        url = f"http://127.0.0.1:{sick.server_port}/"
        file = tmp_path / "own.yaml"
        file.write_text(f"extends: default\nproviders:\n  openai: {{health_url: '{url}'}}\n")
        settings = {"MONKEY_CODER_CATALOG": str(file), "MONKEY_CODER_PROBE_EVERY_S": "1"}
        try:
            with (
                serving(tmp_path, settings=settings) as server,
                httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
            ):
                await_health(client, healthy=False)
                eventually(lambda: not any(available(client)))  # which is served a moment later
                status[0] = 204
                await_health(client, healthy=True)
        finally:
            sick.shutdown()


def available(client: httpx.Client) -> list[bool]:
    """Whether each model of the checked provider can be had."""
    models = client.get("/v1/quantum/models").json()["models"]
    return [model["available"] for model in models if model["ref"].startswith("openai/")]


def await_health(client: httpx.Client, *, healthy: bool) -> None:
    """Wait until the checked provider is said to be so, and is available just then."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        told = {one["name"]: one for one in client.get("/v1/quantum/providers").json()["providers"]}["openai"]
        if told["healthy"] == told["available"] == healthy:
            return
        assert time.monotonic() < give_up_at, told
        time.sleep(0.02)
