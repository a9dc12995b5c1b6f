"""The Prometheus series of decisions: names and labels are a contract, and each test has its own registry."""

from __future__ import annotations

import re
import subprocess
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import route_batch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.ports import DecisionEvent, OutcomeEvent
from monkey_coder.quantum.metrics_collector import (
    ALERT_FIGURES,
    CACHE_RESULTS,
    CACHE_TIERS,
    MOST_EXPERIMENTS,
    MOST_UNSETTLED,
    REPORT_RESULTS,
    MetricsCollector,
    error_codes,
)
from monkey_coder.quantum.metrics_exposition import Exposition
from monkey_coder.quantum.metrics_series import OTHER, Vocabulary
from monkey_coder.storage.port import OutcomeRow

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
    "quantum_cache_requests": ("counter", {"tier", "result"}),
    "quantum_outcomes": ("counter", {"provider", "model"}),
    "quantum_successes": ("counter", {"provider", "model"}),
    "quantum_cost_usd": ("counter", {"provider", "model"}),
    "quantum_success_ratio": ("gauge", {"provider", "model"}),
    "quantum_cost_per_success_usd": ("gauge", set()),
    "quantum_policy_version": ("gauge", set()),
    "quantum_training_loss": ("gauge", set()),
    "quantum_replay_size": ("gauge", set()),
    "quantum_target_usd_per_task": ("gauge", set()),
    "quantum_paced_cost_weight": ("gauge", set()),
    "quantum_budget_balance_usd": ("gauge", set()),
    "quantum_experiment_assignments": ("counter", {"experiment", "arm"}),
}
DOCS = Path(__file__).parents[4] / "docs" / "reference" / "metrics.md"


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


def report(metrics: MetricsCollector, number: int, model: str, score: float | None, cost_usd: float | None) -> None:
    """An outcome that this process accepted."""
    metrics.expect([str(number)])
    metrics.on_outcomes([OutcomeEvent(str(number), model, score, cost_usd)])


def everything(metrics: MetricsCollector, word: str = "p") -> None:
    """One event of each kind."""
    metrics.on_batch(1, 0)
    metrics.on_finished("decided")
    metrics.on_decided([event(degraded=["deadline"], experiment={"id": word, "arm": "a"})])
    metrics.on_alert("balanced", "p95_s", raised=True)
    metrics.on_feedback("new")
    metrics.on_provider("p", available=True, breaker="closed")
    metrics.on_cache("local", "hit", 3)
    metrics.on_training(loss=0.25, replay_size=1_000)
    metrics.on_policy(4)
    report(metrics, 1, "p/m", 1.0, 0.5)


def test_names_and_labels_are_those_of_the_contract(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    everything(metrics)
    told = Exposition(registry, None).render().decode()
    families = {f.name: f for f in text_string_to_metric_families(told)}
    assert set(families) == set(SERIES_OF_THE_CONTRACT)
    for name, (kind, labels) in SERIES_OF_THE_CONTRACT.items():
        family = families[name]
        assert family.type == kind
        assert family.documentation.endswith(".")
        assert {label for sample in family.samples for label in sample.labels} - {"le"} == labels
        assert kind != "counter" or family.samples[0].name == f"{name}_total"


def test_promtool_has_nothing_to_say_against_it(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    everything(metrics)
    told = Exposition(registry, None).render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_every_series_is_described_for_those_who_draw_graphs(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    everything(metrics)
    rows = re.findall(r"^\| `(quantum_\w+)(?:\{([\w, ]*)\})?` \| (\w+) \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    told = {
        (f.name + ("_total" if f.type == "counter" else ""), f.type, f.documentation.removesuffix("."))
        for f in text_string_to_metric_families(Exposition(registry, None).render().decode())
    }
    assert {(name, kind, text.split(".")[0]) for name, _, kind, text in rows} == told
    for name, labels, _, _ in rows:
        assert set(filter(None, labels.split(", "))) == SERIES_OF_THE_CONTRACT[name.removesuffix("_total")][1]


REFS, STRATEGIES = ("p/m", "p/deep/m", "q/n"), ("balanced", "performance")
KNOWN = Vocabulary(refs=lambda: REFS, providers=lambda: ("p", "q"), strategies=lambda: STRATEGIES)
CLOSED = {
    "outcome": {"decided", "abandoned", *error_codes()},
    "result": {*REPORT_RESULTS, *error_codes(), *CACHE_RESULTS},
    "provider": {"p", "q"},
    "model": {"m", "deep/m", "n"},
    "collapse": {*COLLAPSE_NAMES, "gary8d"},
    "strategy": set(STRATEGIES),
    "status": {"PENDING", "RUNNING", "SUCCESS", "FAILED", "TIMEOUT", "CANCELLED"},
    "cache": {"miss", "local", "redis", "similar", "bypass"},
    "reason": {"redis", "store", "deadline", "strategy", "learner", "quantum"},
    "tier": set(CACHE_TIERS),
    "figure": set(ALERT_FIGURES),
}
words = st.sampled_from([*sorted(set().union(*CLOSED.values())), "", "a\nb", '"}', "Fix the race"]) | st.text(
    max_size=30
)


@given(st.data())
def test_label_values_stay_within_closed_sets_whatever_comes(data: st.DataObject) -> None:
    registry = CollectorRegistry()
    metrics = MetricsCollector(registry, KNOWN)
    for number in range(data.draw(st.integers(1, 4))):
        word = lambda: data.draw(words)  # noqa: E731
        metrics.on_finished(word())
        metrics.on_feedback(word())
        metrics.on_cache(word(), word())
        metrics.on_alert(word(), word(), raised=True)
        metrics.on_provider(word(), available=True, breaker="open")
        report(metrics, number, word(), 1.0, 1.0)
        thread = {"strategy": word(), "status": word(), "execution_time_ms": 1.0}
        strange = {"provider": word(), "collapse_strategy": word(), "cache": word(), "degraded": [word()]}
        metrics.on_decided([event(word(), thread_results=[thread], **strange)])
    for family in text_string_to_metric_families(Exposition(registry, None).render().decode()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or value in CLOSED[label] | {OTHER}


def test_a_model_gets_a_series_from_when_it_is_in_the_catalog() -> None:
    refs: list[str] = []
    registry = CollectorRegistry()
    metrics = MetricsCollector(registry, Vocabulary(refs=lambda: refs))
    metrics.on_decided([event("m")])
    metrics.settle()
    refs.append("p/m")
    metrics.on_decided([event("m"), event("m")])

    def decided(provider: str, model: str) -> float | None:
        labels = {"provider": provider, "model": model, "collapse": "weighted"}
        return registry.get_sample_value("quantum_decisions_total", labels)

    assert decided(OTHER, OTHER) == 1
    assert decided("p", "m") == 2


def test_there_is_an_end_to_the_arms_of_experiments(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    for number in range(MOST_EXPERIMENTS + 20):
        metrics.on_decided([event(experiment={"id": f"e{number}", "arm": "a"})])
    samples = [s for f in registry.collect() for s in f.samples if s.name == "quantum_experiment_assignments_total"]
    assert len(samples) == MOST_EXPERIMENTS + 1
    assert registry.get_sample_value("quantum_experiment_assignments_total", {"experiment": OTHER, "arm": OTHER}) == 20


def test_success_and_its_price_follow_from_the_outcomes(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    told = [("p/m", 1.0, 0.02), ("p/m", 0.0, 0.03), ("p/m", None, 0.01), ("q/a/b", 0.5, None), ("q/a/b", 1.0, 0.0)]
    for number, outcome in enumerate(told):
        report(metrics, number, *outcome)
    rendered = Exposition(registry, None).render().decode()
    assert 'quantum_success_ratio{model="m",provider="p"} 0.5' in rendered
    assert 'quantum_success_ratio{model="a/b",provider="q"} 0.75' in rendered
    assert 'quantum_cost_usd_total{model="m",provider="p"} 0.06' in rendered
    assert "\nquantum_cost_per_success_usd 0.024\n" in rendered  # 0.06 USD for 2.5 successes


def test_an_outcome_counts_once_and_only_where_it_was_accepted(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    metrics.expect(["ours"])
    joined = [OutcomeEvent("ours", "p/m", 1.0, 0.1), OutcomeEvent("theirs", "p/m", 1.0, 0.1)]
    metrics.on_outcomes(joined)
    metrics.on_outcomes(joined)
    assert registry.get_sample_value("quantum_outcomes_total", {"provider": "p", "model": "m"}) == 1


def test_a_report_of_the_same_outcome_by_another_process_is_not_counted_here(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    first, again = (OutcomeRow("d", "p/m", at, b"{%d}" % at) for at in (1.0, 2.0))
    metrics.expect([again.key])
    metrics.on_outcomes([OutcomeEvent(first.key, "p/m", 1.0, 0.1)])
    assert registry.get_sample_value("quantum_outcomes_total", {"provider": "p", "model": "m"}) is None
    metrics.on_outcomes([OutcomeEvent(again.key, "p/m", 1.0, 0.1)])
    assert registry.get_sample_value("quantum_outcomes_total", {"provider": "p", "model": "m"}) == 1.0


def test_without_outcomes_nothing_is_said_of_success(registry: CollectorRegistry, metrics: MetricsCollector) -> None:
    rendered = Exposition(registry, None).render().decode()
    assert "quantum_success_ratio{" not in rendered
    assert "\nquantum_cost_per_success_usd " not in rendered


def test_figures_of_training_stay_until_there_are_new_ones(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    metrics.on_training(loss=0.5, replay_size=10)
    metrics.on_training(loss=0.25)
    metrics.on_policy(3)
    metrics.on_policy(None)
    assert registry.get_sample_value("quantum_training_loss") == 0.25
    assert registry.get_sample_value("quantum_replay_size") == 10
    assert registry.get_sample_value("quantum_policy_version") == 0


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


def test_decisions_that_nobody_asks_about_are_not_kept_for_ever(
    registry: CollectorRegistry, metrics: MetricsCollector
) -> None:
    first = event()
    kept = weakref.ref(first.batch.state)
    metrics.on_decided([first])
    del first
    for _ in range(MOST_UNSETTLED):
        metrics.on_decided([event()])
    assert kept() is None
    labels = {"provider": "p", "model": "m", "collapse": "weighted"}
    assert registry.get_sample_value("quantum_decisions_total", labels) == MOST_UNSETTLED + 1


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
