"""Serves the current policy of a deployment, and swaps it when another one becomes current."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from monkey_coder.errors import PolicyError
from monkey_coder.ports import Strategy
from monkey_coder.quantum.policy_bundle import PolicyBundle, current, load_policy
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot

POLICIES: Final = "policies"
"""Directory of the policies in the state directory."""

LOOK_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


class PolicyWatch:
    """Keeps the snapshot's learned strategies at the current policy. One thread at a time.

    Args:
        root: Directory of all policies; it need not exist.
        live: The snapshot to keep up to date.
        further: Strategies that are served beside the engine's own.
    """

    def __init__(self, root: Path, live: LiveSnapshot, further: Sequence[Strategy] = ()) -> None:
        self._root = root
        self._live = live
        self._further = tuple(further)
        self._seen: int | None = None
        self._bundle: PolicyBundle | None = None

    def look(self) -> None:
        """Serve the current policy, if it is another one than at the last look.

        One that cannot be read is logged and left alone: the one before stays.
        """
        try:
            number = current(self._root)
            if number is None or number == self._seen:
                return
            self._seen = number
            self._bundle = load_policy(self._root, number)
            self._live.update(self.rebound)
        except PolicyError as error:
            _log.error("the policy is not served: %s", error)
        else:
            _log.info("policy %d is served", number)

    def rebound(self, snapshot: EngineSnapshot) -> EngineSnapshot:
        """The same snapshot with the policy bound to its models, whichever they are by now."""
        return snapshot if self._bundle is None else with_policy(self._bundle, self._further, snapshot)

    async def run(self, executor: Executor) -> None:
        """Look again and again until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await loop.run_in_executor(executor, self.look)


def with_policy(bundle: PolicyBundle, further: Sequence[Strategy], snapshot: EngineSnapshot) -> EngineSnapshot:
    """The same snapshot with another policy."""
    policy = ServedPolicy.bind(bundle.parts, snapshot.table.refs, snapshot.model_features)
    return replace(
        snapshot,
        strategies=configured_strategies(policy, bundle.memory, further),
        reliability={**snapshot.reliability, **bundle.reliability},
        policy_version=bundle.parts.version,
    )


@asynccontextmanager
async def watching(watch: PolicyWatch, executor: Executor) -> AsyncIterator[None]:
    """Watch for new policies until the block ends."""
    async with asyncio.TaskGroup() as jobs:
        task = jobs.create_task(watch.run(executor), name="policies")
        try:
            yield
        finally:
            task.cancel()
