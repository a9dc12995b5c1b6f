"""Who may call what: the role of every endpoint, and the check that every request passes before its body is read.

A new endpoint gets a line in `ROLE_OF`. One that has none is open to administrators alone, and a test names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from monkey_coder.api_keys import RANKS, SCRAPER_RANK, Caller, KeyTable, RoleName
from monkey_coder.app.problems import error_response
from monkey_coder.errors import ForbiddenError, NothingHereError, RouterError, UnauthenticatedError
from monkey_coder.quantum.outcome_record import ANONYMOUS

OPERATIONS: Final = "operations"
"""Open, unless there is a scrape token: then that, or any key."""

ROLE_OF: Final[Mapping[str, RoleName | str]] = MappingProxyType(
    {
        "/v1/quantum/route": "client",
        "/v1/quantum/feedback": "client",
        "/v1/quantum/models": "client",
        "/v1/quantum/preferences": "client",
        "/v1/route": "client",
        "/v1/quantum/decisions": "viewer",
        "/v1/quantum/analytics": "viewer",
        "/v1/quantum/monitoring": "viewer",
        "/dashboard": "viewer",
        "/v1/quantum/experiments": "operator",
        "/v1/quantum/providers": "operator",
        "/v1/quantum/training": "operator",
        "/v1/quantum/policies": "operator",
        "/v1/quantum/config": "admin",
        "/v1/quantum/cache": "admin",
        "/metrics": OPERATIONS,
        "/healthz": OPERATIONS,
        "/readyz": OPERATIONS,
        "/openapi.json": OPERATIONS,
        "/docs": OPERATIONS,
    }
)
"""Role by path, for the path itself and all below it."""

ROLE_TO_CHANGE: Final[Mapping[str, RoleName]] = MappingProxyType({"/v1/quantum/models": "operator"})
"""The role for other methods than GET, where it is another one."""

OPEN: Final = Caller(ANONYMOUS, RANKS["admin"])
"""Everybody, while there are no keys; and whoever asks for what is open."""

_SCHEME: Final = b"bearer "
_SUBPROTOCOL: Final = "bearer."


def admit(scope: Scope, table: KeyTable) -> Caller:
    """Find out who sends a request, and whether they may.

    Args:
        scope: Of the request or WebSocket, as ASGI has it. Only its path and headers are looked at.
        table: The keys of this moment.

    Raises:
        UnauthenticatedError: It has no key, or none that is good.
        ForbiddenError: Its key does not reach so far.
        NothingHereError: No role is declared for the path, and the key is not an administrator's.
    """
    if not table.required and not table.scraped:
        return OPEN
    role = role_of(scope["path"], scope.get("method", "GET"))
    if not (table.scraped if role == OPERATIONS else table.required):
        return OPEN
    key = _key(scope)
    caller = None if key is None else table.find(key)
    if caller is None:
        raise UnauthenticatedError(given=key is not None)
    if caller.rank >= (RANKS["admin"] if role is None else RANKS.get(role, SCRAPER_RANK)):
        return caller
    if role is None and caller.rank > SCRAPER_RANK:
        raise NothingHereError
    raise ForbiddenError(role or "admin")


def role_of(path: str, method: str = "GET") -> RoleName | str | None:
    """The role that a path asks for, or None where none is declared."""
    while path:
        if method != "GET" and path in ROLE_TO_CHANGE:
            return ROLE_TO_CHANGE[path]
        if path in ROLE_OF:
            return ROLE_OF[path]
        path = path.rpartition("/")[0]
    return None


def refusal(error: RouterError) -> Response:
    """The answer to a request that was not admitted; says how to authenticate (RFC 6750)."""
    response = error_response(error)
    if isinstance(error, UnauthenticatedError | ForbiddenError):
        response.headers["WWW-Authenticate"] = error.challenge
    return response


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sent a request that has been admitted."""
    caller: Caller = connection.scope["caller"]
    return caller


def _key(scope: Scope) -> bytes | None:
    """The key of a request: its bearer token, or where a browser opens a WebSocket, a subprotocol ``bearer.KEY``."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            given: bytes = value
            return given[len(_SCHEME) :].strip() if given[: len(_SCHEME)].lower() == _SCHEME else None
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            return str(offered).removeprefix(_SUBPROTOCOL).encode()
    return None
