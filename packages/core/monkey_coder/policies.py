"""Serves the current policy of a deployment, swaps it when another one becomes current, and knows of the learner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from monkey_coder.errors import PolicyError, StoreFormatError, StoreUnavailableError
from monkey_coder.ports import Clock, Strategy
from monkey_coder.quantum.learner_status import SILENT_AFTER_S, LearnerStatus, read_status
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import DirectoryShelf, Shelf, StoreShelf
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.repeating import repeat
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

LOOK_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


@contextmanager
def open_shelf(settings: Settings, directory: Path | None) -> Iterator[tuple[Store, Shelf]]:
    """Open a deployment's store, and the shelf to look at: the deployment's own, or a directory.

    Raises:
        StoreFormatError: What is stored is damaged or foreign.
        StoreUnavailableError: The store cannot be opened.
    """
    with closing(open_store(settings.state_dir, settings.redis_url, time.time)) as store:
        yield store, StoreShelf(store, time.time) if directory is None else DirectoryShelf(directory)


class PolicyWatch:
    """Keeps the snapshot's learned strategies at the current policy. One thread at a time.

    Args:
        shelf: Where policies are.
        live: The snapshot to keep up to date.
        further: Strategies that are served beside the engine's own.
    """

    def __init__(self, shelf: Shelf, live: LiveSnapshot, further: Sequence[Strategy] = ()) -> None:
        self._shelf = shelf
        self._live = live
        self._further = tuple(further)
        self._seen: int | None = None
        self._bundle: PolicyBundle | None = None
        self._away = False

    def look(self) -> None:
        """Serve the current policy, if it is another one than at the last look.

        One that cannot be read is logged and left alone: the one before stays. So it does while the store is away, or
        damaged.
        """
        try:
            number = self._shelf.current()
            if number != self._seen:
                self._take(number)
            self._away = False
        except (StoreUnavailableError, StoreFormatError) as error:
            if not self._away:
                _log.warning("policies cannot be looked for just now: %s", error)
            self._away = True

    def _take(self, number: int | None) -> None:
        try:
            bundle = None if number is None else self._shelf.load(number)
            self._live.update(partial(self._swapped, bundle))
        except (PolicyError, StoreFormatError) as error:
            _log.error("the policy is not served: %s", error)
        else:
            _log.info("no policy is served" if number is None else f"policy {number} is served")
        self._seen = number

    def _swapped(self, bundle: PolicyBundle | None, snapshot: EngineSnapshot) -> EngineSnapshot:
        fresh = bound(bundle, self._further, snapshot)
        self._bundle = bundle  # under the snapshot's lock: models that change meanwhile are bound to this one
        return fresh

    def rebound(self, snapshot: EngineSnapshot) -> EngineSnapshot:
        """The same snapshot with the policy bound to its models, whichever they are by now."""
        return snapshot if self._bundle is None else with_policy(self._bundle, self._further, snapshot)


class LearnerWatch:
    """Knows what the learner said last. One thread looks; any may read.

    Args:
        store: Where it says so.
        expected: Whether this deployment is meant to have one.
        wall_clock: Seconds since 1970.
        clock: Monotonic seconds.

    Attributes:
        status: What it said last; None where none ever ran.
        missing: Whether there should be one, and it went silent without saying that it ends.
    """

    def __init__(self, store: Store, *, expected: bool, wall_clock: Callable[[], float], clock: Clock) -> None:
        self._store, self._expected = store, expected
        self._now, self._clock, self._began = wall_clock, clock, clock()
        self._seen = False
        self.status: LearnerStatus | None = None
        self.missing = False

    def look(self) -> None:
        """See what it says now; while the store is away, it is left at what it said before."""
        try:
            status = read_status(self._store)
        except (StoreUnavailableError, StoreFormatError):
            return
        now = self._now()
        self._seen = self._seen or (status is not None and status.alive(now))
        due = self._expected and self._clock() - self._began > SILENT_AFTER_S
        self.status, self.missing = status, status is not None and status.lost(now) and (self._seen or due)


def bound(bundle: PolicyBundle | None, further: Sequence[Strategy], snapshot: EngineSnapshot) -> EngineSnapshot:
    """The same snapshot with another policy, or with none."""
    if bundle is not None:
        return with_policy(bundle, further, snapshot)
    strategies = configured_strategies(None, None, further)
    return replace(snapshot, strategies=strategies, reliability=MappingProxyType({}), policy_version=None)


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
async def watching(executor: Executor, *looks: Callable[[], None]) -> AsyncIterator[None]:
    """Look again and again, in a thread of the executor, until the block ends."""
    again = repeat(executor, LOOK_EVERY_S, *looks, log=_log, failed="looking for what is new in the store failed")
    async with asyncio.TaskGroup() as jobs:
        task = jobs.create_task(again, name="policies")
        try:
            yield
        finally:
            task.cancel()
