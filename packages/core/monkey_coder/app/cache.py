"""`/v1/quantum/cache`: what the decision cache holds and does, and a way to clear it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from monkey_coder.caching import Caching
from monkey_coder.quantum.cache_manager import Tier

CACHE_PATH: Final = "/v1/quantum/cache"

router = APIRouter()


async def _caching(request: Request) -> Caching:
    caching: Caching = request.app.state.engine.caching
    return caching


RunningCache = Annotated[Caching, Depends(_caching)]


@router.get(CACHE_PATH, summary="What the decision cache holds and does, by tier")
async def inspect(caching: RunningCache) -> dict[str, Any]:
    """Show size, hits and misses of each tier, as the process that answers sees them, and advice about Redis."""
    return await run_in_threadpool(caching.manager.report)


@router.delete(CACHE_PATH, summary="Clear the decision cache")
async def clear(
    caching: RunningCache,
    tier: Annotated[Tier, Query(description="local: of all processes; redis: what they share; all: both.")] = "all",
) -> dict[str, Any]:
    """Clear this process and Redis now, and the other processes within two seconds. Says how many entries went."""
    return {"cleared": await run_in_threadpool(caching.manager.clear, tier)}
