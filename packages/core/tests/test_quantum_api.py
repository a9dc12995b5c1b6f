"""The HTTP contract, asked of a real server: what a complete answer is, and which requests get which."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from contract import (
    ANSWER_FIELDS,
    BAD_FIELDS,
    EVERY_DEFAULT,
    PROMPT,
    ROUTE,
    ROUTES,
    STRATEGIES,
    ask,
    changed,
    problem,
    ref_of,
)
from prometheus_client.parser import text_string_to_metric_families
from schemas import violations
from servers import PATIENCE_S, Server, serving

from monkey_coder.models import RouteRequest, RoutingDecision


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as running:
        yield running


@pytest.fixture(scope="module")
def refs(client: httpx.Client) -> list[str]:
    return [model["ref"] for model in client.get("/v1/quantum/models").json()["models"]]


@pytest.fixture(scope="module")
def openapi(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


@pytest.mark.parametrize("path", ROUTES)
def test_a_prompt_alone_gets_a_complete_answer(client: httpx.Client, refs: list[str], path: str) -> None:
    for turn in range(20):  # until the machine is so idle for a moment that the usual deadline can be met
        response = client.post(path, json={"request": {"prompt": f"{PROMPT} ({turn})"}})
        if not response.json().get("degraded"):
            break
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert answer.keys() == ANSWER_FIELDS
    RoutingDecision.model_validate_json(response.content)  # types, ranges and closed sets
    assert re.fullmatch(r"[A-Za-z0-9_-]+", answer["decision_id"])
    assert answer["episode_id"]
    chain = [ref_of(answer)] + [ref_of(alternative) for alternative in answer["alternatives"]]
    assert len(set(chain)) == len(chain) > 1
    assert set(chain) <= set(refs)
    for part in (answer, *answer["alternatives"]):
        expected = part["expected"]
        assert expected["success_low"] <= expected["success"] <= expected["success_high"]
        assert expected["cost_usd"] > 0
        assert expected["latency_ms"] > 0
    assert answer["excluded"] == []
    assert {result["strategy"] for result in answer["thread_results"]} == STRATEGIES
    assert {result["status"] for result in answer["thread_results"]} == {"SUCCESS"}
    assert answer["strategy_used"] in STRATEGIES
    assert answer["collapse_strategy"] == "weighted"
    assert answer["collapse_reasoning"].endswith(".")
    assert answer["context_type"] == "debugging"
    assert 0 < answer["propensity"] <= 1
    assert (answer["cache"], answer["policy_version"], answer["experiment"]) == ("miss", None, None)
    assert answer["config_version"] >= 1
    assert answer["degraded"] == []


@pytest.mark.parametrize("path", ROUTES)
def test_every_field_may_be_given(client: httpx.Client, refs: list[str], path: str) -> None:
    assert client.post(path, json=EVERY_DEFAULT).status_code == 200
    answer = ask(
        client,
        path,
        request={
            "task_type": "security",
            "persona": "architect",
            "files": [{"path": "cache.py", "chars": 5200}],
            "preferred_providers": ["openai", "nobody"],
            "allowed_models": refs[:5],
            "excluded_models": refs[:1],
            "requires": {"tools": True, "vision": False, "json_mode": False, "regions": []},
            "input_tokens": 900,
            "expected_output_tokens": 100,
            "session_id": "a session",
        },
        preferences={"value_usd": 2.5, "quality_floor": 0.1, "max_cost_usd": 1},
        episode={
            "episode_id": "mine",
            "attempts": [
                {"model": refs[1], "success": False, "cost_usd": 0.001, "decision_id": "x", "error_type": "timeout"}
            ],
        },
        quantum_config={"strategies": ["balanced"], "max_threads": 1, "cache": "refresh"},
    )
    assert answer["episode_id"] == "mine"
    assert answer["persona"] == "architect"
    assert answer["context_type"] == "security"
    assert ref_of(answer) in refs[2:5]
    reasons = {exclusion["model"]: exclusion["reason"] for exclusion in answer["excluded"]}
    assert (reasons[refs[0]], reasons[refs[1]]) == ("excluded_model", "already_tried")
    assert {reasons[ref] for ref in refs[5:]} == {"allowed_models"}


def test_what_is_left_out_has_the_default_of_the_contract() -> None:
    short = RouteRequest.model_validate_json(f'{{"request": {{"prompt": "{PROMPT}"}}}}')
    assert short.model_dump(mode="json") == EVERY_DEFAULT


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(("place", "value"), BAD_FIELDS)
def test_a_bad_field_is_named(client: httpx.Client, path: str, place: str, value: Any) -> None:
    document = problem(client.post(path, json=changed(place, value)), 422, "invalid_request")
    assert document["detail"].startswith(place)
    assert all(error["field"].startswith(place) and error["message"] for error in document["errors"])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["quality", "cost", "value_usd", "quality_floor", "max_cost_usd"])
def test_numbers_that_are_none_are_refused(client: httpx.Client, place: str, number: str) -> None:
    body = f'{{"request": {{"prompt": "x"}}, "preferences": {{"{place}": {number}}}}}'
    document = problem(client.post(ROUTE, content=body), 422, "invalid_request")
    assert document["errors"][0]["field"] == f"preferences.{place}"


@pytest.mark.parametrize("weight", ["quality", "cost", "latency"])
def test_a_value_replaces_the_weights(client: httpx.Client, weight: str) -> None:
    body = {"request": {"prompt": "x"}, "preferences": {"value_usd": 1.0, weight: 0.5}}
    document = problem(client.post(ROUTE, json=body), 422, "invalid_request")
    assert document["errors"] == [
        {"field": "preferences", "message": f"value_usd replaces the weights: leave out {weight}"}
    ]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "place", ["request.allowed_models[1]", "request.excluded_models[1]", "episode.attempts[1].model"]
)
def test_a_model_that_is_unknown_is_named_with_its_place(
    client: httpx.Client, refs: list[str], path: str, place: str
) -> None:
    real, misspelt = refs[0], refs[0][:-1] + "x"
    value: Any = [real, misspelt]
    if place.startswith("episode"):
        value = [{"model": ref, "success": False} for ref in value]
    response = client.post(path, json=changed(place.partition("[")[0], value))
    document = problem(response, 422, "unknown_model")
    assert document["detail"].startswith(f"{place}: '{misspelt}'")
    assert real in document["detail"].partition("did you mean")[2]
    assert [error["field"] for error in document["errors"]] == [place]


def test_a_strategy_that_is_unknown_is_named(client: httpx.Client) -> None:
    document = problem(client.post(ROUTE, json=changed("quantum_config.strategies", ["luck"])), 422, "unknown_strategy")
    assert "'luck'" in document["detail"]
    assert "balanced" in document["detail"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("place", "value", "reason", "words"),
    [
        ("preferences.max_cost_usd", 0, "budget", "0.000000 USD are left"),
        ("request.input_tokens", 10**9, "context_window", "tokens, has"),
        ("request.expected_output_tokens", 10**7, "context_window", "tokens, has"),
        ("request.requires.regions", ["atlantis"], "region", "atlantis"),
    ],
)
def test_without_a_candidate_every_exclusion_is_listed(
    client: httpx.Client, refs: list[str], path: str, place: str, value: Any, reason: str, words: str
) -> None:
    document = problem(client.post(path, json=changed(place, value)), 422, "no_eligible_model")
    assert [exclusion["model"] for exclusion in document["excluded"]] == refs
    for exclusion in document["excluded"]:
        assert exclusion["reason"] == reason
        assert words in exclusion["detail"]


@pytest.mark.parametrize("path", ROUTES)
def test_an_episode_never_returns_to_a_model_that_failed(client: httpx.Client, refs: list[str], path: str) -> None:
    attempts: list[dict[str, Any]] = []
    for _ in refs:
        answer = ask(client, path, episode={"episode_id": "e-1", "attempts": attempts})
        tried = {attempt["model"] for attempt in attempts}
        offered = {ref_of(answer)} | {ref_of(alternative) for alternative in answer["alternatives"]}
        assert not tried & offered
        assert {e["model"] for e in answer["excluded"] if e["reason"] == "already_tried"} == tried
        assert answer["episode_id"] == "e-1"
        attempts.append({"model": ref_of(answer), "success": False})
    response = client.post(path, json=changed("episode.attempts", attempts))
    document = problem(response, 422, "no_eligible_model")
    assert {exclusion["reason"] for exclusion in document["excluded"]} == {"already_tried"}


def test_what_attempts_spent_is_taken_off_the_budget(client: httpx.Client) -> None:
    first = ask(client, preferences={"max_cost_usd": 0.01})
    dearest = max((first, *first["alternatives"]), key=lambda part: part["expected"]["cost_usd"])
    left = dearest["expected"]["cost_usd"] / 2
    spent = {"model": ref_of(first), "success": False, "cost_usd": 0.01 - left}
    second = ask(client, preferences={"max_cost_usd": 0.01}, episode={"attempts": [spent]})
    assert all(part["expected"]["cost_usd"] <= left * 1.000001 for part in (second, *second["alternatives"]))
    assert ref_of(dearest) in {e["model"] for e in second["excluded"] if e["reason"] in ("budget", "already_tried")}


def test_a_quality_floor_takes_the_cheapest_that_surely_reaches_it(client: httpx.Client) -> None:
    free = ask(client)
    lows = sorted(part["expected"]["success_low"] for part in (free, *free["alternatives"]))
    floor = lows[len(lows) // 2]
    held = ask(client, preferences={"quality_floor": floor})
    reaching = [
        part for part in (held, *held["alternatives"]) if part["expected"]["success_low"] >= floor
    ]  # to 4 digits, as in the answer
    assert held in reaching
    assert held["expected"]["cost_usd"] == min(part["expected"]["cost_usd"] for part in reaching)
    assert "quality floor" in held["collapse_reasoning"]
    assert "no candidate" in ask(client, preferences={"quality_floor": 1})["collapse_reasoning"]


def test_preferences_move_the_choice(client: httpx.Client) -> None:
    modest = ask(client, preferences={"value_usd": 0.0001})["expected"]
    precious = ask(client, preferences={"value_usd": 1_000_000})["expected"]
    assert modest["cost_usd"] < precious["cost_usd"]
    assert modest["success"] < precious["success"]
    stingy = ask(client, preferences={"quality": 0.01, "cost": 1, "latency": 0})["expected"]
    assert stingy["cost_usd"] < precious["cost_usd"]
    hasty = ask(client, preferences={"quality": 0.01, "cost": 0, "latency": 1})["expected"]
    assert hasty["latency_ms"] <= min(modest["latency_ms"], precious["latency_ms"], stingy["latency_ms"])


@pytest.mark.parametrize("name", ["best_score", "weighted", "consensus", "first_success", "combined"])
def test_the_collapse_of_the_request_is_used(client: httpx.Client, name: str) -> None:
    answer = ask(client, quantum_config={"collapse_strategy": name})
    assert answer["collapse_strategy"] == name
    assert ref_of(answer) in answer["collapse_reasoning"]


def test_only_the_strategies_of_the_request_are_asked(client: httpx.Client) -> None:
    answer = ask(client, quantum_config={"strategies": ["cost_efficient"], "max_threads": 64})
    (result,) = answer["thread_results"]
    assert (result["strategy"], result["status"]) == ("cost_efficient", "SUCCESS")
    assert answer["strategy_used"] == "cost_efficient"
    assert result["model"] == ref_of(answer)


def test_exploration_may_be_declined(client: httpx.Client) -> None:
    answer = ask(client)
    assert (answer["explored"], answer["propensity"]) == (False, 1.0)


def test_the_cache_may_be_passed_by(client: httpx.Client) -> None:
    assert ask(client, quantum_config={"cache": "bypass"})["cache"] == "bypass"


def test_ids_are_new_each_time_unless_the_caller_has_an_episode(client: httpx.Client) -> None:
    answers = [ask(client) for _ in range(3)] + [ask(client, episode={"episode_id": "mine"}) for _ in range(2)]
    assert len({answer["decision_id"] for answer in answers}) == 5
    assert len({answer["episode_id"] for answer in answers}) == 4
    assert answers[-1]["episode_id"] == "mine"


def test_the_catalog_is_listed(client: httpx.Client) -> None:
    models = client.get("/v1/quantum/models").json()["models"]
    assert len(models) >= 20
    assert len({model["ref"].partition("/")[0] for model in models}) >= 6
    for model in models:
        assert model["available"] is True
        assert {"context_window", "max_output", "capabilities", "prices", "regions"} <= model.keys()


def test_operations_endpoints(client: httpx.Client) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.head("/healthz").status_code == 200
    assert client.head("/healthz").content == b""


def series(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples by name and labels; parsing proves the format."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_count_what_happens(client: httpx.Client) -> None:
    before = series(client)
    answer = ask(client, request={"prompt": "Count this one"})
    ask(client, "/v1/route")
    client.post(ROUTE, content=b"{")
    client.post("/v1/route", content=b"{")
    client.post(ROUTE, json=changed("preferences.max_cost_usd", 0))
    after = series(client)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after[key] - before.get(key, 0.0)

    assert grown("quantum_route_requests_total", outcome="decided") == 2
    assert grown("quantum_route_requests_total", outcome="invalid_json") == 2
    assert grown("quantum_route_requests_total", outcome="no_eligible_model") == 1
    assert grown("quantum_route_duration_seconds_count", cache="miss") == 2
    assert grown("quantum_strategy_results_total", strategy="balanced", status="SUCCESS") == 2
    decided = {"provider": answer["provider"], "model": answer["model"], "collapse": "weighted"}
    assert grown("quantum_decisions_total", **decided) >= 1


@pytest.mark.parametrize("path", ROUTES)
def test_the_openapi_document_tells_good_requests_from_bad(openapi: dict[str, Any], path: str) -> None:
    schema = openapi["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(violations(EVERY_DEFAULT, schema, openapi)) == []
    assert list(violations({"request": {"prompt": "x"}}, schema, openapi)) == []
    for place, value in BAD_FIELDS:
        assert list(violations(changed(place, value), schema, openapi)), f"{place}: {value} passed"


@pytest.mark.parametrize("path", ROUTES)
def test_the_openapi_document_describes_the_answers(client: httpx.Client, openapi: dict[str, Any], path: str) -> None:
    responses = openapi["paths"][path]["post"]["responses"]
    good = responses["200"]["content"]["application/json"]["schema"]
    assert list(violations(ask(client, path), good, openapi)) == []
    assert list(violations(ask(client, path, request={"input_tokens": 500_000}), good, openapi)) == []
    bad = responses["default"]["content"]["application/problem+json"]["schema"]
    for body in (changed("request.prompt", ""), changed("preferences.max_cost_usd", 0), []):
        assert list(violations(client.post(path, json=body).json(), bad, openapi)) == []


def test_the_openapi_document_names_every_endpoint_and_resolves(openapi: dict[str, Any]) -> None:
    assert set(openapi["paths"]) >= {*ROUTES, "/v1/quantum/models", "/healthz", "/readyz", "/metrics"}
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(openapi)):
        assert reference in openapi["components"]["schemas"]
