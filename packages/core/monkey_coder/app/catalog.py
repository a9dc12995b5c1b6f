"""`/v1/quantum/models`: the catalog as it is served, and its change while the engine runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from monkey_coder.bootstrap import Engine
from monkey_coder.catalog.schema import ModelSpec
from monkey_coder.live_catalog import put_model, remove_model

MODELS_PATH: Final = "/v1/quantum/models"
_ONE: Final = "/{ref:path}"

SERVED_WITHIN_S: Final = 5.0
"""The longest that a change waits until this process serves it; usually it takes a fraction of a second."""
_LOOK_EVERY_S: Final = 0.01

router = APIRouter(prefix=MODELS_PATH)


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


RunningEngine = Annotated[Engine, Depends(_engine)]
Ref = Annotated[str, Path(description="provider/model; the model may hold further slashes.", max_length=200)]
Fields = Annotated[
    dict[str, Any],
    Body(
        description="All fields of the model, as in a catalog file.",
        json_schema_extra={"properties": ModelSpec.model_json_schema(mode="serialization")["properties"]},
    ),
]


@router.get("", summary="The catalog")
async def models(engine: RunningEngine) -> dict[str, Any]:
    """List the models with prices, limits and capabilities, and whether each can be had now."""
    catalog, snapshot = engine.following.catalog.now, engine.manager.snapshot()
    table = snapshot.table
    return {
        "version": catalog.version,
        "catalog_version": snapshot.catalog_version,
        "models": [
            model.as_json() | {"available": bool(table.available[table.index[model.ref]])}
            for model in catalog.models
            if model.ref in table.index  # one that was added this moment is listed once it is served
        ],
    }


@router.put(_ONE, summary="Add a model, or replace it, in all processes")
async def put(ref: Ref, fields: Fields, engine: RunningEngine, response: Response) -> dict[str, Any]:
    """Describe a model as a catalog file would; it is served by every process within two seconds.

    201 when it is new, 200 when it was in the catalog before.
    """
    known = ref in engine.following.catalog.now.refs
    told = await _changed(engine, lambda: put_model(engine.store, ref, fields))
    response.status_code = 200 if known else 201
    return {"ref": ref, **told}


@router.delete(_ONE, summary="Take a model out of the catalog, in all processes")
async def remove(ref: Ref, engine: RunningEngine) -> dict[str, Any]:
    """Remove a model; decisions that were made for it stay, and outcomes of those are still taken."""
    return {"ref": ref, **await _changed(engine, lambda: remove_model(engine.store, engine.catalog, ref))}


async def _changed(engine: Engine, change: Callable[[], int]) -> dict[str, Any]:
    """Make a change, and wait until this process serves it, though not for long."""
    version = await run_in_threadpool(change)
    engine.following.follower.wake(settings=True)
    give_up_at = time.monotonic() + SERVED_WITHIN_S
    while engine.manager.snapshot().catalog_version < version and time.monotonic() < give_up_at:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)  # a snapshot tells nobody that it was swapped
    return {"catalog_version": version, "served": engine.manager.snapshot().catalog_version >= version}
