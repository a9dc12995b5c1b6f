"""What callers get when strategies fail, abstain or are late, or when the engine itself breaks: always an answer."""

from __future__ import annotations

import copy
import logging
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from builders import (
    CHEAP,
    DEAR,
    MIDDLE,
    Failing,
    Fixed,
    HashEmbedder,
    Held,
    ask,
    chosen,
    engine,
    heuristic_decision,
    in_contract,
    refs_of,
    table,
)
from prometheus_client import CollectorRegistry

from monkey_coder.core.routing import AdvancedRouter
from monkey_coder.errors import NoEligibleModelError, OverloadedError, RouterError, UnknownModelError
from monkey_coder.models import RouteRequest, RoutingDecision
from monkey_coder.ports import DecisionEvent, FloatArray, RouteBatch, Scores, Strategy
from monkey_coder.quantum.gates import apply_gates
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.metrics_collector import MetricsCollector
from monkey_coder.quantum.reward import worth

REFS = (CHEAP.ref, MIDDLE.ref, DEAR.ref)


def gary8d() -> Any:
    return AdvancedRouter(table(), gate=apply_gates, worth=worth, interval=wilson).heuristic


def test_when_every_strategy_fails_the_heuristic_answers_and_says_so() -> None:
    with engine(Failing("one"), Failing("two"), heuristic=gary8d()) as manager:
        (answer,) = manager.decide([ask()])
    decision = in_contract(answer)
    assert decision.strategy_used == "gary8d"
    assert decision.degraded == ("strategy", "quantum")
    assert [(r.strategy, r.status) for r in decision.thread_results] == [("one", "FAILED"), ("two", "FAILED")]
    assert sorted(refs_of(decision)) == sorted(REFS)


def test_when_all_abstain_the_heuristic_answers() -> None:
    mute = Fixed("mute", [0.5] * 3, abstains=True)
    with engine(mute, heuristic=gary8d()) as manager:
        (answer,) = manager.decide([ask()])
    decision = in_contract(answer)
    assert decision.degraded == ("quantum",)
    assert [(r.status, r.model) for r in decision.thread_results] == [("SUCCESS", None)]


def test_who_asked_for_the_failing_strategy_alone_gets_the_heuristic_and_others_do_not() -> None:
    with engine(Failing("bad"), Fixed("good", [0.1, 0.9, 0.1])) as manager:
        only_bad, only_good, both = manager.decide(
            [ask(options={"strategies": names}) for names in (["bad"], ["good"], None)]
        )
    assert (only_bad["strategy_used"], only_bad["degraded"]) == ("gary8d", ["strategy", "quantum"])
    assert (chosen(only_good), only_good["degraded"]) == (MIDDLE.ref, [])
    assert (chosen(both), both["degraded"]) == (MIDDLE.ref, ["strategy"])


def test_a_late_strategy_degrades_the_answer_to_its_deadline() -> None:
    slow = Held("slow")
    with engine(slow, Fixed("quick", [0.1, 0.9, 0.1], instant=True)) as manager:
        try:
            decision = manager.route(ask(options={"timeout_ms": 100}))
        finally:
            slow.release.set()
    assert decision.ref == MIDDLE.ref
    assert decision.degraded == ("deadline",)
    assert {r.strategy: r.status for r in decision.thread_results} == {"slow": "TIMEOUT", "quick": "SUCCESS"}


def test_when_all_are_late_the_heuristic_answers_within_the_deadline() -> None:
    slow = Held("slow")
    with engine(slow, heuristic=gary8d()) as manager:
        try:
            decision = manager.route(ask(options={"timeout_ms": 100}))
        finally:
            slow.release.set()
    assert decision.degraded == ("deadline", "quantum")
    assert 100.0 <= decision.execution_time_ms < 30_000.0


def test_first_success_does_not_wait_for_the_slow() -> None:
    slow = Held("slow")
    with engine(slow, Fixed("quick", [0.1, 0.9, 0.1])) as manager:
        try:
            decision = manager.route(ask(options={"collapse_strategy": "first_success"}))
            assert slow.left.is_set() is False
        finally:
            slow.release.set()
    assert (decision.ref, decision.strategy_used, decision.degraded) == (MIDDLE.ref, "quick", ())
    assert {r.strategy: r.status for r in decision.thread_results} == {"slow": "CANCELLED", "quick": "SUCCESS"}


def test_first_success_waits_until_everyone_in_the_batch_has_an_answer() -> None:
    first, second = Fixed("first", [0.9, 0.1, 0.1]), Fixed("second", [0.1, 0.9, 0.1])
    options = {"collapse_strategy": "first_success"}
    with engine(first, second) as manager:
        answers = manager.decide([ask(options={**options, "strategies": [name]}) for name in ("first", "second")])
    assert [chosen(a) for a in answers] == [CHEAP.ref, MIDDLE.ref]


class Narrow(Fixed):
    """Forgets a model."""

    def score(self, batch: RouteBatch) -> Scores:
        whole = super().score(batch)
        return Scores(whole.utility[:, 1:], whole.confidence, whole.abstains)


@pytest.mark.parametrize(
    "broken",
    [
        Fixed("broken", [np.nan, 0.5, 0.5]),
        Fixed("broken", [0.5, np.inf, 0.5]),
        Fixed("broken", [0.5] * 3, confidence=np.nan),
        Fixed("broken", [0.5] * 3, success=[0.5, np.nan, 0.5]),
        Narrow("broken", [0.5] * 3),
    ],
)
def test_an_opinion_that_is_no_opinion_spoils_no_decision(broken: Fixed) -> None:
    with engine(broken, Fixed("sane", [0.1, 0.9, 0.2])) as manager:
        (answer,) = manager.decide([ask()])
    decision = in_contract(answer)
    assert (decision.ref, decision.degraded) == (MIDDLE.ref, ("strategy",))
    assert {r.strategy: r.status for r in decision.thread_results} == {"broken": "FAILED", "sane": "SUCCESS"}


def test_what_an_opinion_holds_for_models_that_are_no_candidates_does_not_matter() -> None:
    with engine(Fixed("partial", [np.nan, 0.9, 0.2], success=[np.nan, 0.8, 0.7], evidence=9.0)) as manager:
        decision = manager.route(ask(excluded_models=[CHEAP.ref]))
    assert (decision.ref, decision.degraded) == (MIDDLE.ref, ())
    assert decision.expected.success == pytest.approx(0.8)


class BrokenEmbedder(HashEmbedder):
    def embed(self, texts: Sequence[str]) -> FloatArray:
        raise MemoryError("no room")


def test_whatever_breaks_inside_the_heuristic_answers(caplog: pytest.LogCaptureFixture) -> None:
    with engine(embedder=BrokenEmbedder(), heuristic=gary8d()) as manager, caplog.at_level(logging.ERROR):
        answers = manager.decide([ask("secret prompt"), ask(excluded_models=["no/such"]), ask(input_tokens=10**9)])
    assert in_contract(answers[0]).degraded == ("quantum",)
    assert isinstance(answers[1], UnknownModelError)
    assert isinstance(answers[2], NoEligibleModelError)
    assert "the heuristic answers" in caplog.text
    assert "secret prompt" not in caplog.text


def test_what_the_heuristic_refuses_its_caller_sees() -> None:
    def refuse(request: RouteRequest) -> RoutingDecision:
        if "two" in request.request.prompt:
            raise OverloadedError
        return heuristic_decision(table())

    with engine(Failing("bad"), heuristic=refuse) as manager:
        answers = manager.decide([ask("one"), ask("two"), ask("three")])
    assert [isinstance(a, RouterError) for a in answers] == [False, True, False]


@pytest.mark.parametrize("strategy", [Fixed("sane", [0.5] * 3), Failing("bad")], ids=["engine", "heuristic"])
def test_a_long_preferred_provider_costs_no_memory(strategy: Strategy) -> None:
    request = ask(preferred_providers=["x" * 300_000, *(f"p{n}" for n in range(250))])
    with engine(strategy, heuristic=gary8d()) as manager:
        manager.route(ask())
        tracemalloc.start()
        try:
            manager.route(request)
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()


# What listeners hear of it


class Breaking:
    """A listener that raises."""

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        raise OSError("the disk is full")


class Heard:
    """A listener that keeps what it is told, call by call."""

    def __init__(self) -> None:
        self.calls: list[list[DecisionEvent]] = []

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        self.calls.append(list(events))


def counted(*strategies: Strategy, requests: Sequence[RouteRequest], **parts: Any) -> tuple[CollectorRegistry, Heard]:
    """What metrics and a listener hear of one batch."""
    registry, heard = CollectorRegistry(), Heard()
    with engine(*strategies, heuristic=gary8d(), listeners=[MetricsCollector(registry), heard], **parts) as manager:
        manager.decide(requests)
    return registry, heard


def test_when_all_strategies_fail_their_failures_and_the_degradation_are_counted() -> None:
    registry, heard = counted(Failing("one"), Failing("two"), requests=[ask(), ask()])
    for name in ("one", "two"):
        labels = {"strategy": name, "status": "FAILED"}
        assert registry.get_sample_value("quantum_strategy_results_total", labels) == 2
    assert registry.get_sample_value("quantum_degraded_total", {"reason": "quantum"}) == 2
    assert registry.get_sample_value("quantum_degraded_total", {"reason": "strategy"}) == 2
    assert registry.get_sample_value("quantum_route_duration_seconds_count", {"cache": "bypass"}) == 2
    ((first, second),) = heard.calls
    assert (first.row, second.row) == (0, 1)
    assert first.batch is not None
    assert len(first.batch) == 2


def test_when_the_engine_itself_breaks_listeners_hear_of_the_heuristics_answer() -> None:
    registry, heard = counted(requests=[ask(), ask(input_tokens=10**9)], embedder=BrokenEmbedder())
    assert registry.get_sample_value("quantum_degraded_total", {"reason": "quantum"}) == 1
    ((event,),) = heard.calls  # nothing was decided for the other
    assert event.batch is None
    assert REFS[int(np.argmax(event.distribution))] == chosen(event.answer)
    assert event.distribution.sum() == event.answer["propensity"] == 1.0


def test_listeners_hear_once_of_a_fan_out_whatever_became_of_its_requests() -> None:
    options = [{"strategies": ["bad"]}, {"strategies": ["good"]}, {"collapse_strategy": "consensus"}, {}]
    registry, heard = counted(
        Failing("bad"), Fixed("good", [0.1, 0.9, 0.1]), requests=[ask(options=each) for each in options]
    )
    (events,) = heard.calls
    assert sorted(event.answer["collapse_strategy"] for event in events) == [
        "consensus",
        "gary8d",
        "weighted",
        "weighted",
    ]
    for name in ("good", "bad"):  # asked once, for all four
        assert registry.get_sample_value("quantum_strategy_duration_seconds_count", {"strategy": name}) == 1


def test_a_listener_that_raises_costs_nobody_a_decision_or_the_news(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    with engine(Fixed("good", [0.1, 0.9, 0.1]), listeners=[Breaking(), heard]) as manager:
        (answer,) = manager.decide([ask()])
    assert (chosen(answer), answer["degraded"]) == (MIDDLE.ref, [])
    assert len(heard.calls) == 1
    assert "a listener failed" in caplog.text


def test_answers_of_one_batch_share_nothing_that_can_be_changed() -> None:
    with engine(Failing("bad"), Fixed("good", [0.1, 0.9, 0.1])) as manager:
        first, second = manager.decide([ask(), ask()])
    before = copy.deepcopy(second)
    for value in first.values():
        if isinstance(value, (list, dict)):
            value.clear()
    assert second == before
