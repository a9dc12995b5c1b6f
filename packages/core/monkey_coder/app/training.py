"""`/v1/quantum/training`, `/v1/quantum/policies`: what the learner is at, which policies there are, a hand on both."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from monkey_coder.bootstrap import Engine
from monkey_coder.errors import PolicyError
from monkey_coder.quantum.learner_status import read_status
from monkey_coder.quantum.model_card import summary
from monkey_coder.quantum.policy_shelf import Said, StoreShelf
from monkey_coder.quantum.training_wishes import read_wishes, write_wishes

TRAINING_PATH: Final = "/v1/quantum/training"
POLICIES_PATH: Final = "/v1/quantum/policies"

router = APIRouter()


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


RunningEngine = Annotated[Engine, Depends(_engine)]


@router.get(TRAINING_PATH, summary="What the learner is at")
async def training(engine: RunningEngine) -> dict[str, Any]:
    """Show the learner's latest word, what is wished of it, its verdicts, and which policy serves since when."""
    return await run_in_threadpool(_training, engine)


@router.post(TRAINING_PATH + "/pause", summary="Hold training, everywhere")
async def pause(engine: RunningEngine) -> dict[str, Any]:
    """Train no more until told to resume; outcomes are taken in all the same. Returns all wishes."""
    return asdict(await run_in_threadpool(write_wishes, engine.store, paused=True))


@router.post(TRAINING_PATH + "/resume", summary="Let training go on")
async def resume(engine: RunningEngine) -> dict[str, Any]:
    """Take `pause` back. Returns all wishes."""
    return asdict(await run_in_threadpool(write_wishes, engine.store, paused=False))


@router.post(TRAINING_PATH + "/rollback", summary="Go back to the policy that served before")
async def rollback(engine: RunningEngine, to: Literal["none"] | None = None) -> dict[str, Any]:
    """Go one policy back, in all processes within two seconds; again: one further. `?to=none`: serve without a policy.

    Returns the number that serves.
    """
    said, shelf = Said("operator", "rolled back over HTTP"), StoreShelf(engine.store, time.time)
    return {"current": await run_in_threadpool(shelf.rollback if to is None else shelf.withdraw, said)}


@router.get(POLICIES_PATH, summary="The policies that are kept")
async def policies(engine: RunningEngine) -> dict[str, Any]:
    """List them, oldest first, with the changes of which one serves."""
    return await run_in_threadpool(_policies, engine)


def _training(engine: Engine) -> dict[str, Any]:
    now, shelf = time.time(), StoreShelf(engine.store, time.time)
    status = read_status(engine.store)
    return {
        "enabled": engine.settings.learn,
        "alive": status is not None and status.alive(now),
        "learner": None if status is None else status.model_dump(mode="json"),
        "wishes": asdict(read_wishes(engine.store)),
        "current": shelf.current(),
        "served": engine.live().policy_version,
        "policies": list(shelf.numbers()),
        "switches": [asdict(switch) for switch in shelf.switches()],
    }


def _policies(engine: Engine) -> dict[str, Any]:
    shelf = StoreShelf(engine.store, time.time)
    current = shelf.current()
    found: list[dict[str, Any]] = []
    for number, card in shelf.cards().items():
        try:
            found.append(summary(card, number, current))
        except PolicyError as error:
            found.append({"policy": number, "current": number == current, "problem": str(error)})
    return {"current": current, "policies": found, "switches": [asdict(switch) for switch in shelf.switches()]}
