"""What does a hit cost, part by part, from the bytes of a request to its row in the log?

Usage: bench_hits.py [--hits 4000] [--rounds 5]. CPU time of one thread per hit; sockets are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from starlette.types import Message
from uvicorn.server import ServerState

from monkey_coder.app.hot_path import Front, decide
from monkey_coder.app.http_protocol import RoutingProtocol
from monkey_coder.bootstrap import Engine, open_engine
from monkey_coder.quantum.cache_telling import HitTeller
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.recent_decisions import RecentDecisions
from monkey_coder.settings import Settings
from monkey_coder.storage.port import DecisionRow

PROMPTS, CONNECTIONS, BULK = 500, 500, 2_000
HEAD = (
    b"POST /v1/quantum/route HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
)
WORDS = (
    "fix",
    "the",
    "race",
    "in",
    "our",
    "cache",
    "write",
    "a",
    "parser",
    "for",
    "dates",
    "review",
    "an",
    "audit",
    "log",
)


class Nowhere:
    """A transport that drops what is written."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, _: bytes) -> None:
        self.answers += 1

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def close(self) -> None:
        pass


async def measured(hits: int, rounds: int) -> dict[str, float]:
    """Least CPU time of each part in microseconds per hit."""
    rng = random.Random(0)
    bodies = [json.dumps({"request": {"prompt": " ".join(rng.choices(WORDS, k=30))}}).encode() for _ in range(PROMPTS)]
    with TemporaryDirectory() as folder:
        settings = Settings(state_dir=Path(folder), explore=False, cache_check_rate=0.0)
        async with open_engine(settings) as engine:
            await _known(bodies, engine)
            requests = [HEAD % len(body) + body for body in bodies]
            connections = _connections(engine)
            found: dict[str, list[float]] = {}

            def note(part: str, work: Callable[[], object]) -> None:
                began = time.thread_time_ns()
                work()
                found.setdefault(part, []).append((time.thread_time_ns() - began) / hits / 1e3)

            untold = engine.caching.cache.untold
            for _ in range(rounds + 1):  # the first parses heads, and is left out
                untold.clear()
                asked = [(connections[n % CONNECTIONS], rng.choice(requests)) for n in range(hits)]
                note("answer, but for the socket", lambda asked=asked: [c.data_received(d) for c, d in asked])
                made: list[Callable[[], DecisionRow]] = []
                log, recent = DecisionLog(made.append, time.time), RecentDecisions()
                heard = (engine.metrics, log, engine.following.providers, recent)
                teller = HitTeller(engine.caching.cache, lambda heard=heard: heard, lambda *_: None)
                note("telling listeners", teller.tell)
                rows: list[DecisionRow] = []
                note("rows of the log", lambda made=made, rows=rows: rows.extend(make() for make in made))
                note("writing them", lambda rows=rows: _write(engine, rows))
            return {part: min(each[1:]) for part, each in found.items()}


async def _known(bodies: list[bytes], engine: Engine) -> None:
    async def nobody() -> Message:
        await asyncio.Event().wait()
        return {}

    for body in bodies * 3:
        await decide(body, engine, nobody)


def _connections(engine: Engine) -> list[RoutingProtocol]:
    async def nothing(*_: object) -> None:
        pass

    config = uvicorn.Config(Front(nothing, lambda: engine, 1_000_000), lifespan="off", log_level="error")
    config.load()
    config.loaded_app = Front(nothing, lambda: engine, 1_000_000)
    connections = [RoutingProtocol(config, ServerState(), {}) for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(Nowhere())  # type: ignore[arg-type]
    return connections


def _write(engine: Engine, rows: list[DecisionRow]) -> None:
    for start in range(0, len(rows), BULK):
        engine.store.append_decisions(rows[start : start + BULK])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    told = asyncio.run(measured(given.hits, given.rounds))
    lines = ["| part of a hit | CPU time in microseconds |", "|---|---|"]
    lines += [f"| {part} | {value:.1f} |" for part, value in told.items()]
    sys.stdout.write("\n".join([*lines, f"| all | {sum(told.values()):.1f} |", ""]))


if __name__ == "__main__":
    main()
