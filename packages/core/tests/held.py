"""An engine that is held until it is released, so that a test can say what happens to those who wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from servers import PATIENCE_S

from monkey_coder.app.main import create_app
from monkey_coder.bootstrap import Engine, open_engine
from monkey_coder.quantum.batching import Batcher
from monkey_coder.quantum.cache_parts import Asked
from monkey_coder.settings import Settings


@dataclass
class Held:
    """An application whose engine is held until `release` is set.

    Attributes:
        begun: Prompts that were taken to work, held or not.
        decided: Those that were let go.
    """

    front: Any
    engine: Engine
    release: threading.Event
    begun: list[str]
    decided: list[str]

    def outcome(self, name: str) -> float | None:
        return self.engine.registry.get_sample_value("quantum_route_requests_total", {"outcome": name})


@asynccontextmanager
async def holding(state_dir: Path, **settings: Any) -> AsyncIterator[Held]:
    """Open an application whose engine decides one request at a time, each when it is released."""
    release = threading.Event()
    begun: list[str] = []
    decided: list[str] = []
    chosen = Settings(state_dir=state_dir, max_batch=1, **{"max_wait_s": PATIENCE_S, **settings})

    @asynccontextmanager
    async def held(_: Settings) -> AsyncIterator[Engine]:
        async with open_engine(chosen) as engine:

            def decide(batch: Sequence[Asked]) -> Sequence[Any]:
                prompts = [asked.request.request.prompt for asked in batch]
                begun.extend(prompts)
                release.wait(PATIENCE_S)
                decided.extend(prompts)
                return engine.caching.cache.decide(batch)

            with ThreadPoolExecutor(1) as executor:
                batcher: Batcher[Any, Any] = Batcher(
                    decide, executor, max_batch=1, max_queue=chosen.max_queue, max_wait_s=chosen.max_wait_s
                )
                running = asyncio.create_task(batcher.run())
                try:
                    yield replace(engine, batcher=batcher)
                finally:
                    release.set()
                    running.cancel()
                    with suppress(asyncio.CancelledError):
                        await running

    front: Any = create_app(chosen, held)
    async with front.app.router.lifespan_context(front.app):
        yield Held(front, front.app.state.engine, release, begun, decided)
