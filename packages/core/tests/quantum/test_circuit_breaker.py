"""The circuit breaker as a state machine: whatever is reported in whatever order, it keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monkey_coder.quantum.circuit_breaker import BreakerOptions, CircuitBreaker

OPTIONS = BreakerOptions()


def breaker(options: BreakerOptions = OPTIONS) -> CircuitBreaker:
    return CircuitBreaker(options, np.random.default_rng(0))


def opened(at: float = 0.0, options: BreakerOptions = OPTIONS) -> CircuitBreaker:
    made = breaker(options)
    for _ in range(options.failures):
        made.record(False, at, at)
    assert made.state(at) == "open"
    return made


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    made = breaker()
    for _ in range(3):
        for _ in range(OPTIONS.failures - 1):
            made.record(False, 0.0, 0.0)
        made.record(True, 0.0, 0.0)
    assert made.state(0.0) == "closed"
    assert made.allows(0.0)
    assert not opened().allows(0.0)


def test_half_open_it_lets_few_probes_through_and_closes_when_they_succeed() -> None:
    made = opened()
    later = 2.0 * OPTIONS.first_wait_s
    assert made.state(later) == "half_open"
    for _ in range(OPTIONS.probes):
        assert made.allows(later)
        made.note_decision(later)
    assert not made.allows(later)
    for _ in range(OPTIONS.successes):
        made.record(True, later, later)
    assert made.state(later) == "closed"
    assert made.failures == made.openings == 0


def test_a_failed_probe_doubles_the_wait_up_to_a_bound() -> None:
    made = opened(options=BreakerOptions(jitter=0.0))
    waits = []
    for _ in range(10):
        assert made.retry_at is not None
        waits.append(made.retry_at - made.opened_at)
        made.record(False, made.retry_at, made.retry_at)
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


def test_back_offs_are_jittered_within_bounds() -> None:
    rng = np.random.default_rng(1)
    waits = set()
    for _ in range(50):
        made = CircuitBreaker(BreakerOptions(failures=1, jitter=0.2), rng)
        made.record(False, 0.0, 0.0)
        waits.add(made.retry_at)
    assert len(waits) == 50
    assert all(4.0 <= wait <= 6.0 for wait in waits)


def test_what_was_decided_before_it_opened_changes_nothing() -> None:
    made = opened(at=100.0)
    retry_at = made.retry_at
    for good in (True, False):
        made.record(good, 99.0, 200.0)
        assert (made.retry_at, made.state(200.0)) == (retry_at, "half_open")


def test_probes_that_nobody_reports_about_are_given_anew() -> None:
    made = opened()
    later = 10.0
    for _ in range(OPTIONS.probes):
        made.note_decision(later)
    assert not made.allows(later + OPTIONS.probe_wait_s - 1.0)
    assert made.allows(later + OPTIONS.probe_wait_s)


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"probes": 0}, {"successes": 0}, {"jitter": 1.0}, {"first_wait_s": 0.0}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        BreakerOptions(**wrong)


class BreakerMachine(RuleBasedStateMachine):
    """Reports and decisions in any order, on a clock that only moves forward."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 1000.0
        self.row = 0
        self.probes: list[float] = []

    @rule(seconds=st.floats(0.0, 400.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(good=st.booleans(), age=st.floats(0.0, 400.0))
    def report(self, good: bool, age: float) -> None:
        was, opened_at = self.breaker.state(self.now), self.breaker.opened_at
        self.breaker.record(good, self.now - age, self.now)
        is_now = self.breaker.state(self.now)
        stale = opened_at is not None and self.now - age < opened_at
        if was == "closed":
            self.row = 0 if good else self.row + 1
            assert (is_now == "open") == (self.row >= OPTIONS.failures)
        elif stale:
            assert is_now == was
        elif not good:
            assert is_now == "open"
        if is_now != was:
            self.row, self.probes = 0, []
        if good and not stale:
            self.probes = []

    @rule()
    def decide(self) -> None:
        if not self.breaker.allows(self.now):
            return
        if self.breaker.state(self.now) == "half_open":
            self.probes = [at for at in self.probes if self.now - at < OPTIONS.probe_wait_s]
            self.probes.append(self.now)
            assert len(self.probes) <= 2 * OPTIONS.probes
        self.breaker.note_decision(self.now)

    @invariant()
    def open_means_nothing_goes_there_and_it_ends(self) -> None:
        state = self.breaker.state(self.now)
        assert self.breaker.allows(self.now) <= (state != "open")
        assert self.breaker.allows(self.now) >= (state == "closed")
        if self.breaker.retry_at is not None:
            assert 0.0 < self.breaker.retry_at - self.breaker.opened_at <= OPTIONS.longest_wait_s * 1.2
            far = self.now + 2.0 * OPTIONS.longest_wait_s
            assert self.breaker.state(far) == "half_open"


TestBreakerMachine = BreakerMachine.TestCase
