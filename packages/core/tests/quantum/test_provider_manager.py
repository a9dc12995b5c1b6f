"""Which providers can be had: what feedback says, what operators say, and how few probes go to a broken one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from builders import SetClock

from monkey_coder.ports import DecisionEvent, Repeat, Reuse
from monkey_coder.quantum.circuit_breaker import BreakerOptions
from monkey_coder.quantum.provider_manager import CallReport, ProviderManager

REFS = ("a/one", "a/two", "a/three", "b/one")
MODEL_FAILURES = BreakerOptions().failures


class Watched:
    """A manager on a clock, with a count of the times that it asked for a new table."""

    def __init__(self) -> None:
        self.clock = SetClock(1000.0)
        self.exhausted = 0
        self.manager = ProviderManager(REFS, self.clock, np.random.default_rng(0), on_exhausted=self._note)

    def _note(self) -> None:
        self.exhausted += 1

    def report(self, ref: str, error: str | None, times: int = 1) -> None:
        for _ in range(times):
            self.manager.on_outcomes([CallReport(ref, error, self.clock, self.clock.now)])

    def decide(self, ref: str) -> None:
        provider, _, model = ref.partition("/")
        answer = {"provider": provider, "model": model}
        self.manager.on_decided([DecisionEvent(answer, None, 0, np.zeros(0, np.float32), 0.0)])

    def repeat(self, ref: str) -> None:
        provider, _, model = ref.partition("/")
        said = {"provider": provider, "model": model}
        self.manager.on_repeated([Repeat("an id", "an id", "local", (), 0.0, Reuse("another", "general"), said)])

    def available(self) -> set[str]:
        return {ref for ref, can in zip(REFS, self.manager.available(REFS), strict=True) if can}


def test_a_failing_model_goes_and_its_provider_stays() -> None:
    watched = Watched()
    watched.report("a/one", "timeout", MODEL_FAILURES)
    assert watched.available() == set(REFS) - {"a/one"}
    report = {told.breaker.name: told for told in watched.manager.report()}
    assert report["a"].available
    assert report["a"].last_error == "timeout"
    assert [model.state for model in report["a"].models] == ["open", "closed", "closed"]
    assert report["b"].last_error is None


def test_a_provider_all_of_whose_models_fail_goes_as_a_whole() -> None:
    watched = Watched()
    watched.report("a/one", "auth", MODEL_FAILURES)
    watched.report("a/two", "auth", MODEL_FAILURES)
    assert watched.available() == {"b/one"}


def test_what_speaks_of_the_request_does_not_count() -> None:
    watched = Watched()
    for error in ("context_overflow", "content_filtered"):
        watched.report("a/one", error, 100)
    watched.report("no/such", "timeout", 100)
    assert watched.available() == set(REFS)


@pytest.mark.parametrize("serve", [Watched.decide, Watched.repeat])
def test_probes_are_counted_and_their_end_is_told(serve: Callable[[Watched, str], None]) -> None:
    watched = Watched()
    watched.report("a/one", "timeout", MODEL_FAILURES)
    serve(watched, "a/one")
    assert watched.exhausted == 0
    watched.clock.now += 10.0
    assert "a/one" in watched.available()
    for _ in range(BreakerOptions().probes):
        serve(watched, "a/one")
    assert watched.exhausted == 1
    assert "a/one" not in watched.available()
    watched.report("a/one", None, BreakerOptions().successes)
    assert watched.available() == set(REFS)


def test_operators_have_the_last_word() -> None:
    watched = Watched()
    watched.report("a/one", "timeout", MODEL_FAILURES)
    watched.manager.override({"a": "available", "b": "drained"})
    assert watched.available() == {"a/one", "a/two", "a/three"}
    assert {told.breaker.name: told.override for told in watched.manager.report()} == {"a": "available", "b": "drained"}
    watched.manager.override({})
    assert watched.available() == set(REFS) - {"a/one"}


def test_models_that_nobody_watches_may_be_chosen() -> None:
    assert Watched().manager.available(["new/model"]).tolist() == [True]
