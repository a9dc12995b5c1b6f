"""Work in the background goes on, whatever one of its steps meets."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from monkey_coder.repeating import repeat


async def test_a_step_that_fails_is_told_of_and_ends_neither_the_others_nor_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done, enough = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def fails() -> None:
        done.append("fails")
        raise ZeroDivisionError("never mind")

    def works() -> None:
        done.append("works")
        if len(done) == 6:
            loop.call_soon_threadsafe(enough.set)

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(
            repeat(executor, 0.001, fails, works, log=logging.getLogger("test"), failed="a step failed")
        )
        await asyncio.wait_for(enough.wait(), 30.0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert done[:6] == ["fails", "works"] * 3
    assert "a step failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
