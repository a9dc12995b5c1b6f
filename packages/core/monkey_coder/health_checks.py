"""Active checks of providers, for those who want them: one process asks, by a lease, and the store tells all others.

A provider is taken to be unreachable after `FAILURES` checks in a row that got no answer, or a 429 or 5xx one; a single
good one takes that back. What the store says counts for `STALE_CHECKS` rounds, so that a checker that died keeps
nobody away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pydantic import ValidationError

from monkey_coder.models import Value
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.storage.port import Document, Store

HEALTH: Final = "provider_health"
"""Kind of the documents that hold the latest check, by provider."""
FAILURES: Final = 2
STALE_CHECKS: Final = 3.0
LEASE: Final = "health checks"

_log = logging.getLogger(__name__)

Check = Callable[[str], Awaitable[int]]
"""Asks an address and returns the HTTP status; an `OSError` says that there was no answer in time."""


class Checked(Value):
    """The latest check of a provider.

    Attributes:
        at: Seconds since 1970.
        failures: Checks in a row that failed, this one included; 0 when it was good.
        said: The status, or why there was none.
    """

    at: float
    failures: int
    said: str


@dataclass(frozen=True)
class HealthView:
    """Tells the breakers of a process what the store says; for the thread that follows outcomes.

    Attributes:
        store: Where checks are.
        providers: Whom to tell.
        every_s: Pause between checks.
        wall_clock: Seconds since 1970.
    """

    store: Store
    providers: ProviderManager
    every_s: float
    wall_clock: Callable[[], float]

    def look(self) -> None:
        """Read all checks.

        Raises:
            StoreUnavailableError: The store does not answer; what was known stays.
        """
        oldest = self.wall_clock() - STALE_CHECKS * self.every_s
        known = stored_checks(self.store)
        self.providers.unhealthy([n for n, told in known.items() if told.failures >= FAILURES and told.at >= oldest])


def stored_checks(store: Store) -> dict[str, Checked]:
    """The latest check of every provider that was ever checked.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    read = {name: _read(name, document) for name, document in store.documents(HEALTH).items()}
    return {name: checked for name, checked in read.items() if checked is not None}


def _read(name: str, document: Document) -> Checked | None:
    try:
        return Checked.model_validate_json(document.value)
    except ValidationError as error:  # of another release: as if there were none
        _log.warning("the health check of %s cannot be read: %s", name, error)
        return None


@dataclass(frozen=True)
class HealthChecks:
    """Asks all providers that have an address, while it holds the lease.

    Attributes:
        store: Where checks go.
        urls: Address of each provider.
        check: Asks one.
        every_s: Pause between rounds.
        owner: Unique name of this process.
        wall_clock: Seconds since 1970.
    """

    store: Store
    urls: Mapping[str, str]
    check: Check
    every_s: float
    owner: str
    wall_clock: Callable[[], float]

    async def run(self, executor: Executor) -> None:
        """Check in rounds until cancelled.

        Args:
            executor: Where the store is waited for.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                if await loop.run_in_executor(executor, self._mine):
                    said = await asyncio.gather(*(self._ask(url) for url in self.urls.values()))
                    await loop.run_in_executor(executor, self._write, dict(zip(self.urls, said, strict=True)))
            except Exception as error:  # noqa: BLE001 - checks that fail must not take the server with them
                _log.warning("health checks are put off: %r", error)
            await asyncio.sleep(self.every_s)

    def _mine(self) -> bool:
        return self.store.acquire_lease(LEASE, self.owner, STALE_CHECKS * self.every_s)

    async def _ask(self, url: str) -> tuple[bool, str]:
        try:
            status = await self.check(url)
        except OSError as error:
            return False, f"{type(error).__name__}: {error}"
        good = status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
        return good, str(status)

    def _write(self, said: Mapping[str, tuple[bool, str]]) -> None:
        for name, (good, why) in said.items():
            stands = self.store.document(HEALTH, name)
            last = None if stands is None else _read(name, stands)
            before = 0 if last is None else last.failures
            told = Checked(at=self.wall_clock(), failures=0 if good else before + 1, said=why[:500])
            self.store.put_document(HEALTH, name, told.model_dump_json().encode(), stands.version if stands else 0)
            if (told.failures >= FAILURES) != (before >= FAILURES):
                _log.warning("provider %s %s: %s", name, "is reached again" if good else "is not reached", why)


@asynccontextmanager
async def http_check(timeout_s: float) -> AsyncIterator[Check]:
    """A check by GET that follows no redirect, over connections that are closed in the end."""
    import httpx  # here: a server without active checks does without it

    async with httpx.AsyncClient(timeout=timeout_s) as client:

        async def check(url: str) -> int:
            try:
                async with client.stream("GET", url) as answer:  # the body may be long, or have no end
                    return answer.status_code
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise OSError(f"{type(error).__name__} {error}".strip()) from error

        yield check
