"""Open load: requests at a constant rate, whether or not the server keeps up.

    python packages/core/tests/benchmarks/open_loop.py http://127.0.0.1:8000 --rate 1500 --connections 1000

Each latency is measured from the moment at which its request was due, not from when it could be sent: a server that
stalls makes many requests late, and a generator that waited for it would see only one of them (coordinated omission).
Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

PATH = "/v1/quantum/route"
TICK_S = 0.001
WORDS = """fix the race in our cache write a parser for dates review this endpoint design schema of an audit log explain
why test fails on linux add retries to client refactor module into two and document it make query faster""".split()  # noqa: SIM905


def route_requests(count: int, host: str, seed: int = 0) -> list[bytes]:
    """So many HTTP requests with prompts that all differ."""
    rng, made = random.Random(seed), []
    for number in range(count):
        prompt = f"Task {seed}-{number}: {' '.join(rng.choices(WORDS, k=24))}"
        body = json.dumps({"request": {"prompt": prompt}, "quantum_config": {"cache": "bypass"}}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


@dataclass
class Record:
    """What became of the requests, each list in order of completion; times in seconds.

    Attributes:
        due: When each was due, from the start.
        latency: From due to answered.
        status: HTTP status; 0 when the connection broke.
        retry_after: Whether the answer said when to try again.
        lag: From due to sent: what the generator itself, or a lack of free connections, adds.
    """

    due: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    retry_after: list[bool] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._need: int | None = None
        self.due: float | None = None
        self.sent = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self.due, self.sent = due, time.perf_counter()
        self.transport.write(request)

    def close(self) -> None:
        """End the connection; what it still owes is not noted."""
        self.due = None
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if self._need is None:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            line_end = head.find(b"\r\n", at)
            self._need = end + 4 + int(head[at : line_end if line_end > 0 else end])
        if len(buffer) >= self._need:
            status, retry = int(buffer[9:12]), b"\nretry-after:" in buffer[:400].lower()
            self._buffer, self._need = b"", None
            self._load.answered(self, status, retry)

    def connection_lost(self, _: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """Sends the requests when they are due, over connections that are free.

    Args:
        url: Where to.
        requests: In the order in which they are sent.
        rate: Per second.
        connections: How many.
    """

    def __init__(self, url: str, requests: Sequence[bytes], rate: float, connections: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._requests, self._rate, self._count = requests, rate, connections
        self._all: list[Connection] = []
        self._free: deque[Connection] = deque()
        self._backlog: deque[int] = deque()
        self._started = 0.0
        self.record = Record()

    async def run(self, patience_s: float = 10.0) -> Record:
        """Send everything, then wait for the answers, but not longer than `patience_s`."""
        try:
            await self._connect()
            await self._send_all(patience_s)
        finally:
            for connection in self._all:
                connection.close()
            await asyncio.sleep(TICK_S)  # for the transports to go
        return self.record

    async def _send_all(self, patience_s: float) -> None:
        self._started = time.perf_counter() + 0.05
        total, sent = len(self._requests), 0
        while sent < total:
            due = min(total, int((time.perf_counter() - self._started) * self._rate) + 1)
            self._backlog.extend(range(sent, due))
            sent = max(sent, due)
            self._send()
            await asyncio.sleep(TICK_S)
        deadline = time.perf_counter() + patience_s
        while len(self.record.due) < total and time.perf_counter() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, self._count, 100):  # in lots, so that no listen queue overflows
            lot = min(100, self._count - start)
            made = await asyncio.gather(
                *(loop.create_connection(lambda: Connection(self), self._host, self._port) for _ in range(lot))
            )
            self._all.extend(protocol for _, protocol in made)
        self._free.extend(self._all)

    def _send(self) -> None:
        while self._backlog and self._free:
            number = self._backlog.popleft()
            self._free.popleft().ask(self._requests[number], self._started + number / self._rate)

    def answered(self, connection: Connection, status: int, retry_after: bool) -> None:
        self._note(connection, status, retry_after)
        self._free.append(connection)
        self._send()

    def lost(self, connection: Connection) -> None:
        if connection.due is not None:
            self._note(connection, 0, retry_after=False)
        elif connection in self._free:
            self._free.remove(connection)

    def _note(self, connection: Connection, status: int, retry_after: bool) -> None:
        assert connection.due is not None
        record = self.record
        record.due.append(connection.due - self._started)
        record.latency.append(time.perf_counter() - connection.due)
        record.status.append(status)
        record.retry_after.append(retry_after)
        record.lag.append(connection.sent - connection.due)
        connection.due = None


def percentiles(seconds: Sequence[float], prefix: str = "") -> dict[str, float | None]:
    """p50, p95, p99 and the maximum in milliseconds."""
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    values = np.percentile(np.asarray(seconds) * 1e3, [50, 95, 99, 100]) if len(seconds) else [None] * 4
    return {
        prefix + name: None if value is None else round(float(value), 3)
        for name, value in zip(names, values, strict=True)
    }


def summary(record: Record, asked: int, seconds: float, bad_after_ms: float = 100.0) -> dict[str, Any]:
    """What the record says: accepted and refused requests apart, and when the last bad one was due."""
    latency, status = np.array(record.latency), np.array(record.status, dtype=np.int64)
    accepted, refused = latency[status == 200], latency[status == 503]
    bad = (status != 200) | (latency > bad_after_ms / 1e3)
    return {
        "requests": asked,
        "rate": round(asked / seconds, 1),
        "accepted": len(accepted),
        "refused": len(refused),
        "errors": asked - len(accepted) - len(refused),
        **percentiles(accepted),
        **percentiles(refused, "refused_"),
        "refused_in_50_ms": round(float((refused <= 0.05).mean()), 5) if len(refused) else None,
        "refused_with_retry_after": int(np.array(record.retry_after, dtype=bool)[status == 503].sum()),
        **percentiles(record.lag, "lag_"),
        "last_bad_s": round(float(np.array(record.due)[bad].max()), 3) if bad.any() else 0.0,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1500.0, help="requests per second")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other prompts")
    given = parser.parse_args(arguments)
    requests = route_requests(max(1, round(given.rate * given.seconds)), urlsplit(given.url).netloc, given.seed)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        import uvloop as loops
    except ImportError:
        import asyncio as loops  # type: ignore[no-redef]
    record = loops.run(Load(given.url, requests, given.rate, given.connections).run())
    print(json.dumps(summary(record, len(requests), given.seconds)))  # noqa: T201 - what it is for
    return 0


if __name__ == "__main__":
    sys.exit(main())
