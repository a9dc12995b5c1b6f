"""OpenTelemetry traces of decisions: off unless asked for, and never with a prompt in them.

Each decision is one span, made when it is told about, with the time that it took and what its strategies did as
attributes. Needs the extra `[otel]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from monkey_coder.errors import SettingsError
from monkey_coder.ports import DecisionEvent, DecisionListener

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

EXPORTER_VARIABLE: Final = "OTEL_TRACES_EXPORTER"
"""OpenTelemetry's own variable: `otlp` or `console`; traces are off while it is not set, or `none`."""

SPAN: Final = "quantum.route"
_OTLP: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class DecisionTraces:
    """Makes a span of every decision.

    Args:
        tracer: Of OpenTelemetry.
        wall_clock_ns: Nanoseconds since 1970.
    """

    def __init__(self, tracer: Tracer, wall_clock_ns: Callable[[], int]) -> None:
        self._tracer = tracer
        self._now_ns = wall_clock_ns

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Trace the decisions of one batch."""
        end = self._now_ns()
        for event in events:
            started = end - round(event.duration_s * 1e9)
            self._tracer.start_span(SPAN, start_time=started, attributes=attributes(event, len(events))).end(end)


def attributes(event: DecisionEvent, batch_size: int) -> dict[str, Any]:
    """What a span says about a decision: the choice, how it was made, and each strategy's part in it.

    Args:
        event: The decision.
        batch_size: Decisions that were made together.
    """
    answer = event.answer
    told: dict[str, Any] = {
        "quantum.decision_id": answer["decision_id"],
        "quantum.provider": answer["provider"],
        "quantum.model": answer["model"],
        "quantum.context_type": answer["context_type"],
        "quantum.collapse": answer["collapse_strategy"],
        "quantum.strategy_used": answer["strategy_used"],
        "quantum.cache": answer["cache"],
        "quantum.explored": answer["explored"],
        "quantum.degraded": tuple(answer["degraded"]),
        "quantum.batch_size": batch_size,
    }
    for thread in answer["thread_results"]:
        told[f"quantum.strategy.{thread['strategy']}.status"] = thread["status"]
        if thread["execution_time_ms"] is not None:
            told[f"quantum.strategy.{thread['strategy']}.ms"] = thread["execution_time_ms"]
    return told


@contextmanager
def tracing(environment: Mapping[str, str]) -> Iterator[tuple[DecisionListener, ...]]:
    """Trace as the environment says, until the block ends; then what waits is exported.

    Args:
        environment: Of the process. OpenTelemetry reads where to send traces from `OTEL_EXPORTER_OTLP_*` itself.

    Yields:
        The listeners to add: one, or none while traces are off.

    Raises:
        SettingsError: Traces are asked for, and what makes them is not installed, or the exporter is unknown.
    """
    wanted = environment.get(EXPORTER_VARIABLE, "none").strip().lower()
    if wanted in ("", "none"):
        yield ()
        return
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter(wanted)
    except ImportError as error:
        raise SettingsError(
            f"{EXPORTER_VARIABLE}={wanted}, but {error.name} is not installed; install monkey-coder[otel], or unset it"
        ) from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield (DecisionTraces(provider.get_tracer("monkey_coder"), time.time_ns),)
    finally:
        provider.shutdown()


def _exporter(wanted: str) -> SpanExporter:
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if wanted == "otlp":
        made: SpanExporter = import_module(_OTLP).OTLPSpanExporter()
        return made
    raise SettingsError(f"{EXPORTER_VARIABLE}={wanted} is no exporter; it is otlp, console or none")
