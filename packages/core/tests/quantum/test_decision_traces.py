"""Traces of decisions, read back from OpenTelemetry's in-memory exporter and from a server's console."""

from __future__ import annotations

import sys
from pathlib import Path

import patient
import pytest
from builders import ask, engine
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from servers import serving

from monkey_coder.errors import SettingsError
from monkey_coder.quantum.decision_traces import EXPORTER_VARIABLE, DecisionTraces, tracing

NOW_NS = 1_800_000_000_000_000_000
SECRET = "Fix the race in the vault of ACME"
TOLD = "vault of"
"""With a space, which no random id has."""


def test_every_decision_is_a_span_with_its_stages_and_without_its_prompt() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces = DecisionTraces(provider.get_tracer("test"), lambda: NOW_NS)
    with engine(listeners=[traces]) as manager:
        answers = manager.decide([ask(SECRET), ask(SECRET + " again")])
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["quantum.route"] * 2
    for span, answer in zip(spans, answers, strict=True):
        told = dict(span.attributes or {})
        assert told["quantum.decision_id"] == answer["decision_id"]
        assert (told["quantum.provider"], told["quantum.model"]) == (answer["provider"], answer["model"])
        assert told["quantum.batch_size"] == 2
        for thread in answer["thread_results"]:
            assert told[f"quantum.strategy.{thread['strategy']}.status"] == thread["status"]
            assert told[f"quantum.strategy.{thread['strategy']}.ms"] == thread["execution_time_ms"]
        assert span.end_time == NOW_NS
        assert span.start_time is not None
        assert NOW_NS - span.start_time == pytest.approx(answer["execution_time_ms"] * 1e6, abs=1_000)
        assert TOLD not in span.to_json()


@pytest.mark.parametrize("environment", [{}, {EXPORTER_VARIABLE: "none"}, {EXPORTER_VARIABLE: ""}])
def test_nothing_is_traced_unless_asked_for(environment: dict[str, str]) -> None:
    with tracing(environment) as listeners:
        assert listeners == ()


def test_a_server_says_its_spans_where_it_is_told_to(tmp_path: Path) -> None:
    with serving(tmp_path, settings={EXPORTER_VARIABLE: "console"}) as server:
        answer = patient.post(server.url + "/v1/quantum/route", json={"request": {"prompt": SECRET}}).json()
        server.end()
        assert answer["decision_id"] in server.said()
        assert TOLD not in server.said()


def test_what_is_missing_or_misspelt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="consul is no exporter; it is otlp, console or none"):
        tracing({EXPORTER_VARIABLE: "consul"}).__enter__()
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"trace_exporter is not installed; install monkey-coder\[otel\]"):
        tracing({EXPORTER_VARIABLE: "otlp"}).__enter__()
