"""``monkey-coder catalog``: look at the models that may be chosen, and check a catalog file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from monkey_coder.catalog.catalog import Catalog, CatalogModel, load_catalog
from monkey_coder.errors import CatalogError, UnknownModelError
from monkey_coder.following import past_profiles
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.capability_profiler import TaskProfile
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import FILE_NAME, open_store

app = typer.Typer(no_args_is_help=True, help="The models that may be chosen: their prices, limits and priors.")

_WIDE: Final = 150
"""Columns that the table needs; a pipe or a file gets that many, a terminal what it has."""

CatalogOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog", metavar="FILE", exists=True, dir_okay=False, help="An own catalog file instead of the default."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("list")
def list_models(catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """List all models, dearest tier first."""
    loaded = _load(catalog)
    if as_json:
        _print_json({**_summary(loaded), "models": [model.as_json() for model in loaded.models]})
        return
    _console().print(_table(loaded))


@app.command()
def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="The model, such as anthropic/claude-haiku-4-5.")],
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything known about one model, with the sources of its numbers, and what outcomes have taught."""
    loaded = _load(catalog)
    try:
        model = loaded.get(ref, "REF")
    except UnknownModelError as error:
        raise typer.BadParameter(str(error)) from error
    profile = _learned(loaded, ref)
    if as_json:
        _print_json(model.as_json() | ({"profile": [asdict(told) for told in profile]} if profile else {}))
        return
    console = _console()
    console.print(_details(model))
    if profile:
        console.print(_profile(profile))


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The file; without it, the default catalog."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a catalog file: exit code 0 when it can be used, 1 when not."""
    loaded = _load(file)
    summary = _summary(loaded)
    if as_json:
        _print_json(summary)
        return
    tiers = ", ".join(f"{count} {tier}" for tier, count in summary["tiers"].items() if count)
    typer.echo(f"{loaded.origin}: good. {len(loaded)} models ({tiers}) of {len(summary['providers'])} providers:")
    typer.echo(f"  {', '.join(summary['providers'])}")
    typer.echo(f"  version {loaded.version}")


def _load(path: Path | None) -> Catalog:
    try:
        return load_catalog(path)
    except CatalogError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _summary(catalog: Catalog) -> dict[str, Any]:
    tiers = [model.price_tier for model in catalog.models]
    return {
        "origin": catalog.origin,
        "version": catalog.version,
        "count": len(catalog),
        "providers": sorted({model.provider for model in catalog.models}),
        "tiers": {tier: tiers.count(tier) for tier in ("dear", "middle", "cheap")},
    }


def _table(catalog: Catalog) -> Table:
    order = {"dear": 0, "middle": 1, "cheap": 2}
    table = Table(
        title=f"{len(catalog)} models, {catalog.origin}, version {catalog.version}",
        caption="USD per million tokens; quality is the prior P(success) of a task of no particular type",
    )
    for name in ("model", "tier", "input", "output", "context", "quality", "capabilities", "tags"):
        right = name in ("input", "output", "context", "quality")
        table.add_column(name, justify="right" if right else "left", no_wrap=name in ("model", "input", "output"))
    for model in sorted(catalog.models, key=lambda model: (order[model.price_tier], model.ref)):
        table.add_row(
            model.ref,
            model.price_tier,
            _money(model.prices.input_usd),
            _money(model.prices.output_usd),
            f"{model.spec.context_window:,}",
            f"{model.spec.quality.default:.2f}",
            ", ".join(model.spec.capabilities),
            ", ".join(model.spec.regions),
        )
    return table


def _details(model: CatalogModel) -> Table:
    spec, prices = model.spec, model.prices
    quality = spec.quality.by_task()
    table = Table(title=model.ref, show_header=False, box=None, title_justify="left")
    rows = {
        "tier": model.price_tier,
        "input": f"{_money(prices.input_usd)} USD per million tokens, cached {_money(prices.cached_input_usd)}",
        "output": f"{_money(prices.output_usd)} USD per million tokens",
        "request": f"{prices.request_usd:g} USD per call" if prices.request_usd else "",
        "prices from": prices.source,
        "context window": f"{spec.context_window:,} tokens, of which {spec.max_output:,} answer",
        "limits from": spec.sources.limits or "",
        "capabilities": ", ".join(spec.capabilities) or "none",
        "tags": ", ".join(spec.regions) or "none",
        "quality": ", ".join(f"{task} {quality[task]:.2f}" for task in TASK_TYPES),
        "quality from": f"{spec.sources.quality}; worth {spec.evidence:g} outcomes",
        "latency": f"{spec.latency_s:g} s",
        "latency from": spec.sources.latency or "",
        "note": spec.note or "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def _learned(catalog: Catalog, ref: str) -> Sequence[TaskProfile]:
    """What outcomes say of a model, in the task types in which it has any; empty where there is no store."""
    state_dir = Settings.from_environment(os.environ).state_dir
    if not (state_dir / FILE_NAME).exists():
        return ()
    store = open_store(state_dir, None, time.time)
    try:
        table = catalog.table()
        return [told for told in past_profiles(store, table).profile(table, ref) if told.seen > 0.0]
    finally:
        store.close()


def _profile(profile: Sequence[TaskProfile]) -> Table:
    table = Table(title="learned from outcomes of the last seven days", title_justify="left")
    for name in ("task type", "prior", "P(success)", "90% interval", "outcomes", "output tokens"):
        table.add_column(name, justify="left" if name == "task type" else "right")
    for told in profile:
        table.add_row(
            told.task,
            f"{told.prior:.2f}",
            f"{told.success:.2f}",
            f"{told.low:.2f} to {told.high:.2f}",
            f"{told.seen:.1f}",
            "" if told.output_tokens is None else f"{told.output_tokens:.0f}",
        )
    return table


def _money(usd_per_token: float) -> str:
    return f"{usd_per_token * 1e6:.3f}".rstrip("0").rstrip(".")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)
