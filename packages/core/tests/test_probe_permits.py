"""Several processes, one store: a half-open breaker gets as many probes as it allows, and not as many from each."""

from __future__ import annotations

import numpy as np
import pytest
from builders import SetClock

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.ports import DecisionEvent
from monkey_coder.probe_permits import IDLE_S, LEASE_S, REST_S, ProbePermits
from monkey_coder.quantum.circuit_breaker import BreakerOptions
from monkey_coder.quantum.provider_manager import CallReport, ProviderManager
from monkey_coder.storage.sqlite_store import SqliteStore

REFS = ("a/one", "a/two", "b/one")
BROKEN = "a/one"
OPTIONS = BreakerOptions()


class Process:
    """The breakers of one process, with its permits."""

    def __init__(self, name: str, store: SqliteStore, clock: SetClock) -> None:
        self.clock = clock
        self.manager = ProviderManager(REFS, clock, np.random.default_rng(len(name)))
        self.permits = ProbePermits(store, self.manager, name, clock)

    def told(self, error: str | None) -> None:
        self.manager.on_outcomes([CallReport(BROKEN, error, self.clock, self.clock.now)])

    def probes(self, most: int = 10) -> int:
        """Send decisions to the broken model for as long as it may be chosen."""
        sent = 0
        while sent < most and self.can():
            answer = {"provider": "a", "model": "one"}
            self.manager.on_decided([DecisionEvent(answer, None, 0, np.zeros(0, np.float32), 0.0)])
            sent += 1
        return sent

    def can(self) -> bool:
        return bool(self.manager.available(REFS)[0])


@pytest.fixture
def clock() -> SetClock:
    return SetClock(1000.0)


@pytest.fixture
def processes(store: SqliteStore, clock: SetClock) -> list[Process]:
    made = [Process(name, store, clock) for name in ("one", "two", "three")]
    for process in made:
        for _ in range(OPTIONS.failures):
            process.told("timeout")
        assert not process.can()
    clock.now += 2 * OPTIONS.first_wait_s
    return made


def look(processes: list[Process]) -> None:
    for process in processes:
        process.permits.look()


def test_all_processes_together_send_the_probes_that_a_breaker_allows(processes: list[Process]) -> None:
    assert sum(process.probes() for process in processes) == 0  # nobody asked for a permit yet
    look(processes)
    assert [process.probes() for process in processes] == [OPTIONS.probes, 0, 0]
    look(processes)
    assert sum(process.probes() for process in processes) == 0
    for process in processes:
        for _ in range(OPTIONS.successes):
            process.told(None)
    assert all(process.can() for process in processes)
    look(processes)
    assert processes[0].permits.leases.lease_owner("probe a") is None


def test_a_process_without_traffic_leaves_probing_to_others(processes: list[Process], clock: SetClock) -> None:
    look(processes)
    clock.now += IDLE_S + 0.1
    look(processes)
    assert [process.can() for process in processes] == [False, True, False]
    clock.now += REST_S / 2
    look(processes)
    assert [process.can() for process in processes] == [False, True, False]


def test_the_permit_of_a_process_that_died_passes_on(processes: list[Process], clock: SetClock) -> None:
    look(processes)
    clock.now += LEASE_S + 0.1
    look(processes[1:])
    assert [process.can() for process in processes[1:]] == [True, False]


def test_while_the_store_is_away_everybody_may_probe(processes: list[Process], store: SqliteStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailableError):
        processes[1].permits.look()
    assert processes[1].probes() == OPTIONS.probes


def test_while_all_is_well_the_store_is_not_asked(store: SqliteStore, clock: SetClock) -> None:
    store.close()
    Process("one", store, clock).permits.look()
