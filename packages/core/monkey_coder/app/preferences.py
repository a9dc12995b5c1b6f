"""`/v1/quantum/preferences`: what holds for the caller's own requests where they say nothing of preferences."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from monkey_coder.api_keys import ApiKey, LearnedValue
from monkey_coder.app.access import OPEN, caller_of
from monkey_coder.bootstrap import Engine
from monkey_coder.errors import NoApiKeyError, UnknownKeyError
from monkey_coder.key_ring import change_key, stored_keys
from monkey_coder.models import Preferences, Value

router = APIRouter(prefix="/v1/quantum/preferences")

# Both wait for the store: as plain functions they run in the thread pool.


class PreferencesRequest(Value):
    """Body of ``PUT /v1/quantum/preferences``."""

    preferences: Annotated[Preferences | None, Field(description="null: the engine's own again.")]


class StoredPreferences(BaseModel):
    """What holds for the requests of one API key."""

    key: Annotated[str, Field(description="Id of the API key.")]
    name: Annotated[str, Field(description="Of the API key.")]
    preferences: Annotated[
        dict[str, float | None] | None, Field(description="As stored: what is absent was left open.")
    ]
    learned: Annotated[LearnedValue | None, Field(description="What the key's own choices say, if enough.")]
    use_learned: Annotated[bool, Field(description="Whether an operator lets `learned` fill what is left open.")]
    applied: Annotated[
        dict[str, float | None],
        Field(description="What holds for a request that says nothing; the weights or value_usd."),
    ]


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _key_id(request: Request) -> str:
    caller = caller_of(request)
    if caller is OPEN:
        raise NoApiKeyError
    return caller.id


RunningEngine = Annotated[Engine, Depends(_engine)]
KeyId = Annotated[str, Depends(_key_id)]


@router.get("", summary="What holds for the caller's requests that say nothing of preferences")
def own_preferences(key_id: KeyId, engine: RunningEngine) -> StoredPreferences:
    """Show what is stored and what was learned for the caller's API key. 409 where the server has no keys."""
    for key in stored_keys(engine.store):
        if key.id == key_id:
            return _shown(key)
    raise UnknownKeyError(key_id)


@router.put("", summary="Store what shall hold for them")
def store_preferences(wanted: PreferencesRequest, key_id: KeyId, engine: RunningEngine) -> StoredPreferences:
    """Store preferences for the caller's API key; every process obeys them within a second."""
    return _shown(
        change_key(engine.store, key_id, lambda key: key.model_copy(update={"preferences": wanted.preferences}))
    )


def _shown(key: ApiKey) -> StoredPreferences:
    stored, applied = key.preferences, key.defaults or Preferences()
    unused = set() if applied.value_usd is None else {"quality", "cost", "latency"}
    return StoredPreferences(
        key=key.id,
        name=key.name,
        preferences=None if stored is None else stored.model_dump(exclude_unset=True),
        learned=key.learned,
        use_learned=key.use_learned,
        applied=applied.model_dump(exclude=unused),
    )
