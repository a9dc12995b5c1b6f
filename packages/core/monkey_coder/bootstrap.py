"""Composition root of the web process: everything long-lived is built here, once, and closed in reverse order."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

import numpy as np
from prometheus_client import CollectorRegistry

from monkey_coder.caching import Caching, caching, keyring
from monkey_coder.catalog.catalog import Catalog, load_catalog
from monkey_coder.core.routing import AdvancedRouter
from monkey_coder.deployment import deployment_secret
from monkey_coder.errors import OverloadedError, RouterError, SettingsError, StoreFormatError, StoreUnavailableError
from monkey_coder.following import Following, checking, follow, running
from monkey_coder.key_ring import FILE_NAME as KEY_FILE
from monkey_coder.key_ring import KeyRing, following_keys
from monkey_coder.live_catalog import stored_catalog
from monkey_coder.models import TASK_TYPES, Degradation, ExecuteRequest, QuantumOptions, RouteRequest
from monkey_coder.policies import LearnerWatch, PolicyWatch, watching
from monkey_coder.ports import DecisionListener, Strategy
from monkey_coder.quantum.batching import Batcher
from monkey_coder.quantum.cache_parts import Asked, Reply
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.decision_traces import tracing
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.gates import apply_gates
from monkey_coder.quantum.gathering import Gathering
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.load_balancer import LoadBalancer, Outstanding
from monkey_coder.quantum.metrics_collector import MetricsCollector
from monkey_coder.quantum.metrics_exposition import DIRECTORY_VARIABLE, Exposition, settling
from monkey_coder.quantum.metrics_series import Vocabulary
from monkey_coder.quantum.performance_monitor import Alert, PerformanceMonitor
from monkey_coder.quantum.policy_shelf import StoreShelf
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.reward import worth
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.selection_learning import OutcomeFollower
from monkey_coder.quantum.session_affinity import SessionMemory
from monkey_coder.quantum.shared_sessions import SharedSessionMemory
from monkey_coder.quantum.snapshot import DEFAULT_EPSILON, EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager, is_instant
from monkey_coder.report_groups import ReportGroups, Result
from monkey_coder.settings import Settings
from monkey_coder.storage.absence import StoreHealth, open_or_do_without
from monkey_coder.storage.background_writer import BackgroundWriter
from monkey_coder.storage.last_uses import open_last_uses
from monkey_coder.storage.port import Appended, Store

FRONT_DOOR_THREADS = 4
WORKERS_PER_STRATEGY = 3 + FRONT_DOOR_THREADS
"""As many as there are callers at once (batcher, verifier and care of the cache, front door), so that one hung strategy
leaves the others their workers."""
MOST_UNWRITTEN = 10_000
"""Decisions kept in memory while the store is away; it takes a second or two of full load to make so many."""
MOST_UNWRITTEN_MODELS = 4_000_000
"""Models that all of them together may be about; at 50 to 100 bytes each."""
_OURS = frozenset(configured_strategies(None, None))
MOST_SWIFT_CHARS = 4_096
"""Longer prompts are not decided in the event loop: to compare them with cached ones takes some milliseconds."""
LAST_WRITES_S = 3.0
"""How long a process that ends waits for a store that is away."""
MOST_SHARED_SESSIONS = 1_000_000
"""Sessions whose last model all processes know; at about 100 bytes each."""
STRATEGY_GROUP = "monkey_coder.strategies"
"""Entry point group in which a package announces strategies of its own."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Core:
    """All that decides, in the calling thread.

    Attributes:
        settings: As started.
        catalog: The models of the file; `following.catalog` has what was changed since.
        live: What the next batch rests on.
        policies: Keeps it at the current policy.
        manager: The quantum engine.
        router: Gary8D with the feature flag.
        metrics: Series of this process.
        monitor: How each strategy is doing lately.
        registry: Where they are registered.
        exposition: Renders them, with those of the other processes.
        outstanding: Calls under way, for the balancer.
    """

    settings: Settings
    catalog: Catalog
    live: LiveSnapshot
    policies: PolicyWatch
    manager: QuantumRoutingManager
    router: AdvancedRouter
    metrics: MetricsCollector
    monitor: PerformanceMonitor
    registry: CollectorRegistry
    exposition: Exposition
    outstanding: Outstanding


@dataclass(frozen=True)
class Engine(Core):
    """The same with a batcher in front, for an event loop, and with what outlives the process.

    Attributes:
        caching: Gives decisions again.
        batcher: Decides off the event loop what is not cached.
        store: Shared by all processes of the deployment; its methods may wait, so call them from a thread.
        reports: Writes reports to it in groups, in the background.
        following: Learns from the outcomes in it.
        keys: Who may call.
        learner: What the learner process said last.
        troubles: What should work beside the decisions and does not at the moment, as answers say it.
    """

    caching: Caching
    batcher: Batcher[Asked | RouteRequest, Reply]
    store: Store
    reports: ReportGroups
    following: Following
    keys: KeyRing
    learner: LearnerWatch
    troubles: Callable[[], tuple[Degradation, ...]]


def plugged_in_strategies(entries: Iterable[EntryPoint] | None = None) -> tuple[Strategy, ...]:
    """Make the strategies that installed packages bring along.

    Args:
        entries: Entry points, each a callable without arguments that returns a strategy; None: those of the
            group `STRATEGY_GROUP`.

    Raises:
        SettingsError: One cannot be loaded, is no strategy, or has the name of another; the message names it.
    """
    found: dict[str, Strategy] = dict(configured_strategies(None, None))
    built_in = len(found)
    for entry in entry_points(group=STRATEGY_GROUP) if entries is None else entries:
        try:
            strategy = entry.load()()
            if not isinstance(strategy.name, str) or not callable(strategy.score):
                raise TypeError("this is no strategy: its name is no text, or its score cannot be called")  # noqa: TRY301
            if strategy.name in found:
                raise ValueError(f"there is a strategy {strategy.name!r} already")  # noqa: TRY301 - named below, too
            found[strategy.name] = strategy
        except Exception as error:
            raise SettingsError(
                f"the strategy {entry.name!r} ({entry.value}) cannot be loaded: {error!r}; repair or uninstall it"
            ) from error
    return tuple(found.values())[built_in:]


def _note_alert(metrics: MetricsCollector, alert: Alert) -> None:
    metrics.on_alert(alert.strategy, alert.figure, raised=alert.raised)
    state = "is too high" if alert.raised else "is good again"
    _log.warning("strategy %s: %s %s at %.4g", alert.strategy, alert.figure, state, alert.value)


@contextmanager
def open_core(
    settings: Settings, listeners: Sequence[DecisionListener] = (), store: Store | None = None
) -> Iterator[Core]:
    """Build everything that decides.

    Args:
        settings: From the environment.
        listeners: Who else shall be told of decisions.
        store: Where policies are; None: one is opened, and closed in the end.

    Raises:
        CatalogError: The catalog cannot be used.
    """
    with ExitStack() as stack:
        if store is None:
            store = open_or_do_without(settings.state_dir, settings.redis_url, time.time)
            stack.callback(store.close)
        catalog = load_catalog(settings.catalog)
        served, catalog_version = catalog, 1
        with suppress(
            StoreUnavailableError, StoreFormatError
        ):  # then what the file has must do, until the store answers
            changed, catalog_version = stored_catalog(store, catalog)
            served = changed.catalog
        table = served.table()
        registry = CollectorRegistry()
        shared = os.environ.get(DIRECTORY_VARIABLE)
        words = Vocabulary(
            refs=lambda: live().table.index,
            providers=lambda: live().table.providers,
            strategies=lambda: live().strategies,
        )
        metrics = MetricsCollector(registry, words)
        exposition = Exposition(registry, Path(shared) if shared else None, metrics.settle)
        monitor = PerformanceMonitor(on_alert=partial(_note_alert, metrics))
        plugged_in = plugged_in_strategies()
        strategies = configured_strategies(None, None, plugged_in)
        live = LiveSnapshot(
            EngineSnapshot(
                table=table,
                catalog_version=catalog_version,
                strategies=strategies,
                collapse=settings.collapse,
                epsilon=MappingProxyType(dict.fromkeys(TASK_TYPES, DEFAULT_EPSILON if settings.explore else 0.0)),
            )
        )
        policies = PolicyWatch(StoreShelf(store, time.time), live, plugged_in)
        policies.look()
        threads = ThreadManager(WORKERS_PER_STRATEGY * len(strategies), time.monotonic)
        stack.callback(threads.close)
        ids = SignedIds(deployment_secret(settings, store), time.time, os.urandom)
        gary8d = partial(
            AdvancedRouter, lambda: live().table, gate=apply_gates, worth=worth, interval=wilson, make_ids=ids.make
        )
        outstanding = Outstanding(time.monotonic)
        manager = QuantumRoutingManager(
            snapshot=live,
            embedder=StaticEmbedder.load(),
            threads=threads,
            ids=ids,
            heuristic=gary8d().heuristic,
            clock=time.monotonic,
            rng=np.random.default_rng(),
            listeners=(metrics, monitor, outstanding, *listeners),
            balancer=LoadBalancer(settings.balancing, outstanding, np.random.default_rng()),
        )
        callers = ThreadPoolExecutor(FRONT_DOOR_THREADS, thread_name_prefix="front-door")
        stack.callback(callers.shutdown, wait=False, cancel_futures=True)
        router = gary8d(engine=manager, quantum_enabled=settings.quantum, executor=callers)
        yield Core(
            settings, catalog, live, policies, manager, router, metrics, monitor, registry, exposition, outstanding
        )


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Build everything that a web process needs, and close it in reverse order, also when that fails half way."""
    async with AsyncExitStack() as stack:
        store = open_or_do_without(settings.state_dir, settings.redis_url, time.time)
        stack.callback(store.close)
        keys = KeyRing(store, settings.state_dir / KEY_FILE, settings.scrape_token)
        await stack.enter_async_context(following_keys(keys))
        settings.require_safe_address(keyed=keys.table.required)
        health = StoreHealth(time.monotonic)
        writer = BackgroundWriter(store, health.on_error, time.time, max_decisions=MOST_UNWRITTEN)
        stack.callback(writer.close, LAST_WRITES_S)
        core = stack.enter_context(open_core(settings, [DecisionLog(writer.put, time.time)], store))
        writer.max_decisions = min(MOST_UNWRITTEN, MOST_UNWRITTEN_MODELS // max(1, len(core.live().table)))
        await stack.enter_async_context(settling(core.metrics.settle))
        following = follow(
            store,
            core.live,
            core.catalog,
            core.monitor,
            core.manager.ids.issued_at,
            core.policies.rebound,
            target_usd=settings.target_usd_per_task,
            probe_every_s=settings.probe_every_s,
        )
        core.manager.sessions = stack.enter_context(_sessions(settings, core.manager.ids.secret))
        traces = stack.enter_context(tracing(os.environ))
        core.manager.listeners = (*core.manager.listeners, following.providers, following.follower.recent, *traces)
        following.follower.listeners = (core.metrics, core.outstanding)
        following.follower.on_pace = core.metrics.on_pace
        following.follower.on_put_aside = core.metrics.on_put_aside
        await stack.enter_async_context(running(following.follower))
        await stack.enter_async_context(checking(store, core.catalog.health_urls, settings.probe_every_s))
        loader = ThreadPoolExecutor(1, thread_name_prefix="policies")
        stack.callback(loader.shutdown)
        learner = LearnerWatch(store, expected=settings.learn, wall_clock=time.time, clock=time.monotonic)
        await stack.enter_async_context(watching(loader, core.policies.look, learner.look))
        troubles = partial(_troubles, health, learner)
        executor = ThreadPoolExecutor(1, thread_name_prefix="decide")
        stack.callback(executor.shutdown)
        # Hits are no work of the strategies, and no calls to be balanced.
        heard = tuple(each for each in core.manager.listeners if each not in (core.monitor, core.outstanding))
        cache = await stack.enter_async_context(
            caching(
                settings,
                core.manager,
                core.manager.ids.secret,
                store,
                troubles,
                lambda: heard,
                core.metrics.on_cache,
            )
        )
        following.follower.listeners = (*following.follower.listeners, cache.manager)
        batcher: Batcher[Asked | RouteRequest, Reply] = Batcher(
            cache.cache.decide,
            executor,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            max_wait_s=settings.max_wait_s,
            on_batch=core.metrics.on_batch,
            at_once=lambda asked: is_swift(asked) and decides_swiftly(settings, core.live()),
            gathering=Gathering(time.monotonic),
        )
        jobs = await stack.enter_async_context(asyncio.TaskGroup())
        batching = jobs.create_task(batcher.run(), name="batching")
        stack.callback(batching.cancel)
        with suppress(OverloadedError):  # too slow to have warmed up in time, and it serves all the same
            await batcher.submit(_WARM_UP)
        of_core = {field.name: getattr(core, field.name) for field in fields(core)}
        yield Engine(
            **of_core,
            caching=cache,
            batcher=batcher,
            store=store,
            reports=ReportGroups(
                writer.put_outcomes,
                lambda rows: core.metrics.expect(row.key for row in rows),
                partial(_note_reports, core.metrics, following.follower),
            ),
            following=following,
            keys=keys,
            learner=learner,
            troubles=troubles,
        )


def decides_swiftly(settings: Settings, snapshot: EngineSnapshot) -> bool:
    """Whether no decision may get stuck or wait: all strategies are ours and instant, and no server is asked.

    A trained policy is not instant: it is asked in threads, for which the event loop must not wait.
    """
    strategies = snapshot.strategies
    return settings.redis_url is None and strategies.keys() <= _OURS and all(map(is_instant, strategies.values()))


def is_swift(asked: Asked | RouteRequest) -> bool:
    """Whether the store, which knows of sessions, need not be asked for a request, and there is not much to read."""
    task = asked.request.request if isinstance(asked, Asked) else asked.request
    return task.session_id is None and len(task.prompt) <= MOST_SWIFT_CHARS


@contextmanager
def _sessions(settings: Settings, secret: bytes) -> Iterator[SessionMemory]:
    """Which model each session used last, in all processes unless the settings say otherwise."""
    if settings.session_ttl_s == 0.0:
        yield SessionMemory()
        return
    ttl_s, keys = settings.session_ttl_s, keyring(settings, secret)
    shared = SharedSessionMemory(
        partial(open_last_uses, settings.state_dir, settings.redis_url, time.time, ttl_s, MOST_SHARED_SESSIONS),
        partial(keys.digest, b"session"),
        time.monotonic,
        time.time,
        max_age_s=ttl_s,
        wait_s=settings.session_wait_ms / 1e3,
    )
    with closing(shared):
        yield shared


def _note_reports(metrics: MetricsCollector, follower: OutcomeFollower, results: Sequence[Result]) -> None:
    """Count what became of reports, and have those that are stored learned from soon."""
    counts = Counter(
        result.value if isinstance(result, Appended) else getattr(result, "code", RouterError.code)
        for result in results
    )
    for name, count in counts.items():
        metrics.on_feedback(name, count)
    if any(isinstance(result, Appended) for result in results):
        follower.wake()


def _troubles(health: StoreHealth, learner: LearnerWatch) -> tuple[Degradation, ...]:
    """What should work beside the decisions and does not: `store`, `learner`."""
    return (*(("store",) if health.failing else ()), *(("learner",) if learner.missing else ()))


_WARM_UP = RouteRequest(
    request=ExecuteRequest(prompt="Warm up: load what the first request would wait for."),
    quantum_config=QuantumOptions(cache="bypass"),
)
