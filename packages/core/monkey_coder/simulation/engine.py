"""The real engine in a simulated world: the same parts as in a web process, on a clock that the simulation sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from monkey_coder.catalog.catalog import Catalog, build_catalog
from monkey_coder.core.routing import AdvancedRouter
from monkey_coder.errors import RouterError
from monkey_coder.following import follow
from monkey_coder.live_catalog import put_model, today
from monkey_coder.models import FeedbackRequest, RouteRequest
from monkey_coder.policies import PolicyWatch
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.gates import apply_gates
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.outcome_record import ANONYMOUS, Reporter, outcome_row
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.policy_shelf import StoreShelf
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.reward import worth
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.selection_learning import OutcomeFollower
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager
from monkey_coder.storage.port import DecisionRow, Store
from monkey_coder.storage.sqlite_store import SqliteStore

BEGINNING_S: Final = 1_767_571_200.0
"""Monday, 5 January 2026, 00:00 UTC, when every simulation begins."""

ORIGIN: Final = "simulated world"
_SECRET: Final = b"of no use outside of simulations"


@dataclass
class SimulatedClock:
    """Seconds since 1970, as the simulation has them.

    Attributes:
        now: Set by whoever simulates; never goes back.
    """

    now: float = BEGINNING_S

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@dataclass
class SimulatedEngine:
    """An engine that decides, and learns what it is told.

    Attributes:
        clock: Its time.
        store: Where it keeps what it was told.
        live: What it knows now.
        manager: Decides.
        follower: Learns.
        policies: Serves what the learner published.
        unwritten: Decisions that are not in the log yet.
    """

    clock: SimulatedClock
    store: Store
    live: LiveSnapshot
    manager: QuantumRoutingManager
    follower: OutcomeFollower
    policies: PolicyWatch
    unwritten: list[Callable[[], DecisionRow]] = field(default_factory=list)

    def decide(self, requests: Sequence[RouteRequest]) -> list[Mapping[str, Any]]:
        """Decide a batch.

        Raises:
            RouterError: One of the requests could not be decided, which no request of a simulation deserves.
        """
        answers: list[Mapping[str, Any]] = []
        for answer in self.manager.decide(requests):
            if isinstance(answer, RouterError):
                raise answer
            answers.append(answer)
        return answers

    def tell(self, reports: Sequence[FeedbackRequest]) -> None:
        """Take reports that arrive now, and learn from all that is there."""
        self.write()
        if reports:
            reporter = Reporter(ANONYMOUS, self.clock.now)
            self.store.append_outcomes([outcome_row(report, reporter) for report in reports])
        while self.follower.step():
            pass

    def write(self) -> None:
        """Put the decisions so far into the log."""
        rows = [make() for make in self.unwritten]
        self.unwritten.clear()
        if rows:
            self.store.append_decisions(rows)

    def put_model(self, ref: str, fields: Mapping[str, Any]) -> None:
        """Add a model to the catalog, or change it, as an operator would while servers run."""
        put_model(self.store, ref, fields)


def catalog_of(models: Mapping[str, Mapping[str, Any]]) -> Catalog:
    """A catalog of the simulated world's models, fields by ref."""
    return build_catalog({ref: dict(fields) for ref, fields in models.items()}, ORIGIN, today())


def heuristic(catalog: Catalog) -> AdvancedRouter:
    """Gary8D with a catalog."""
    return AdvancedRouter(catalog.table(), apply_gates, worth, wilson)


@contextmanager
def open_engine(catalog: Catalog, folder: Path, attempts: int, rng: np.random.Generator) -> Iterator[SimulatedEngine]:
    """Build an engine, and close it in the end.

    Args:
        catalog: The models at the beginning.
        folder: For its store.
        attempts: The most that a caller makes who verifies.
        rng: Its randomness.
    """
    clock = SimulatedClock()
    with ExitStack() as stack:
        store = SqliteStore(folder / "store.sqlite3", clock)
        stack.callback(store.close)
        strategies = configured_strategies(None, None)
        live = LiveSnapshot(EngineSnapshot(catalog.table(), strategies, max_attempts=attempts, max_alternatives=0))
        policies = PolicyWatch(StoreShelf(store, clock), live)
        threads = ThreadManager(len(strategies), time.monotonic)
        stack.callback(threads.close)
        ids = SignedIds(_SECRET, clock, rng.bytes)
        monitor = PerformanceMonitor()
        unwritten: list[Callable[[], DecisionRow]] = []
        following = follow(
            store, live, catalog, monitor, ids.issued_at, policies.rebound, wall_clock=clock, clock=clock, rng=rng
        )
        manager = QuantumRoutingManager(
            snapshot=live,
            embedder=StaticEmbedder.load(),
            threads=threads,
            ids=ids,
            heuristic=heuristic(catalog).heuristic,
            clock=time.monotonic,
            rng=rng,
            listeners=(
                monitor,
                DecisionLog(unwritten.append, clock),
                following.providers,
                following.follower.recent,
            ),
        )
        yield SimulatedEngine(clock, store, live, manager, following.follower, policies, unwritten)
