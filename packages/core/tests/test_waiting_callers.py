"""Callers in a long queue: those who left are withdrawn, those who waited too long are told so.

Requests come in as ASGI messages, so that a test can say when a caller goes away; the engine works when told to.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from contract import ROUTE
from held import PATIENCE_S, Held, holding


@dataclass
class Caller:
    """One HTTP request, and what came back."""

    prompt: str
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[dict[str, Any]] = field(default_factory=list)
    _asked: bool = False

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": json.dumps({"request": {"prompt": self.prompt}}).encode()}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message)

    @property
    def status(self) -> int | None:
        return self.got[0]["status"] if self.got else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.got[0]["headers"]}

    @property
    def answer(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(b"".join(part.get("body", b"") for part in self.got[1:]))
        return document


def call(house: Held, caller: Caller) -> asyncio.Task[None]:
    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": [], "query_string": b""}
    return asyncio.get_running_loop().create_task(house.front(scope, caller.receive, caller.send))


async def queue(house: Held, *callers: Caller) -> list[asyncio.Task[None]]:
    """Let callers in one after the other; the first is at work, the others wait."""
    tasks = []
    for caller in callers:
        tasks.append(call(house, caller))
        await asyncio.sleep(0.02)
    return tasks


async def test_who_left_a_long_queue_is_withdrawn_and_counted(tmp_path: Path) -> None:
    async with holding(tmp_path) as running:
        first, second, leaves, last = (Caller(name) for name in ("first", "second", "leaves", "last"))
        tasks = await queue(running, first, second, leaves, last)
        leaves.gone.set()
        await asyncio.wait_for(tasks[2], PATIENCE_S)  # its task has ended, long before its turn would have come
        assert not tasks[0].done()
        assert (leaves.got, running.outcome("abandoned")) == ([], 1)
        running.release.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        assert [caller.status for caller in (first, second, last)] == [200, 200, 200]
        assert running.decided == ["first", "second", "last"]
        assert (running.outcome("decided"), running.outcome("abandoned")) == (3, 1)


async def test_who_leaves_when_the_answer_is_there_gets_it_all_the_same(tmp_path: Path) -> None:
    async with holding(tmp_path) as running:
        callers = [Caller(str(n)) for n in range(3)]
        tasks = await queue(running, *callers)
        running.release.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        callers[2].gone.set()
        await asyncio.sleep(0.02)
        assert [caller.status for caller in callers] == [200] * 3
        assert running.outcome("abandoned") is None


async def test_watching_for_callers_leaves_nothing_behind(tmp_path: Path) -> None:
    async with holding(tmp_path) as running:
        before = len(asyncio.all_tasks())
        callers = [Caller(str(n)) for n in range(20)]
        tasks = await queue(running, *callers)
        for caller in callers[5::2]:
            caller.gone.set()
        running.release.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)
        answered = sum(caller.status == 200 for caller in callers)
        assert (running.outcome("decided"), running.outcome("abandoned")) == (answered, len(callers) - answered)
        assert answered <= len(running.decided)  # some left while theirs was decided


async def test_a_server_that_stops_is_no_caller_that_left(tmp_path: Path) -> None:
    async with holding(tmp_path) as running:
        callers = [Caller(str(n)) for n in range(3)]
        tasks = await queue(running, *callers)
        tasks[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[2]
        assert running.outcome("abandoned") is None
        running.release.set()
        await asyncio.wait_for(asyncio.gather(*tasks[:2]), PATIENCE_S)


async def test_who_waited_too_long_is_told_when_to_try_again(tmp_path: Path) -> None:
    async with holding(tmp_path, max_wait_s=2.0) as running:
        first, tired = Caller("first"), Caller("tired")
        tasks = await queue(running, first, tired)
        await asyncio.sleep(2.1)
        late = Caller("late")
        tasks += await queue(running, late)
        running.release.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        assert (first.status, tired.status, late.status) == (200, 503, 200)
        assert int(tired.headers["retry-after"]) >= 1
        assert (tired.answer["code"], tired.answer["status"]) == ("overloaded", 503)
        assert "waited longer than 2 s" in tired.answer["detail"]
        assert running.decided == ["first", "late"]
        assert (running.outcome("overloaded"), running.outcome("decided")) == (1, 2)
