"""`monkey-coder keys`: who may call the server, with which role, and what holds where their requests say nothing."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table

from monkey_coder.api_keys import ApiKey, LearnedValue, new_key
from monkey_coder.errors import UnknownKeyError
from monkey_coder.key_ring import add_key, change_key, learn_preferences, stored_keys
from monkey_coder.models import Preferences
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

app = typer.Typer(no_args_is_help=True, help="API keys: who may call the server, and what they prefer.")


class RoleChoice(StrEnum):
    """Each may do what those before it may."""

    client = "client"
    viewer = "viewer"
    operator = "operator"
    admin = "admin"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Which = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, or its name if no other has it.")]
Quality = Annotated[float | None, typer.Option(help="Weight of quality, above 0.")]
Cost = Annotated[float | None, typer.Option(help="Weight of cost.")]
Latency = Annotated[float | None, typer.Option(help="Weight of latency.")]
ValueUsd = Annotated[float | None, typer.Option(help="USD that a solved task is worth, instead of the weights.")]
QualityFloor = Annotated[float | None, typer.Option(help="Lowest acceptable P(success), 0 to 1.")]
MaxCostUsd = Annotated[float | None, typer.Option(help="Budget of an episode in USD.")]


@app.command()
def create(
    role: Annotated[RoleChoice, typer.Option(help="What it may do.")],
    name: Annotated[str, typer.Option(help="Who or what will use it.")],
    quality: Quality = None,
    cost: Cost = None,
    latency: Latency = None,
    value_usd: ValueUsd = None,
    quality_floor: QualityFloor = None,
    max_cost_usd: MaxCostUsd = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and show it: this once, for only its hash is kept."""
    stated = _Stated(quality, cost, latency, value_usd, quality_floor, max_cost_usd).preferences()
    try:
        kept, key = new_key(name, role.value, time.time(), stated)
    except ValidationError as error:
        raise typer.BadParameter(_first(error), param_hint="--name") from error
    with closing(_store()) as store:
        add_key(store, kept)
    if as_json:
        typer.echo(json.dumps(_shown(kept) | {"key": key}, indent=2))
        return
    typer.echo(key)
    typer.echo(f"id {kept.id}, role {kept.role}; servers know it within a second", err=True)
    typer.echo("This is shown only now; keep it where secrets are kept.", err=True)


@app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """Show all keys, revoked ones too; never the keys themselves."""
    with closing(_store()) as store:
        keys = stored_keys(store)
    if as_json:
        typer.echo(json.dumps([_shown(key) for key in keys], indent=2))
        return
    if not keys:
        typer.echo("no keys: make one with `monkey-coder keys create --role client --name NAME`")
        return
    whole = Column("id", no_wrap=True, min_width=max(len(key.id) for key in keys))  # what other commands are given
    table = Table(whole, "name", "role", "created", "revoked", "preferences", "learned value of a task")
    for key in keys:
        preferences = "" if key.preferences is None else _in_words(key.preferences)
        table.add_row(
            key.id, key.name, key.role, _day(key.created_at), _day(key.revoked_at), preferences, _learned(key)
        )
    Console().print(table)


@app.command()
def revoke(which: Which) -> None:
    """Make a key good for nothing, within a second on all servers."""
    with closing(_store()) as store:
        key = _find(store, which)
        change_key(store, key.id, _revoked)
    typer.echo(f"revoked {key.id} ({key.name}); servers refuse it within a second")


@app.command()
def prefer(
    which: Which,
    quality: Quality = None,
    cost: Cost = None,
    latency: Latency = None,
    value_usd: ValueUsd = None,
    quality_floor: QualityFloor = None,
    max_cost_usd: MaxCostUsd = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all that was stored.")] = False,
    use_learned: Annotated[
        bool | None,
        typer.Option("--use-learned/--no-use-learned", help="Whether what was learned fills what is left open."),
    ] = None,
) -> None:
    """Store what holds for a key's requests where they say nothing; replaces all that was stored before."""
    stated = _Stated(quality, cost, latency, value_usd, quality_floor, max_cost_usd).preferences()
    if (stated is not None and clear) or (stated is None and not clear and use_learned is None):
        raise typer.BadParameter("give preferences, --clear or --use-learned")

    def changed(key: ApiKey) -> ApiKey:
        update: dict[str, Any] = {} if stated is None and not clear else {"preferences": stated}
        return key.model_copy(update=update if use_learned is None else update | {"use_learned": use_learned})

    with closing(_store()) as store:
        key = change_key(store, _find(store, which).id, changed)
    said = "the engine's own" if key.defaults is None else _in_words(key.defaults)
    typer.echo(f"{key.id} ({key.name}): {said}")


@app.command()
def learn(as_json: JsonOption = False) -> None:
    """Estimate what a solved task is worth to each key's holder, from the models they used instead of the decided ones.

    The estimates are shown; they change decisions only for keys with --use-learned (`keys prefer`).
    """
    with closing(_store()) as store:
        learned = learn_preferences(store)
        names = {key.id: key.name for key in stored_keys(store)}
    if as_json:
        typer.echo(json.dumps({key_id: value.model_dump() for key_id, value in learned.items()}, indent=2))
        return
    for key_id, value in learned.items():
        typer.echo(f"{key_id} ({names[key_id]}): {_value(value)}")
    if not learned:
        typer.echo("too few reports name another model than the decided one: nothing was learned")


@dataclass(frozen=True, slots=True)
class _Stated:
    """Preferences as options; None was not given."""

    quality: float | None
    cost: float | None
    latency: float | None
    value_usd: float | None
    quality_floor: float | None
    max_cost_usd: float | None

    def preferences(self) -> Preferences | None:
        given = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        try:
            return Preferences(**given) if given else None
        except ValidationError as error:
            raise typer.BadParameter(_first(error)) from error


def _store() -> Store:
    settings = Settings.from_environment(os.environ)
    return open_store(settings.state_dir, settings.redis_url, time.time)


def _find(store: Store, named: str) -> ApiKey:
    keys = stored_keys(store)
    by_id = [key for key in keys if key.id == named]
    found = by_id or [key for key in keys if key.name == named and key.revoked_at is None]
    if len(found) != 1:
        raise UnknownKeyError(named, [key.id for key in found])
    return found[0]


def _revoked(key: ApiKey) -> ApiKey:
    return key if key.revoked_at is not None else key.model_copy(update={"revoked_at": time.time()})


def _shown(key: ApiKey) -> dict[str, Any]:
    stored = key.preferences
    return key.model_dump(exclude={"digest", "preferences"}) | {
        "preferences": None if stored is None else stored.model_dump(exclude_unset=True)
    }


def _in_words(preferences: Preferences) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in preferences.model_dump(exclude_unset=True).items())


def _learned(key: ApiKey) -> str:
    return "" if key.learned is None else _value(key.learned) + (", applied" if key.use_learned else "")


def _value(value: LearnedValue) -> str:
    return f"{value.value_usd:.3g} USD ({value.low:.3g} to {value.high:.3g}, {value.choices} choices)"


def _day(time_s: float | None) -> str:
    return "" if time_s is None else datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
