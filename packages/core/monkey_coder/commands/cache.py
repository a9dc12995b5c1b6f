"""`monkey-coder cache`: what the decision cache of a running server holds and does, and a way to clear it."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from monkey_coder.errors import RouterError, SettingsError, StoreUnavailableError
from monkey_coder.quantum.cache_manager import clear_shared, order_clear
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store

TIMEOUT_S: Final = 10.0

app = typer.Typer(no_args_is_help=True, help="The decision cache: look at it, clear it.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Which(StrEnum):
    """What to clear."""

    local = "local"
    redis = "redis"
    all = "all"


@app.command()
def stats(
    url: Annotated[str, typer.Option(help="Address of a running server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(envvar="MONKEY_CODER_API_KEY", help="Key of an administrator, where keys are asked for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the cache holds and does, tier by tier, as one process of the server sees it."""
    told = _get(url, key)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console()
    for name, value in (("hit rate", told["hit_rate"]), ("hits that would be decided otherwise", told["disagreement"])):
        console.print(f"{name}: {'not known yet' if value is None else f'{value:.1%}'}", highlight=False)
    table = Table("tier", "entries", "bytes", "hits", "misses", "stored", "dropped")
    for tier in ("local", "redis", "similar"):
        row = told[tier]
        if row is not None:
            dropped = sum(row.get(name, 0) for name in ("evicted", "expired", "rejected", "invalidated", "corrupt"))
            counts = [row.get(name, 0) for name in ("hit", "miss", "stored")]
            table.add_row(tier, *(_shown(value) for value in (row["entries"], row.get("bytes"), *counts, dropped)))
    console.print(table)
    for advice in (told["redis"] or {}).get("advice", ()):
        console.print(f"advice: {advice}", highlight=False, markup=False)


@app.command()
def clear(
    tier: Annotated[
        Which, typer.Option(help="local: of all processes; redis: what they share; all: both.")
    ] = Which.all,
    as_json: AsJson = False,
) -> None:
    """Clear the cache of this deployment: Redis now, and all processes within two seconds."""
    settings = Settings.from_environment(os.environ)
    done: dict[str, Any] = {}
    if tier is not Which.local and settings.redis_url is not None:
        from monkey_coder.quantum.redis_tier import RedisTier

        with closing(RedisTier.open(settings.redis_url, time.monotonic)) as shared:
            done["redis"] = clear_shared(shared.clear)
    elif tier is Which.redis:
        raise SettingsError("there is no cache in Redis: MONKEY_CODER_REDIS_URL is not set")
    if tier is not Which.redis:
        with closing(open_store(settings.state_dir, settings.redis_url, time.time)) as store:
            done["order"] = order_clear(store)
    if as_json:
        typer.echo(json.dumps(done))
        return
    if "redis" in done:
        typer.echo(f"{done['redis']} keys of the cache in Redis are gone")
    if "order" in done:
        typer.echo("every running process clears its own cache within two seconds")


def _shown(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _get(url: str, key: str | None) -> dict[str, Any]:
    """Ask a server about its cache.

    Raises:
        SettingsError: The address is malformed.
        StoreUnavailableError: Nobody answers there, or what answers refuses; the message says what.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise SettingsError(f"--url must be an address such as http://127.0.0.1:8000, not {url!r}")
    secure = parts.scheme == "https"
    connection = (HTTPSConnection if secure else HTTPConnection)(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(
            "GET",
            f"{parts.path.rstrip('/')}/v1/quantum/cache",
            headers={"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {}),
        )
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        raise StoreUnavailableError(
            f"no server answers at {url}: {error}; `monkey-coder serve` starts one, --url names another"
        ) from error
    finally:
        connection.close()
    try:
        told: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise StoreUnavailableError(
            f"{url} answered {answer.status}, and no JSON: is it this program's server?"
        ) from error
    if answer.status in (401, 403):
        raise RouterError(
            f"{url} answered {answer.status}: {told.get('detail', told)}; "
            "give an administrator's key with --key, or in MONKEY_CODER_API_KEY"
        )
    if answer.status != 200:
        raise RouterError(f"{url} answered {answer.status}: {told.get('detail', told)}")
    return told
