"""The Prometheus series of decisions: names and labels are a contract, and each test has its own registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import route_batch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.metrics_collector import MetricsCollector

SERIES_OF_THE_CONTRACT: dict[str, tuple[str, set[str]]] = {
    "quantum_route_requests": ("counter", {"outcome"}),
    "quantum_feedback": ("counter", {"result"}),
    "quantum_provider_available": ("gauge", {"provider"}),
    "quantum_breaker_state": ("gauge", {"provider"}),
    "quantum_route_duration_seconds": ("histogram", {"cache"}),
    "quantum_strategy_duration_seconds": ("histogram", {"strategy"}),
    "quantum_strategy_results": ("counter", {"strategy", "status"}),
    "quantum_decisions": ("counter", {"provider", "model", "collapse"}),
    "quantum_degraded": ("counter", {"reason"}),
    "quantum_queue_depth": ("gauge", set()),
    "quantum_strategy_alert": ("gauge", {"strategy", "figure"}),
    "quantum_batch_size": ("histogram", set()),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> MetricsCollector:
    return MetricsCollector(registry)


def event(model: str = "m", duration_s: float = 0.003, **changes: Any) -> DecisionEvent:
    answer = {
        "provider": "p",
        "model": model,
        "collapse_strategy": "weighted",
        "cache": "miss",
        "degraded": [],
        "thread_results": [
            {"strategy": "balanced", "status": "SUCCESS", "execution_time_ms": 2.0},
            {"strategy": "performance", "status": "TIMEOUT", "execution_time_ms": None},
        ],
    } | changes
    return DecisionEvent(answer, route_batch([[0.5]]), 0, np.ones(1, dtype=np.float32), duration_s)


def test_names_and_labels_are_those_of_the_contract(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    metrics.on_batch(1, 0)
    metrics.on_finished("decided")
    metrics.on_decided([event(degraded=["deadline"])])
    metrics.on_alert("balanced", "p95_s", raised=True)
    metrics.on_feedback("new")
    metrics.on_provider("p", available=True, breaker="closed")
    families = {f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())}
    for name, (kind, labels) in SERIES_OF_THE_CONTRACT.items():
        family = families[name]
        assert family.type == kind
        assert family.documentation.endswith(".")
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == labels
        assert kind != "counter" or family.samples[0].name == f"{name}_total"


def test_requests_are_counted_by_how_they_ended(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    metrics.on_finished("decided", 3)
    metrics.on_finished("decided")
    metrics.on_finished("overloaded")
    assert registry.get_sample_value("quantum_route_requests_total", {"outcome": "decided"}) == 4
    assert registry.get_sample_value("quantum_route_requests_total", {"outcome": "overloaded"}) == 1


def test_decisions_of_a_batch_are_counted_one_by_one(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    metrics.on_decided([event("a"), event("b"), event("a", degraded=["deadline", "strategy"])])
    metrics.on_decided([event("a", collapse_strategy="consensus", cache="bypass")])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("quantum_decisions_total", provider="p", model="a", collapse="weighted") == 2
    assert value("quantum_decisions_total", provider="p", model="b", collapse="weighted") == 1
    assert value("quantum_decisions_total", provider="p", model="a", collapse="consensus") == 1
    assert value("quantum_strategy_results_total", strategy="balanced", status="SUCCESS") == 4
    assert value("quantum_strategy_results_total", strategy="performance", status="TIMEOUT") == 4
    assert value("quantum_degraded_total", reason="deadline") == 1
    assert value("quantum_degraded_total", reason="strategy") == 1
    assert value("quantum_route_duration_seconds_count", cache="miss") == 3
    assert value("quantum_route_duration_seconds_sum", cache="miss") == pytest.approx(0.009)
    assert value("quantum_route_duration_seconds_count", cache="bypass") == 1


def test_a_strategy_is_timed_once_per_batch_in_seconds(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    metrics.on_decided([event("a"), event("b")])
    labels = {"strategy": "balanced"}
    assert registry.get_sample_value("quantum_strategy_duration_seconds_count", labels) == 1
    assert registry.get_sample_value("quantum_strategy_duration_seconds_sum", labels) == pytest.approx(0.002)
    assert registry.get_sample_value("quantum_strategy_duration_seconds_count", {"strategy": "performance"}) is None


def test_batches_show_size_and_queue(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    for size, waiting in ((64, 12), (3, 0), (1, 7)):
        metrics.on_batch(size, waiting)
    assert registry.get_sample_value("quantum_queue_depth") == 7
    assert registry.get_sample_value("quantum_batch_size_sum") == 68
    assert registry.get_sample_value("quantum_batch_size_bucket", {"le": "4.0"}) == 2


def test_an_alert_shows_from_when_it_is_raised_until_it_is_cleared(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    labels = {"strategy": "balanced", "figure": "failure_rate"}
    for raised in (True, False, True):
        metrics.on_alert("balanced", "failure_rate", raised=raised)
        assert registry.get_sample_value("quantum_strategy_alert", labels) == raised


def test_a_strategy_that_only_some_of_a_batch_asked_is_timed_as_well(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    other = {"strategy": "memory", "status": "SUCCESS", "execution_time_ms": 4.0}
    metrics.on_decided([event("a"), event("b", thread_results=[other])])
    for name in ("balanced", "memory"):
        assert registry.get_sample_value("quantum_strategy_duration_seconds_count", {"strategy": name}) == 1


def test_no_decisions_are_no_news(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    before = generate_latest(registry)
    metrics.on_decided([])
    assert generate_latest(registry) == before


def test_two_collectors_with_registries_of_their_own_stay_apart() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    MetricsCollector(one).on_finished("decided")
    MetricsCollector(other)
    assert other.get_sample_value("quantum_route_requests_total", {"outcome": "decided"}) is None


def test_breakers_and_feedback_are_told_by_number(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    for number, (state, available) in enumerate([("closed", True), ("half_open", True), ("open", False)]):
        metrics.on_provider("p", available=available, breaker=state)
        assert registry.get_sample_value("quantum_breaker_state", {"provider": "p"}) == number
        assert registry.get_sample_value("quantum_provider_available", {"provider": "p"}) == available
    metrics.on_feedback("late", 3)
    assert registry.get_sample_value("quantum_feedback_total", {"result": "late"}) == 3
