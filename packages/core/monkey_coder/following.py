"""Builds what learns from outcomes in a web process, and keeps it running beside the batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

import numpy as np

from monkey_coder.catalog.catalog import Catalog
from monkey_coder.catalog.table import ModelTable
from monkey_coder.health_checks import HealthChecks, HealthView, http_check
from monkey_coder.live_catalog import CatalogWatch
from monkey_coder.ports import Clock
from monkey_coder.probe_permits import ProbePermits
from monkey_coder.quantum.budget_pacing import BudgetPacer
from monkey_coder.quantum.capability_profiler import Profiles
from monkey_coder.quantum.learners import Learners
from monkey_coder.quantum.live_learning import LiveLearner
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.quantum.selection_learning import OutcomeFollower
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.storage.port import Store

CATCH_UP_S: Final = 5.0
"""The longest that a process learns from what is stored already before it answers; the rest comes on the way."""


LONGEST_CHECK_S: Final = 5.0
"""A provider that has not answered a check by then is not reached."""


@dataclass(frozen=True)
class Following:
    """What follows the outcomes of one store.

    Attributes:
        providers: Which models can be had; a listener, to count probes.
        follower: Keeps the snapshot up to date.
        catalog: The models as they were changed at run time.
    """

    providers: ProviderManager
    follower: OutcomeFollower
    catalog: CatalogWatch


def follow(
    store: Store,
    live: LiveSnapshot,
    catalog: Catalog,
    monitor: PerformanceMonitor,
    issued_at: Callable[[str], float | None],
    rebound: Callable[[EngineSnapshot], EngineSnapshot],
    wall_clock: Callable[[], float] = time.time,
    clock: Clock = time.monotonic,
    rng: np.random.Generator | None = None,
    target_usd: float | None = None,
    probe_every_s: float = 0.0,
) -> Following:
    """Build it; nothing is read yet.

    Args:
        store: Where outcomes are.
        live: The snapshot to keep up to date; its table holds the priors of the catalog.
        catalog: The models of the file, which that table was made of.
        monitor: Is told of outcomes as well.
        issued_at: When a decision was made, by its id.
        rebound: Binds the strategies of a snapshot to its models, when those have changed.
        wall_clock: Seconds since 1970.
        clock: For pauses.
        rng: For the jitter of breakers; None: a fresh one.
        target_usd: USD a task that spend shall be kept at; None: there is no target.
        probe_every_s: Pause between active checks of providers; 0: there are none.
    """
    watch = CatalogWatch(store, catalog)
    table = live().table
    providers = ProviderManager(
        table.refs,
        wall_clock,
        rng or np.random.default_rng(),
        on_exhausted=lambda: follower.publish_availability(),
    )
    permits = ProbePermits(store, providers, uuid4().hex, clock)
    pacer = None if target_usd is None else BudgetPacer(target_usd)
    learners = Learners(Profiles(), providers, monitor, LiveLearner(pacer))
    watches = [watch.look, permits.look]
    if probe_every_s:
        watches.append(HealthView(store, providers, probe_every_s, wall_clock).look)
    follower = OutcomeFollower(store, table, learners, live, issued_at, wall_clock, clock, watches=watches)
    watch.publish = lambda now, version: follower.rebase(
        now.table(), lambda snapshot: rebound(replace(snapshot, catalog_version=version))
    )
    return Following(providers, follower, watch)


@asynccontextmanager
async def running(follower: OutcomeFollower) -> AsyncIterator[None]:
    """Know what others know already, then follow until the block ends."""
    async with AsyncExitStack() as stack:
        learning = ThreadPoolExecutor(1, thread_name_prefix="learn")
        stack.callback(learning.shutdown)
        looking = ThreadPoolExecutor(1, thread_name_prefix="look")
        stack.callback(looking.shutdown)
        await asyncio.get_running_loop().run_in_executor(learning, follower.catch_up, CATCH_UP_S)
        jobs = await stack.enter_async_context(asyncio.TaskGroup())
        following = jobs.create_task(follower.run(learning, looking), name="following")
        stack.callback(following.cancel)
        yield


@asynccontextmanager
async def checking(store: Store, urls: Mapping[str, str], every_s: float) -> AsyncIterator[None]:
    """Take part in active checks until the block ends: one process of the deployment asks, for all.

    Args:
        store: Where the checks go.
        urls: Address of each provider that is checked.
        every_s: Pause between two checks; 0: nobody is asked.
    """
    async with AsyncExitStack() as stack:
        if urls and every_s:
            executor = ThreadPoolExecutor(1, thread_name_prefix="health-checks")
            stack.callback(executor.shutdown)
            check = await stack.enter_async_context(http_check(min(every_s, LONGEST_CHECK_S)))
            checks = HealthChecks(store, urls, check, every_s, uuid4().hex, time.time)
            jobs = await stack.enter_async_context(asyncio.TaskGroup())
            job = jobs.create_task(checks.run(executor), name="health checks")
            stack.callback(job.cancel)
        yield


def past_profiles(store: Store, table: ModelTable) -> Profiles:
    """What the outcomes in a store teach of the models of a table.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    providers = ProviderManager(table.refs, time.time, np.random.default_rng())
    learners = Learners(Profiles(), providers, PerformanceMonitor())
    live = LiveSnapshot(EngineSnapshot(table=table, strategies={}))
    follower = OutcomeFollower(store, table, learners, live, lambda _: None, time.time, time.monotonic)
    while follower.step():
        pass
    return learners.profiles
