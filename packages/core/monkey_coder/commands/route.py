"""`monkey-coder route`: decide one prompt here and now, without a server."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from monkey_coder.bootstrap import open_core
from monkey_coder.commands.explanation import print_explanation
from monkey_coder.errors import UnknownModelError
from monkey_coder.models import Expected, RouteRequest, RoutingDecision
from monkey_coder.ports import DecisionEvent
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.explanation import Explanation
from monkey_coder.quantum.replay import Replay
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.settings import Settings
from monkey_coder.validation import from_validation


def route(
    prompt: Annotated[str, typer.Argument(help="The task, in words.")],
    task_type: Annotated[
        str | None, typer.Option(help="code_generation, debugging, ...; inferred when left out.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Weight of quality; default 0.6.")] = None,
    cost: Annotated[float | None, typer.Option(help="Weight of cost; default 0.3.")] = None,
    latency: Annotated[float | None, typer.Option(help="Weight of latency; default 0.1.")] = None,
    value_usd: Annotated[
        float | None, typer.Option(help="What a solved task is worth, instead of the weights.")
    ] = None,
    quality_floor: Annotated[float | None, typer.Option(help="Lowest acceptable P(success), 0 to 1.")] = None,
    max_cost_usd: Annotated[float | None, typer.Option(help="Budget in USD.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not this model; may be repeated.")] = None,
    failed: Annotated[list[str] | None, typer.Option(help="A model that failed already; may be repeated.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Ask only this strategy; may be repeated.")] = None,
    collapse: Annotated[
        str | None, typer.Option(help="best_score, weighted, consensus, first_success, combined.")
    ] = None,
    explore: Annotated[bool, typer.Option(help="Allow trying another model to learn.")] = False,
    catalog: Annotated[Path | None, typer.Option(help="A catalog file of your own.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Explain the choice, and say where it would flip.")] = False,
    instead: Annotated[str | None, typer.Option(help="Say why not this model; implies --why.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as the HTTP API would.")] = False,
) -> None:
    """Say which model should take a task, why, who came next, and who was excluded."""
    body = {
        "request": _given(
            prompt=prompt, task_type=task_type, allowed_models=allow or None, excluded_models=exclude or None
        ),
        "preferences": _given(
            quality=quality,
            cost=cost,
            latency=latency,
            value_usd=value_usd,
            quality_floor=quality_floor,
            max_cost_usd=max_cost_usd,
        ),
        "episode": {"attempts": [{"model": ref, "success": False} for ref in failed or ()]},
        # One prompt at leisure: no deadline that a cold start could miss.
        "quantum_config": _given(
            strategies=strategy or None, collapse_strategy=collapse, explore=explore, timeout_ms=1000
        ),
    }
    try:
        request = RouteRequest.model_validate(body, strict=False)
    except ValidationError as error:
        raise from_validation(error) from error
    settings = Settings.from_environment(os.environ)
    if catalog is not None:
        settings = settings.model_copy(update={"catalog": catalog})
    witness = _Witness()
    with open_core(settings, [witness]) as core:
        snapshot = core.manager.snapshot()
        if instead is not None and instead not in snapshot.table.index:
            near = get_close_matches(instead, snapshot.table.refs, n=3, cutoff=0.6)
            raise UnknownModelError("--instead", instead, near)
        decision = core.manager.route(request)
        explanation = witness.explain(snapshot, instead) if why or instead else None
    if as_json:
        extra = {} if explanation is None else {"explanation": explanation.model_dump(mode="json")}
        typer.echo(orjson.dumps(decision.model_dump(mode="json") | extra, option=orjson.OPT_INDENT_2))
    else:
        console = Console()
        _print(decision, console)
        if explanation is not None:
            print_explanation(explanation, console)


@dataclass
class _Witness:
    """Sees the decision being made, so that it can be explained without a store."""

    events: list[DecisionEvent] = field(default_factory=list)

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        self.events.extend(events)

    def explain(self, snapshot: EngineSnapshot, instead: str | None) -> Explanation:
        (record,) = records_of(self.events, time.time())
        return explain(record, Replay(record, snapshot), instead)


def _given(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - option values of any type pass through to validation
    return {name: value for name, value in options.items() if value is not None}


def _print(decision: RoutingDecision, console: Console) -> None:
    console.print(f"[bold green]{decision.ref}[/]  as {decision.persona}", highlight=False)
    console.print(decision.collapse_reasoning, highlight=False, soft_wrap=True)
    console.print(
        f"{decision.context_type}, {decision.complexity.level} ({decision.complexity.score:.2f}); "
        f"confidence {decision.confidence:.2f}; {decision.execution_time_ms:.1f} ms",
        style="dim",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "P(success)", "90% interval", "cost USD", "latency s", "utility"):
        if heading == "model":  # long refs go on in the next line rather than push numbers out of sight
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    rows: list[tuple[str, Expected, float | None]] = [(decision.ref, decision.expected, None)]
    rows += [(f"{a.provider}/{a.model}", a.expected, a.score) for a in decision.alternatives]
    for number, (ref, expected, score) in enumerate(rows):
        table.add_row(
            ref,
            f"{expected.success:.2f}",
            f"{expected.success_low:.2f} .. {expected.success_high:.2f}",
            f"{expected.cost_usd:.5f}",
            f"{expected.latency_ms / 1e3:.1f}",
            "chosen" if score is None else f"{score:.3f}",
            style="bold" if number == 0 else None,
        )
    console.print(table)
    for exclusion in decision.excluded:
        console.print(
            f"excluded {exclusion.model}: {exclusion.reason}, {exclusion.detail}", style="dim", highlight=False
        )
    if decision.degraded:
        console.print(f"degraded: {', '.join(decision.degraded)}", style="yellow")
