"""What each key prefers, asked of a real server: stored, obeyed where a request is silent, and one's own alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import patient
import pytest
from contract import problem
from keyed import client_of, make_key
from schemas import violations
from servers import PATIENCE_S, Server, eventually, serving

PREFERENCES, ROUTE, BATCH = "/v1/quantum/preferences", "/v1/quantum/route", "/v1/quantum/route/batch"
TASK = {"request": {"prompt": "Fix the race in our LRU cache", "task_type": "debugging"}}
STORED = {"value_usd": 0.2, "quality_floor": 0.1}
OPEN = {"quality": 0.6, "cost": 0.3, "latency": 0.1, "value_usd": None, "quality_floor": None, "max_cost_usd": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preferences")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, tuple[str, str]]:
    plain, stored = make_key(folder / "state", "viewer", "plain"), make_key(folder / "state", "viewer", "s", **STORED)
    return {"plain": plain, "stored": stored}


@pytest.fixture(scope="module")
def server(folder: Path, keys: dict[str, tuple[str, str]]) -> Iterator[Server]:
    with serving(folder) as running:
        yield running


@pytest.fixture
def plain(server: Server, keys: dict[str, tuple[str, str]]) -> Iterator[httpx.Client]:
    with client_of(server, keys["plain"][1]) as client:
        yield client


@pytest.fixture
def stored(server: Server, keys: dict[str, tuple[str, str]]) -> Iterator[httpx.Client]:
    with client_of(server, keys["stored"][1]) as client:
        yield client


def obeyed(client: httpx.Client, answer: dict[str, Any]) -> dict[str, Any]:
    """The preferences that a decision was made from, as the log has them; what was not said is left out."""
    deadline = time.monotonic() + PATIENCE_S
    while (shown := client.get(f"/v1/quantum/decisions/{answer['decision_id']}")).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return {name: value for name, value in shown.json()["preferences"].items() if value is not None}


def route(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(ROUTE, json=TASK | more).raise_for_status().json()
    return answer


WEIGHTS = {"quality": 0.6, "cost": 0.3, "latency": 0.1}


def test_a_key_without_preferences_gets_the_engines_own(plain: httpx.Client, keys: dict[str, tuple[str, str]]) -> None:
    assert obeyed(plain, route(plain)) == WEIGHTS
    shown = plain.get(PREFERENCES).json()
    assert shown == {
        "key": keys["plain"][0],
        "name": "plain",
        "preferences": None,
        "learned": None,
        "use_learned": False,
        "applied": OPEN,
    }


def test_stored_preferences_hold_where_a_request_says_nothing(stored: httpx.Client) -> None:
    shown = stored.get(PREFERENCES).json()
    assert shown["preferences"] == STORED
    assert shown["applied"] == STORED | {"max_cost_usd": None}
    assert obeyed(stored, route(stored)) == STORED
    assert obeyed(stored, route(stored, preferences={"max_cost_usd": 5.0})) == STORED | {"max_cost_usd": 5.0}
    assert obeyed(stored, route(stored, preferences={"quality_floor": None})) == {"value_usd": 0.2}
    said = {"quality": 0.5, "cost": 0.5, "latency": 0.0, "quality_floor": 0.3}
    assert obeyed(stored, route(stored, preferences=said)) == said
    (result,) = stored.post(BATCH, json={"requests": [TASK]}).json()["results"]
    assert obeyed(stored, result["decision"]) == STORED
    assert obeyed(stored, stored.post("/v1/route", json=TASK).json()) == STORED


def test_a_caller_stores_its_own_and_no_one_elses(
    server: Server, folder: Path, plain: httpx.Client, stored: httpx.Client
) -> None:
    _, key = make_key(folder / "state", "client", "mine")
    with client_of(server, key) as mine:
        eventually(lambda: mine.get(PREFERENCES).status_code != 401)
        answer = mine.put(PREFERENCES, json={"preferences": {"quality": 1.0, "cost": 0.0, "latency": 0.0}})
        assert answer.status_code == 200
        assert answer.json()["preferences"] == {"quality": 1.0, "cost": 0.0, "latency": 0.0}
        eventually(lambda: obeyed(plain, route(mine)) == {"quality": 1.0, "cost": 0.0, "latency": 0.0})
        assert mine.put(PREFERENCES, json={"preferences": None}).json()["preferences"] is None
        assert stored.get(PREFERENCES).json()["preferences"] == STORED
        assert plain.get(PREFERENCES).json()["preferences"] is None
        for wrong in ({}, {"preferences": {"quality": 0}}, {"preferences": {"value_usd": 1, "cost": 1}}, {"more": 1}):
            problem(mine.put(PREFERENCES, json=wrong), 422, "invalid_request")


def test_the_document_describes_it(server: Server, stored: httpx.Client) -> None:
    document = patient.get(server.url + "/openapi.json").json()
    shown = stored.get(PREFERENCES).json()
    for method in ("get", "put"):
        operation = document["paths"][PREFERENCES][method]
        assert not list(
            violations(shown, operation["responses"]["200"]["content"]["application/json"]["schema"], document)
        )
    taken = document["paths"][PREFERENCES]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert not list(violations({"preferences": STORED}, taken, document))
