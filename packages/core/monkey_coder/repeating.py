"""Work that a process repeats in the background: in a thread, and without ever ending the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor


async def repeat(
    executor: Executor, every_s: float, *steps: Callable[[], object], log: logging.Logger, failed: str
) -> None:
    """Do all steps again and again until cancelled; one that fails is logged, and the others go on.

    Args:
        executor: Where the steps run.
        every_s: Pause before each round, the first included.
        steps: What to do.
        log: Where failures are told.
        failed: In which words.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        for step in steps:
            try:
                await loop.run_in_executor(executor, step)
            except Exception:
                log.exception(failed)
