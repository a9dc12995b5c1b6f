"""`POST /v1/quantum/route/batch`: up to 256 requests at once, each with its own answer or problem, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from contract import ANSWER_FIELDS, EVERY_DEFAULT, PROMPT, problem
from prometheus_client.parser import text_string_to_metric_families
from schemas import violations
from servers import PATIENCE_S, Server, serving

from monkey_coder.models import RouteBatchRequest, RoutingDecision

BATCH = "/v1/quantum/route/batch"
MOST = 256


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("batch"), settings={"MONKEY_CODER_MAX_BODY_BYTES": "2000000"}) as running:
        yield running
        assert "Traceback" not in running.said()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as running:
        yield running


@pytest.fixture(scope="module")
def openapi(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def one(prompt: str = PROMPT, **parts: Any) -> dict[str, Any]:
    return {
        "request": {"prompt": prompt, **parts.pop("request", {})},
        "quantum_config": {"explore": False, "timeout_ms": 1000, **parts.pop("quantum_config", {})},
        **parts,
    }


def results_of(client: httpx.Client, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    response = client.post(BATCH, json={"requests": requests})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"results"}
    assert len(body["results"]) == len(requests)
    for result in body["results"]:
        assert result.keys() == {"decision", "problem"}
        assert (result["decision"] is None) != (result["problem"] is None)
    results: list[dict[str, Any]] = body["results"]
    return results


@pytest.mark.parametrize("count", [1, 2, 65, MOST])
def test_every_request_gets_its_own_answer_in_order(client: httpx.Client, count: int) -> None:
    requests = [one(f"Task {n}: {PROMPT}", episode={"episode_id": f"episode {n}"}) for n in range(count)]
    decisions = [result["decision"] for result in results_of(client, requests)]
    assert [decision["episode_id"] for decision in decisions] == [f"episode {n}" for n in range(count)]
    assert len({decision["decision_id"] for decision in decisions}) == count
    for decision in decisions:
        assert decision.keys() == ANSWER_FIELDS
        RoutingDecision.model_validate(decision, strict=False)


def test_an_answer_is_that_of_the_endpoint_for_one(client: httpx.Client) -> None:
    requests = [one("Fix a typo"), one(request={"task_type": "architecture"}), one(preferences={"quality_floor": 0.6})]
    for request, result in zip(requests, results_of(client, requests), strict=True):
        alone = client.post("/v1/quantum/route", json=request).json()
        for name in ("provider", "model", "expected", "complexity", "context_type", "collapse_strategy", "excluded"):
            assert (
                result["decision"][name] == pytest.approx(alone[name], abs=2e-4)
                if name == "expected"
                else (result["decision"][name] == alone[name])
            )


def test_a_problem_stays_with_the_request_that_has_it(client: httpx.Client) -> None:
    requests = [
        one(),
        one(request={"excluded_models": ["no/such"]}),
        one(quantum_config={"strategies": ["nobody"]}),
        one(request={"input_tokens": 10**9}),
        one(),
    ]
    results = results_of(client, requests)
    assert [result["problem"] and result["problem"]["code"] for result in results] == [
        None,
        "unknown_model",
        "unknown_strategy",
        "no_eligible_model",
        None,
    ]
    for result in results[1:4]:
        assert {"type", "title", "status", "code", "detail"} <= result["problem"].keys()
        assert result["problem"]["status"] == 422
    assert {e["reason"] for e in results[3]["problem"]["excluded"]} <= {"context_window", "capability", "max_output"}
    alone = client.post("/v1/quantum/route", json=requests[3]).json()
    assert results[3]["problem"] == alone  # the same document as alone


def test_mixed_options_share_a_batch_and_keep_their_own(client: httpx.Client) -> None:
    collapses = ["best_score", "weighted", "consensus", "first_success", "combined"]
    requests = [
        one(quantum_config={"collapse_strategy": name, "max_threads": 1 + n % 2}) for n, name in enumerate(collapses)
    ]
    decisions = [result["decision"] for result in results_of(client, requests * 3)]
    assert [decision["collapse_strategy"] for decision in decisions] == collapses * 3


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": None}, "requests"),
        ({"requests": one()}, "requests"),
        ({"requests": [one()] * (MOST + 1)}, "requests"),
        ({"requests": [one()], "surprise": 1}, "surprise"),
        ({"requests": [one(), {"request": {}}]}, "requests.1.request.prompt"),
        ({"requests": [one(), one(), one(preferences={"cost": -1})]}, "requests.2.preferences.cost"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole_and_the_place_is_named(
    client: httpx.Client, body: dict[str, Any], where: str
) -> None:
    document = problem(client.post(BATCH, json=body), 422, "invalid_request")
    assert any(error["field"].replace("[", ".").replace("]", "") == where for error in document["errors"]), document


def test_one_more_than_allowed_is_told_the_limit(client: httpx.Client) -> None:
    document = problem(client.post(BATCH, json={"requests": [one()] * (MOST + 1)}), 422, "invalid_request")
    assert str(MOST) in str(document["errors"])


@pytest.mark.parametrize("body", [b"", b"{", b"[1, 2", b'{"requests": [\xff]}'])
def test_what_is_not_json_is_said_to_be_none(client: httpx.Client, body: bytes) -> None:
    problem(client.post(BATCH, content=body), 400, "invalid_json")


def test_a_body_past_the_limit_is_refused(client: httpx.Client) -> None:
    problem(client.post(BATCH, json={"requests": [one("x" * 2_000_000)]}), 413, "body_too_large")


def test_other_methods_are_refused(client: httpx.Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        problem(client.request(method, BATCH), 405, "method_not_allowed")


def test_the_openapi_document_describes_requests_and_answers_truly(
    client: httpx.Client, openapi: dict[str, Any]
) -> None:
    operation = openapi["paths"][BATCH]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["schema"]
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    body = {"requests": [EVERY_DEFAULT, one(), one(request={"excluded_models": ["no/such"]})]}
    assert list(violations(body, asked, openapi)) == []
    assert list(violations(client.post(BATCH, json=body).json(), answered, openapi)) == []
    for wrong in ({"requests": []}, {"requests": [one()] * (MOST + 1)}, {"requests": [{}]}, {}):
        assert list(violations(wrong, asked, openapi)) != []
        with pytest.raises(ValueError):
            RouteBatchRequest.model_validate(wrong)
    assert list(violations({"results": [{"decision": None}]}, answered, openapi)) != []
    assert "default" in operation["responses"]
    assert "application/problem+json" in operation["responses"]["default"]["content"]


def requests_by_outcome(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.labels["outcome"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "quantum_route_requests_total"
    }


def test_each_request_of_a_batch_counts_as_one(client: httpx.Client) -> None:
    before = requests_by_outcome(client)
    results_of(client, [one(), one(), one(request={"input_tokens": 10**9})])
    after = requests_by_outcome(client)
    assert after["decided"] - before["decided"] == 2
    assert after["no_eligible_model"] - before.get("no_eligible_model", 0.0) == 1


def test_a_body_that_is_no_batch_counts_as_one_request(client: httpx.Client) -> None:
    before = requests_by_outcome(client)
    client.post(BATCH, json={"requests": []})
    client.post(BATCH, content=b"x" * 2_000_001)
    after = requests_by_outcome(client)
    for outcome in ("invalid_request", "body_too_large"):
        assert after[outcome] - before.get(outcome, 0.0) == 1
    assert after["decided"] == before["decided"]


def test_a_batch_longer_than_the_queue_gets_answers_and_problems_that_say_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = {"MONKEY_CODER_MAX_QUEUE": "10", "MONKEY_CODER_MAX_BATCH": "4"}
    with (
        serving(tmp_path_factory.mktemp("short"), settings=settings) as running,
        httpx.Client(timeout=PATIENCE_S) as caller,
    ):
        response = caller.post(running.url + BATCH, json={"requests": [one()] * 40})
        assert response.status_code == 200
        codes = [result["problem"] and result["problem"]["code"] for result in response.json()["results"]]
        assert set(codes) == {None, "overloaded"}
        assert codes[:10] == [None] * 10  # those that came first
        again = caller.post(running.url + BATCH, json={"requests": [one()] * 5}).json()["results"]
        assert all(result["decision"] for result in again)
