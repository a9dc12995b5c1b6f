"""Decisions over HTTP: shown and explained by any process soon after the answer, and never at its expense."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import patient
import pytest
from contract import PROMPT, ROUTE, STRATEGIES, ask, problem, ref_of
from schemas import violations
from servers import PATIENCE_S, Server, eventually, serving

from monkey_coder.models import RouteRequest, RoutingDecision
from monkey_coder.quantum.explanation import DecisionView, Explanation

DECISIONS = "/v1/quantum/decisions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("decisions"), "--workers", "2") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as running:
        yield running


@pytest.fixture(scope="module")
def openapi(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def shown(client: httpx.Client, decision_id: str, path: str = "", **query: str) -> dict[str, Any]:
    """A decision or its explanation, once it is in the log."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        response = client.get(f"{DECISIONS}/{decision_id}{path}", params=query)
        if response.status_code == 200 or time.monotonic() > deadline:
            assert response.status_code == 200, response.text
            document: dict[str, Any] = response.json()
            return document
        problem(response, 404, "unknown_decision")
        time.sleep(0.02)


def schema_of(openapi: Mapping[str, Any], path: str) -> Any:
    return openapi["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]


def test_a_decision_shows_what_was_known_and_chosen(client: httpx.Client, openapi: dict[str, Any]) -> None:
    answer = ask(client, preferences={"value_usd": 0.5, "max_cost_usd": 1.0})
    view = shown(client, answer["decision_id"])
    assert not list(violations(view, schema_of(openapi, DECISIONS + "/{decision_id}"), openapi))
    DecisionView.model_validate(view, strict=False)
    assert view["decision"] == answer
    assert abs(view["made_at"] - time.time()) < PATIENCE_S
    assert (view["cost_weight"], view["latency_weight"]) == (2.0, 0.0)
    assert view["budget_left_usd"] == pytest.approx(1.0)
    assert view["preferences"] == {
        "quality": None,
        "cost": None,
        "latency": None,
        "value_usd": 0.5,
        "quality_floor": None,
        "max_cost_usd": 1.0,
    }
    assert view["winner"] == view["models"][0]["model"] == ref_of(answer)
    assert [model["model"] for model in view["models"][1:11]] == [ref_of(a) for a in answer["alternatives"]]
    assert {strategy["strategy"] for strategy in view["strategies"]} >= STRATEGIES
    assert PROMPT not in str(view)


def test_any_process_shows_a_decision_soon_after_its_answer(server: Server) -> None:
    """Each call on a connection of its own: the operating system spreads them over both workers."""

    def found_later(_: int) -> None:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as caller:
            answer = ask(caller)
        url = f"{server.url}{DECISIONS}/{answer['decision_id']}"
        eventually(lambda: {patient.get(url).status_code for _ in range(6)} == {200}, "not every process shows it")

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(found_later, range(8)))


def test_an_explanation_answers_why_why_not_and_where_it_flips(client: httpx.Client, openapi: dict[str, Any]) -> None:
    answer = ask(client)
    other = ref_of(answer["alternatives"][2])
    told = shown(client, answer["decision_id"], "/explain", instead=other)
    assert not list(violations(told, schema_of(openapi, DECISIONS + "/{decision_id}/explain"), openapi))
    Explanation.model_validate(told, strict=False)
    assert (told["decision_id"], told["served"], told["today"]) == (answer["decision_id"],) + (ref_of(answer),) * 2
    assert told["why"][0] == answer["collapse_reasoning"]
    assert told["instead"]["model"] == other
    assert told["instead"]["standing"] == "candidate"
    assert [(axis["quantity"], axis["model"]) for axis in told["flips"]] == [
        ("cost_weight", None),
        ("quality_floor", None),
        ("price", ref_of(answer)),
        ("price", other),
    ]


def test_flip_points_over_http_are_true(client: httpx.Client) -> None:
    answer = ask(client)
    told = shown(client, answer["decision_id"], "/explain")
    checked = 0
    for axis in told["flips"][:2]:
        for flip in filter(None, (axis["lower"], axis["higher"])):
            if axis["quantity"] == "cost_weight":
                scale = flip["cost"] / flip["at"]
                wants = [{"quality": 0.6, "latency": 0.1, "cost": flip[end] * scale} for end in ("until", "at")]
            else:
                wants = [{"quality_floor": flip[end] or None} for end in ("until", "at")]
            chosen = [ref_of(ask(client, preferences=preferences)) for preferences in wants]
            assert chosen == [told["winner"], flip["model"]]
            checked += 1
    assert checked


def test_similar_prompts_are_precedents_by_id_alone(client: httpx.Client) -> None:
    first = ask(client, request={"prompt": "Translate this haiku about autumn leaves into Latin hexameters"})
    shown(client, first["decision_id"])
    second = ask(client, request={"prompt": "Translate this haiku about autumn leaves into Greek hexameters"})
    told = shown(client, second["decision_id"], "/explain")
    nearest = told["precedents"][0]
    assert (nearest["decision_id"], nearest["model"]) == (first["decision_id"], ref_of(first))
    assert nearest["similarity"] > 0.8
    assert "hexameters" not in str(told)


@pytest.mark.parametrize("path", ["", "/explain"])
def test_ids_that_are_forged_or_not_logged_are_404(client: httpx.Client, path: str) -> None:
    answer = ask(client)
    genuine = answer["decision_id"]
    for forged in ("x", genuine[:-1] + "!", genuine[::-1], "%00", "é"):
        problem(client.get(f"{DECISIONS}/{forged}{path}"), 404, "unknown_decision")


def test_a_model_nobody_knows_is_named(client: httpx.Client) -> None:
    answer = ask(client)
    shown(client, answer["decision_id"])
    url = f"{DECISIONS}/{answer['decision_id']}/explain"
    near = ref_of(answer)[:-1]
    document = problem(client.get(url, params={"instead": near}), 422, "unknown_model")
    assert f"did you mean {ref_of(answer)}" in document["detail"]
    problem(client.get(url, params={"instead": "no ref"}), 422, "invalid_request")


def test_the_front_doors_decisions_are_shown_too(client: httpx.Client) -> None:
    answer = ask(client, "/v1/route")
    assert shown(client, answer["decision_id"])["decision"]["decision_id"] == answer["decision_id"]


def test_decisions_outlive_the_process(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        with httpx.Client(base_url=first.url, timeout=PATIENCE_S) as client:
            answer = ask(client)
        first.end()
        assert "Traceback" not in first.said()
    with serving(tmp_path) as second, httpx.Client(base_url=second.url, timeout=PATIENCE_S) as client:
        response = client.get(f"{DECISIONS}/{answer['decision_id']}")
        assert response.status_code == 200
        assert response.json()["decision"] == answer


def test_a_store_that_cannot_be_opened_costs_no_decision(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "store.sqlite3").write_bytes(b"this is a shopping list, and no database" * 100)
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        answer = ask(client)
        response = client.get(f"{DECISIONS}/{answer['decision_id']}")
        assert problem(response, 503, "store_unavailable")["detail"].startswith("the store could not be opened")
        assert response.headers["retry-after"]
        assert "decisions will not be logged" in server.said()
        say_so_soon(client)


def test_a_store_that_fails_while_running_costs_no_decision_and_is_told_of(tmp_path: Path) -> None:
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        assert ask(client)["degraded"] == []
        with closing(sqlite3.connect(server.state_dir / "store.sqlite3", timeout=PATIENCE_S)) as saboteur:
            saboteur.execute("ALTER TABLE decisions RENAME TO gone")
        ask(client)
        say_so_soon(client)
        assert statistics.median(seconds(client) for _ in range(30)) < 1.0  # nobody waits for the store
        with closing(sqlite3.connect(server.state_dir / "store.sqlite3", timeout=PATIENCE_S)) as repairer:
            repairer.execute("ALTER TABLE gone RENAME TO decisions")
        answer = ask(client)
        shown(client, answer["decision_id"])  # what waited is written, and what comes is, too
        assert "Traceback" not in server.said()


def say_so_soon(client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "store" not in (decision := ask(client))["degraded"]:
        assert time.monotonic() < deadline, "no answer says that the store is failing"
        time.sleep(0.05)
    RoutingDecision.model_validate(decision, strict=False)


def seconds(client: httpx.Client) -> float:
    body = RouteRequest.model_validate({"request": {"prompt": PROMPT}}).model_dump_json()
    started = time.monotonic()
    assert client.post(ROUTE, content=body).status_code == 200
    return time.monotonic() - started
