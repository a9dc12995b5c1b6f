"""Callers of a server in this event loop that speak HTTP by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from contract import ROUTE
from held import PATIENCE_S, Held, holding
from uvicorn.server import ServerState

from monkey_coder.app.feedback import FEEDBACK_PATH as FEEDBACK
from monkey_coder.app.http_protocol import RoutingProtocol

LONG_WAY = f"{ROUTE}?"
"""The same to the application, and not as plain as the short way wants it."""

LONG_FEEDBACK = f"{FEEDBACK}?"
JSON = "content-type: application/json"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Wire:
    """One connection of a caller."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, prompt: str | bytes, *headers: str, target: str = ROUTE, version: str = "1.1") -> None:
        """Send a request for a prompt, or with just this body."""
        body = prompt if isinstance(prompt, bytes) else body_of(prompt)
        lines = [f"POST {target} HTTP/{version}", "host: router", f"content-length: {len(body)}", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status_line.split()[1]), headers, json.loads(body) if body else None)

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""


@dataclass
class Place:
    """A listening server in this event loop."""

    held: Held
    state: ServerState
    port: int
    wires: list[Wire] = field(default_factory=list)

    async def wire(self) -> Wire:
        self.wires.append(Wire(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.wires[-1]

    async def at_work(self, prompt: str) -> None:
        """Until a request has left the queue for the engine, which is held."""
        await eventually(lambda: prompt in self.held.begun)

    async def waiting(self, count: int) -> None:
        """Until so many requests wait behind the one at work."""
        await eventually(lambda: len(self.held.engine.batcher) == count)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


@asynccontextmanager
async def place(state_dir: Path, *, held: bool = True, **settings: Any) -> AsyncIterator[Place]:
    async with holding(state_dir, **settings) as house:
        if not held:
            house.release.set()
        # Its logging is the whole process's, and other tests read what is logged.
        config = uvicorn.Config(house.front, lifespan="off", log_config=None, log_level=None, proxy_headers=False)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: RoutingProtocol(config, state, {}), "127.0.0.1", 0
        )
        opened = Place(house, state, server.sockets[0].getsockname()[1])
        try:
            yield opened
        finally:
            house.release.set()
            server.close()
            for wire in opened.wires:
                wire.writer.close()
                with suppress(ConnectionError):
                    await wire.writer.wait_closed()
            await eventually(lambda: not state.connections and not state.tasks)


def body_of(prompt: str, **options: Any) -> bytes:
    return json.dumps({"request": {"prompt": prompt}, "quantum_config": {"cache": "bypass"} | options}).encode()
