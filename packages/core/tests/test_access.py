"""Who may call what, asked of real servers: every endpoint with every role, revocation, and what nobody gets to see."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import patient
import pytest
from contract import problem
from keyed import client_of, make_key
from redis_process import running_redis
from servers import PATIENCE_S, Server, command, eventually, serving

from monkey_coder.api_keys import ROLES, KeyTable, RoleName, new_key
from monkey_coder.app.access import admit, role_of
from monkey_coder.app.hot_path import Front
from monkey_coder.app.main import create_app
from monkey_coder.errors import ForbiddenError, NothingHereError, RouterError, UnauthenticatedError
from monkey_coder.key_ring import FILE_NAME, LOOK_EVERY_S, KeyRing
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store

ROUTE, FEEDBACK, PREFERENCES = "/v1/quantum/route", "/v1/quantum/feedback", "/v1/quantum/preferences"
BODY = {"request": {"prompt": "Fix the race in our LRU cache", "task_type": "debugging"}}
SCRAPE_TOKEN = "what-prometheus-knows"

# The contract, once more and in other words than the code: the longest beginning of "METHOD path" counts.
LEAST_ROLE: Mapping[str, RoleName | None] = {
    "POST /v1/quantum/route": "client",
    "POST /v1/quantum/feedback": "client",
    "GET /v1/quantum/models": "client",
    "PUT /v1/quantum/models": "operator",
    "DELETE /v1/quantum/models": "operator",
    "POST /v1/quantum/models": "operator",
    "GET /v1/quantum/preferences": "client",
    "PUT /v1/quantum/preferences": "client",
    "POST /v1/route": "client",
    "GET /v1/quantum/decisions": "viewer",
    "GET /v1/quantum/analytics": "viewer",
    "GET /dashboard": "viewer",
    "GET /v1/quantum/experiments": "operator",
    "POST /v1/quantum/experiments": "operator",
    "PUT /v1/quantum/experiments": "operator",
    "DELETE /v1/quantum/experiments": "operator",
    "GET /v1/quantum/providers": "operator",
    "POST /v1/quantum/providers": "operator",
    "GET /v1/quantum/training": "operator",
    "POST /v1/quantum/training": "operator",
    "GET /v1/quantum/policies": "operator",
    "POST /v1/quantum/policies": "operator",
    "GET /v1/quantum/config": "admin",
    "PUT /v1/quantum/config": "admin",
    "POST /v1/quantum/config": "admin",
    "GET /v1/quantum/cache": "admin",
    "POST /v1/quantum/cache": "admin",
    "DELETE /v1/quantum/cache": "admin",
    "GET /metrics": None,
    "GET /healthz": None,
    "GET /readyz": None,
}


def least_role(operation: str) -> RoleName | None:
    beginnings = [known for known in LEAST_ROLE if operation.startswith(known)]
    assert beginnings, f"{operation}: declare its role in app/access.py and in this test"
    return LEAST_ROLE[max(beginnings, key=len)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    return {role: make_key(folder / "state", role, f"the {role}")[1] for role in ROLES}


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, str]) -> Iterator[Server]:
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def operations(server: Server) -> list[tuple[str, str]]:
    document = patient.get(server.url + "/openapi.json").json()
    return [
        (method.upper(), path)
        for path, known in document["paths"].items()
        for method in known
        if method in ("get", "put", "post", "delete", "patch")
    ]


def ask(server: Server, method: str, path: str, key: str | None = None) -> httpx.Response:
    with client_of(server, key) as client:
        return client.request(method, re.sub(r"\{[^}]*\}", "some/thing", path), json={"nothing": "useful"})


def test_every_endpoint_asks_for_its_role(
    server: Server, keys: dict[str, str], operations: list[tuple[str, str]]
) -> None:
    assert len(operations) >= 10
    for method, path in operations:
        least = least_role(f"{method} {path}")
        without = ask(server, method, path)
        if least is None:
            assert without.status_code not in (401, 403), (method, path)
            continue
        problem(without, 401, "unauthenticated")
        assert without.headers["www-authenticate"] == 'Bearer realm="monkey-coder"'
        for place, role in enumerate(ROLES):
            response = ask(server, method, path, keys[role])
            if place < ROLES.index(least):
                problem(response, 403, "forbidden")
                assert f'error="insufficient_scope", scope="{least}"' in response.headers["www-authenticate"]
            else:
                assert response.status_code not in (401, 403), (method, path, role)


def test_every_endpoint_declares_its_role_and_the_document_tells_it(
    server: Server, operations: list[tuple[str, str]]
) -> None:
    assert [operation for operation in operations if role_of(operation[1], operation[0]) is None] == []
    document = patient.get(server.url + "/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    told = {f"{method} {path}": document["paths"][path][method.lower()].get("x-role") for method, path in operations}
    assert told == {operation: least_role(operation) for operation in told}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer nobody",
        "Bearer mk_000000000000_" + "A" * 43,
        "Basic bWs6bWs=",
        "bearer é".encode("latin-1"),
        "Bearer " + "x" * 20_000,
    ],
)
def test_what_is_no_key_opens_nothing(server: Server, header: str | bytes) -> None:
    response = patient.post(server.url + ROUTE, json=BODY, headers=[(b"authorization", header)])  # type: ignore[list-item]
    problem(response, 401, "unauthenticated")


def test_the_scheme_may_be_written_in_any_case(server: Server, keys: dict[str, str]) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        headers = {"authorization": f"{scheme} {keys['client']}"}
        assert patient.post(server.url + ROUTE, json=BODY, headers=headers).status_code == 200
        short = {"authorization": f"{scheme} {keys['client'][:-1]}"}
        assert patient.post(server.url + ROUTE, json=BODY, headers=short).status_code == 401


def test_a_request_without_a_key_is_refused_before_its_body_is_there(server: Server) -> None:
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: router\r\ncontent-length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
    broken = patient.post(server.url + ROUTE, content=b"{not json" * 1000)
    problem(broken, 401, "unauthenticated")


def test_paths_that_do_not_exist_need_a_key_and_then_are_missing(server: Server, keys: dict[str, str]) -> None:
    for path in ("/", "/v1", "/v1/quantum/nothing", "/v1/quantum/route.json", "//v1/quantum/route"):
        problem(ask(server, "GET", path), 401, "unauthenticated")
        problem(ask(server, "GET", path, keys["client"]), 404, "not_found")
        problem(ask(server, "GET", path, keys["admin"]), 404, "not_found")


def test_head_and_options_are_no_way_around(server: Server) -> None:
    for method in ("HEAD", "OPTIONS"):
        assert patient.request(method, f"{server.url}/v1/quantum/config").status_code == 401
        assert patient.request(method, f"{server.url}/v1/quantum/models").status_code == 401


def test_no_key_shows_in_the_log_or_the_metrics(server: Server, keys: dict[str, str]) -> None:
    for key in (*keys.values(), "mk_000000000000_unheard-of"):
        ask(server, "POST", ROUTE, key)
        ask(server, "POST", FEEDBACK, key)
        ask(server, "GET", "/v1/quantum/providers", key)
    told = patient.get(server.url + "/metrics").text
    assert 'quantum_route_requests_total{outcome="unauthenticated"}' in told
    stored = b"".join(path.read_bytes() for path in server.state_dir.rglob("*") if path.is_file())
    for key in (*keys.values(), "unheard-of"):
        secret = key.split("_", 2)[-1]  # a secret may have underscores of its own
        assert secret not in server.said()
        assert secret not in told
        assert secret.encode() not in stored


def until_status(client: httpx.Client, status: int) -> None:
    eventually(lambda: client.post(ROUTE, json=BODY).status_code == status)


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings of processes that share a store; those with Redis share nothing else, as on two hosts."""
    if request.param == "sqlite":
        yield {"MONKEY_CODER_STATE_DIR": str(tmp_path / "shared")}
        return
    (tmp_path / "redis").mkdir()
    with running_redis(tmp_path / "redis") as redis:
        yield {"MONKEY_CODER_REDIS_URL": redis.url}


def test_two_processes_learn_of_keys_and_revocations(tmp_path: Path, shared: dict[str, str]) -> None:
    assert LOOK_EVERY_S < 1.0  # two seconds are promised
    for name in ("one", "two", "shared"):
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "one", settings=shared) as one,
        serving(tmp_path / "two", settings=shared) as two,
    ):
        with client_of(one) as first, client_of(two) as second:
            assert first.post(ROUTE, json=BODY).status_code == 200  # without any key all is open
            assert second.get("/v1/quantum/providers").status_code == 200
            problem(first.get(PREFERENCES), 409, "no_api_key")
        made = command(tmp_path / "shared", "keys", "create", "--role", "client", "--name", "CI", settings=shared)
        assert made.returncode == 0
        key = made.stdout.strip()
        with client_of(one, key) as first, client_of(two, key) as second, client_of(one) as nobody:
            until_status(nobody, 401)  # the first key closes the door
            for client in (first, second):
                until_status(client, 200)
            revoked = command(tmp_path / "shared", "keys", "revoke", "CI", settings=shared)
            assert revoked.returncode == 0
            for client in (first, second):
                until_status(client, 401)
            problem(nobody.post(ROUTE, json=BODY), 401, "unauthenticated")  # revoking the last key opens nothing


def test_an_address_that_others_reach_needs_a_key_first(tmp_path: Path) -> None:
    refused = command(tmp_path / "state", "serve", "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "refusing to listen on 0.0.0.0: no API keys are configured" in refused.stderr
    assert "monkey-coder keys create" in refused.stderr


def test_with_a_key_it_listens_there_and_a_damaged_store_opens_no_door(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    _, key = make_key(state_dir, "client")
    with closing(open_store(state_dir, None, time.time)) as store:
        KeyRing(store, state_dir / FILE_NAME).begin()  # as a server of this host did before
    for path in state_dir.glob("store.sqlite3*"):
        path.write_bytes(b"this is no database" * 1000)
    with serving(tmp_path, "--host", "0.0.0.0") as server, client_of(server, key) as holder:
        assert ask(server, "POST", ROUTE).status_code == 401
        assert holder.post(ROUTE, json=BODY).status_code == 200
        problem(holder.get(PREFERENCES), 503, "store_unavailable")


@asynccontextmanager
async def in_process(state_dir: Path) -> AsyncIterator[Front]:
    """The application with its lifespan and a scrape token, without a socket."""
    front = create_app(Settings(state_dir=state_dir, scrape_token=SCRAPE_TOKEN))
    api: Any = front.app
    async with api.router.lifespan_context(api):
        yield front


async def test_metrics_and_health_can_ask_for_a_token(tmp_path: Path) -> None:
    _, key = make_key(tmp_path, "client")
    async with (
        in_process(tmp_path) as front,
        httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://router") as client,
    ):
        for path in ("/metrics", "/healthz", "/readyz", "/openapi.json", "/docs"):
            problem(await client.get(path), 401, "unauthenticated")
            for good in (SCRAPE_TOKEN, key):
                response = await client.get(path, headers={"authorization": f"Bearer {good}"})
                assert response.status_code == 200
        for path in (ROUTE, "/v1/quantum/config", "/nowhere"):
            response = await client.post(path, headers={"authorization": f"Bearer {SCRAPE_TOKEN}"})
            problem(response, 403, "forbidden")


async def test_a_websocket_is_refused_before_it_opens(tmp_path: Path) -> None:
    _, client_key = make_key(tmp_path, "client")
    feed = {"type": "websocket", "path": "/v1/quantum/monitoring/ws", "query_string": b"", "headers": []}
    async with in_process(tmp_path) as front:
        for subprotocols, status in (([], 401), (["monkey-coder", f"bearer.{client_key}"], 403)):
            sent: list[Any] = []

            async def keep(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            async def nothing() -> Any:
                raise AssertionError("there is nothing to wait for")

            await front({**feed, "subprotocols": subprotocols}, nothing, keep)
            assert sent[0]["type"] == "websocket.http.response.start"
            assert sent[0]["status"] == status


# The check itself


def scope(path: str, *headers: tuple[bytes, bytes], method: str = "GET", **more: Any) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": list(headers), **more}


def test_the_check_reads_no_more_than_path_and_headers() -> None:
    kept, key = new_key("viewer", "viewer", 0.0)
    table = KeyTable.of([kept])
    bearer = (b"authorization", b"Bearer " + key.encode())
    assert admit(scope("/v1/quantum/decisions/x", (b"host", b"r"), bearer), table).id == kept.id
    assert admit(scope(ROUTE, bearer, method="POST"), table).id == kept.id  # a viewer may do what a client may
    with pytest.raises(ForbiddenError):
        admit(scope("/v1/quantum/models/a/b", bearer, method="PUT"), table)
    with pytest.raises(NothingHereError):
        admit(scope("/v1/quantum/undeclared", bearer), table)
    with pytest.raises(UnauthenticatedError):
        admit(scope(ROUTE), table)
    browser = {"type": "websocket", "path": "/v1/quantum/monitoring/ws", "headers": []}
    assert admit({**browser, "subprotocols": ["monkey-coder", f"bearer.{key}"]}, table).id == kept.id
    with pytest.raises(UnauthenticatedError):
        admit({**browser, "subprotocols": ["bearer.nobody"]}, table)


def test_an_undeclared_path_is_for_administrators_alone() -> None:
    for role in ROLES:
        kept, key = new_key("x", role, 0.0)
        asked = scope("/v1/quantum/brand-new", (b"authorization", b"Bearer " + key.encode()))
        if role == "admin":
            assert admit(asked, KeyTable.of([kept])).id == kept.id
        else:
            with pytest.raises(RouterError, match="nothing at this path"):
                admit(asked, KeyTable.of([kept]))
