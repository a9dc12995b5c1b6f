"""``monkey-coder catalog``: look at the models that may be chosen, check a catalog file, and change what is served."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from monkey_coder.catalog.catalog import Catalog, CatalogModel, build_catalog, load_catalog, text_of
from monkey_coder.catalog.reading import parse_yaml
from monkey_coder.commands.complaining import complaining
from monkey_coder.errors import CatalogError
from monkey_coder.following import past_profiles
from monkey_coder.live_catalog import put_model, remove_model, restore_model, stored_catalog, today
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.capability_profiler import TaskProfile
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import FILE_NAME, open_store
from monkey_coder.storage.port import Store

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
    with complaining():
        model = loaded.get(ref, "REF")
    learned = _learned(loaded, ref)
    if as_json:
        _print_json(model.as_json() | learned.as_json())
        return
    console = _console()
    console.print(_details(model))
    if learned.profile:
        console.print(_profile(learned.profile))
    if learned.latency_s is not None:
        console.print(f"latency learned from those outcomes: {learned.latency_s:.2g} s")


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The file; without it, the default catalog."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a catalog file: exit code 0 when it can be used, 1 when not."""
    with complaining(CatalogError):
        loaded = load_catalog(file)
    summary = _summary(loaded)
    if as_json:
        _print_json(summary)
        return
    tiers = ", ".join(f"{count} {tier}" for tier, count in summary["tiers"].items() if count)
    typer.echo(f"{loaded.origin}: good. {len(loaded)} models ({tiers}) of {len(summary['providers'])} providers:")
    typer.echo(f"  {', '.join(summary['providers'])}")
    typer.echo(f"  version {loaded.version}")


@app.command()
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="YAML with `models`, as a catalog has.")
    ],
) -> None:
    """Add the models of a file to a running deployment, or replace them there; all or none if one is wrong."""
    with complaining(CatalogError):
        models = model_fields(text_of(file), str(file))
        build_catalog(models, str(file), today())
        with closing(_open_store()) as store:
            for ref, fields in models.items():
                typer.echo(f"{ref}: in catalog version {put_model(store, ref, fields)}")


@app.command()
def remove(ref: Annotated[str, typer.Argument(metavar="REF", help="The model.")]) -> None:
    """Take a model out of a running deployment."""
    with complaining(CatalogError), closing(_open_store()) as store:
        base = load_catalog(Settings.from_environment(os.environ).catalog)
        typer.echo(f"{ref}: gone from catalog version {remove_model(store, base, ref)} on")


@app.command()
def restore(ref: Annotated[str, typer.Argument(metavar="REF", help="The model.")]) -> None:
    """Undo what was changed about a model: it is as the catalog file has it, or gone if that has none."""
    with complaining(), closing(_open_store()) as store:
        typer.echo(f"{ref}: as in the catalog file from version {restore_model(store, ref)} on")


def model_fields(text: str, origin: str) -> Mapping[str, Any]:
    """The models of a file for `catalog add`, not yet checked.

    Args:
        text: The file.
        origin: What to call it in errors.

    Raises:
        CatalogError: It is no YAML, or holds something besides models.
    """
    raw = parse_yaml(text, origin)
    if raw.get("extends", "none") == "none":
        raw.pop("extends", None)
    if others := sorted(map(str, set(raw) - {"models"})):
        raise CatalogError(f"{origin}: holds {', '.join(others)}; to add models, leave out all but `models`")
    if not isinstance(raw.get("models"), dict):
        raise CatalogError(f"{origin}: must hold `models`, each with all its fields")
    models: Mapping[str, Any] = raw["models"]
    return models


def _load(path: Path | None) -> Catalog:
    """An own file as it is; without one, what the deployment serves: its file, and what was changed since."""
    with complaining():
        if path is not None:
            return load_catalog(path)
        base = load_catalog(Settings.from_environment(os.environ).catalog)
    if not _has_store():
        return base
    with closing(_open_store()) as store:
        return stored_catalog(store, base)[0].catalog


def _has_store() -> bool:
    settings = Settings.from_environment(os.environ)
    return settings.redis_url is not None or (settings.state_dir / FILE_NAME).exists()


def _open_store() -> Store:
    settings = Settings.from_environment(os.environ)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return open_store(settings.state_dir, settings.redis_url, time.time)


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
        "deployment of": f"{spec.deployment_of}, weight {spec.weight:g}" if spec.deployment_of else "",
        "latency from": spec.sources.latency or "",
        "note": spec.note or "",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


@dataclass(frozen=True)
class Learned:
    """What outcomes say of a model.

    Attributes:
        profile: In the task types in which there are any.
        latency_s: Seconds of a call; None where nothing was said of it.
    """

    profile: Sequence[TaskProfile] = ()
    latency_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values; empty where nothing was learned."""
        profile = {"profile": [asdict(told) for told in self.profile]} if self.profile else {}
        return profile | ({} if self.latency_s is None else {"learned_latency_s": self.latency_s})


def _learned(catalog: Catalog, ref: str) -> Learned:
    if not _has_store():
        return Learned()
    with closing(_open_store()) as store:
        table = catalog.table()
        profiles = past_profiles(store, table)
    prior, latency = (float(each.latency_s[table.index[ref]]) for each in (table, profiles.table(table)))
    profile = [told for told in profiles.profile(table, ref) if told.seen > 0.0]
    return Learned(profile, None if latency == prior else latency)


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
