"""Feedback, asked of real servers: what is taken, what is durable, and how soon every process has learned it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract import problem
from schemas import violations
from servers import PATIENCE_S, Server, eventually, serving

from monkey_coder.deployment import local_secret
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.selection_learning import FollowerOptions
from monkey_coder.storage.opening import FILE_NAME, open_store
from monkey_coder.storage.port import START

ROUTE, FEEDBACK, BATCH = "/v1/quantum/route", "/v1/quantum/feedback", "/v1/quantum/feedback/batch"
PROVIDERS = "/v1/quantum/providers"
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("feedback")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as running:
        yield running


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Two processes that share a store."""
    shared = {"MONKEY_CODER_STATE_DIR": str(tmp_path / "shared"), "MONKEY_CODER_EXPLORE": "false"}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "one", settings=shared) as one,
        serving(tmp_path / "two", settings=shared) as two,
        httpx.Client(base_url=one.url, timeout=PATIENCE_S) as first,
        httpx.Client(base_url=two.url, timeout=PATIENCE_S) as second,
    ):
        yield first, second


def route(client: httpx.Client, task_type: str = "debugging", **request: Any) -> dict[str, Any]:
    body = {
        "request": {"prompt": "Fix the race in our cache", "task_type": task_type} | request,
        "quantum_config": {"explore": False, "timeout_ms": 1000},  # the machine may be busy
    }
    answer: dict[str, Any] = client.post(ROUTE, json=body).raise_for_status().json()
    return answer


def ref_of(answer: dict[str, Any]) -> str:
    return f"{answer['provider']}/{answer['model']}"


def tell(client: httpx.Client, answer: dict[str, Any], **said: Any) -> httpx.Response:
    return client.post(FEEDBACK, json={"decision_id": answer["decision_id"]} | said)


def without(client: httpx.Client, ref: str) -> dict[str, Any]:
    """The first answer that excludes a model; later ones may let it be tried again."""
    answers: list[dict[str, Any]] = []

    def excluded() -> bool:
        answers.append(route(client))
        return ref in {one["model"] for one in answers[-1]["excluded"]}

    eventually(excluded)
    return answers[-1]


def chances(client: httpx.Client, ref: str, task_type: str) -> tuple[float, float]:
    """What is expected of one model, alone: P(success), and the latency in seconds."""
    expected = route(client, task_type, allowed_models=[ref])["expected"]
    return expected["success"], expected["latency_ms"] / 1e3


def test_a_report_is_accepted_and_the_same_one_again_has_no_effect(client: httpx.Client) -> None:
    answer = route(client)
    for status in (202, 200, 200):
        response = tell(client, answer, success=True, outcome_id="ours")
        assert (response.status_code, response.json()) == (status, {"accepted": True})
    for success in (True, False):  # without an id a second report is a correction
        assert tell(client, answer, success=success).status_code == 202
    everything = {
        "outcome_id": "another",
        "model": ref_of(answer["alternatives"][0]),
        "success": False,
        "quality": 0.2,
        "cost_usd": 0.004,
        "latency_ms": 1250.5,
        "input_tokens": 812,
        "output_tokens": 90,
        "error_type": "timeout",
        "occurred_at": "2026-01-01T00:00:00Z",
        "final": True,
    }
    assert tell(client, answer, **everything).status_code == 202


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"success": "yes"}, 422, "invalid_request"),
        ({"quality": 2}, 422, "invalid_request"),
        ({"success": True, "mood": "good"}, 422, "invalid_request"),
        ({"success": True, "model": "no/such"}, 422, "unknown_model"),
        ({"error_type": "tired"}, 422, "invalid_request"),
        ({"success": True, "decision_id": "forged"}, 404, "unknown_decision"),
    ],
)
def test_what_is_wrong_is_refused_with_a_reason(client: httpx.Client, said: Any, status: int, code: str) -> None:
    problem(tell(client, route(client), **said), status, code)


def test_an_id_with_one_letter_changed_is_forged(client: httpx.Client) -> None:
    real = route(client)["decision_id"]
    for place in (0, len(real) // 2, len(real) - 1):
        forged = real[:place] + ("A" if real[place] != "A" else "B") + real[place + 1 :]
        assert client.post(FEEDBACK, json={"decision_id": forged, "success": True}).status_code == 404


def test_ids_are_good_for_thirty_days_and_before_their_decision_can_be_read(
    client: httpx.Client, server: Server
) -> None:
    secret = local_secret(server.state_dir)
    for age_days, status in ((0.0, 202), (29.9, 202), (30.1, 404)):
        ids = SignedIds(secret, lambda days=age_days: time.time() - days * DAY_S, os.urandom)
        (made,) = ids.make(1)
        assert client.post(FEEDBACK, json={"decision_id": made, "success": True}).status_code == status


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("path", [FEEDBACK, BATCH])
def test_a_web_page_cannot_report_by_a_blind_form(client: httpx.Client, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = client.post(path, content=b'{"decision_id": "x", "success": true}', headers=headers)
    problem(response, 415, "unsupported_media_type")


def test_json_may_name_its_charset(client: httpx.Client) -> None:
    body = b'{"decision_id": "%s", "success": true}' % route(client)["decision_id"].encode()
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post(FEEDBACK, content=body, headers=headers).status_code == 202


def test_a_batch_gets_a_result_for_each_in_order(client: httpx.Client) -> None:
    good = {"decision_id": route(client)["decision_id"], "success": True, "outcome_id": "in a batch"}
    forged = {"decision_id": "forged", "success": True}
    first, again = (client.post(BATCH, json={"reports": [good, forged, good]}) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    results = first.json()["results"]
    assert [result["accepted"] for result in results] == [True, False, True]
    assert results[1]["problem"]["code"] == "unknown_decision"
    assert results[0]["problem"] is results[2]["problem"] is None


def test_a_batch_has_one_to_a_thousand_reports(client: httpx.Client) -> None:
    report = {"decision_id": route(client)["decision_id"], "success": True}
    assert client.post(BATCH, json={"reports": []}).status_code == 422
    assert client.post(BATCH, json={"reports": [report] * 1001}).status_code == 422
    whole = client.post(BATCH, json={"reports": [report | {"outcome_id": f"{n} of many"} for n in range(1000)]})
    assert whole.status_code == 202
    assert all(result["accepted"] for result in whole.json()["results"])


def test_the_document_describes_bodies_and_answers(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    report = {"decision_id": route(client)["decision_id"], "success": True}
    for path, body in ((FEEDBACK, report), (BATCH, {"reports": [report]})):
        operation = document["paths"][path]["post"]
        taken = operation["requestBody"]["content"]["application/json"]["schema"]
        assert not list(violations(body, taken, document))
        response = client.post(path, json=body)
        given = operation["responses"][str(response.status_code)]["content"]["application/json"]["schema"]
        assert not list(violations(response.json(), given, document))


def test_reports_are_counted_by_what_became_of_them(client: httpx.Client) -> None:
    answer = route(client)
    tell(client, answer, success=True, outcome_id="counted")
    tell(client, answer, success=True, outcome_id="counted")
    tell(client, answer)
    series = client.get("/metrics").text
    for result in ("new", "duplicate", "invalid_request"):
        assert f'quantum_feedback_total{{result="{result}"}}' in series


# Learning


def test_an_acknowledged_outcome_shows_in_every_process(pair: tuple[httpx.Client, httpx.Client]) -> None:
    assert FollowerOptions().poll_s < 1.0  # two seconds are promised
    first, second = pair
    answer = route(first)
    ref = ref_of(answer)
    before = [chances(client, ref, "debugging") for client in pair]
    assert before[0] == pytest.approx(before[1], abs=2e-4)  # rounded, and slowly forgotten
    assert tell(first, answer, success=False, latency_ms=60_000.0).status_code == 202
    for client in pair:
        eventually(lambda client=client: chances(client, ref, "debugging")[0] < before[0][0] - 0.001)
    after = [chances(client, ref, "debugging") for client in pair]
    assert after[0] == pytest.approx(after[1], abs=2e-4)
    assert after[0][0] < before[0][0]
    assert after[0][1] > before[0][1]
    # five calls that were not answered: away, in both, and in no fallback chain
    for _ in range(5):
        assert tell(second, route(first), model=ref, error_type="provider_error").status_code == 202
    for client in pair:
        answer = without(client, ref)
        assert ref not in [ref_of(answer), *map(ref_of, answer["alternatives"])]
        (why,) = [excluded for excluded in answer["excluded"] if excluded["model"] == ref]
        assert why["reason"] == "unavailable"


def test_an_operator_drains_a_provider_in_every_process(pair: tuple[httpx.Client, httpx.Client]) -> None:
    first, second = pair
    provider = route(first)["provider"]
    drained = first.post(f"{PROVIDERS}/{provider}/override", json={"state": "drained", "reason": "maintenance"})
    assert drained.status_code == 200
    assert (drained.json()["available"], drained.json()["override"]) == (False, "drained")
    assert route(first)["provider"] != provider
    eventually(lambda: route(second)["provider"] != provider)
    (shown,) = [one for one in second.get(PROVIDERS).json()["providers"] if one["name"] == provider]
    assert (shown["available"], shown["override"], shown["breaker"]["state"]) == (False, "drained", "closed")
    assert f'quantum_provider_available{{provider="{provider}"}} 0.0' in second.get("/metrics").text
    assert first.post(f"{PROVIDERS}/{provider}/override", json={"state": "auto"}).json()["available"]
    eventually(lambda: route(second)["provider"] == provider)
    problem(first.post(f"{PROVIDERS}/nobody/override", json={"state": "auto"}), 404, "unknown_provider")
    assert first.post(f"{PROVIDERS}/{provider}/override", json={"state": "gone"}).status_code == 422


def test_six_hundred_failures_in_a_row_of_one_client_take_a_models_traffic(client: httpx.Client) -> None:
    options = {"explore": False, "timeout_ms": 1000}
    body = {"request": {"prompt": "Review this", "task_type": "architecture"}, "quantum_config": options}
    failing = ref_of(route(client, "architecture"))
    decided: list[dict[str, Any]] = []
    for _ in range(6):
        results = client.post("/v1/quantum/route/batch", json={"requests": [body] * 100}).json()["results"]
        decided += [result["decision"] for result in results]
    reports = [{"decision_id": d["decision_id"], "model": failing, "success": False} for d in decided]
    assert client.post(BATCH, json={"reports": reports}).status_code == 202
    eventually(lambda: ref_of(route(client, "architecture")) != failing)
    eventually(lambda: [ref_of(route(client, "architecture")) for _ in range(100)].count(failing) <= 15)


def test_what_was_acknowledged_survives_a_server_that_is_killed_and_is_known_to_the_next(tmp_path: Path) -> None:
    acknowledged: list[str] = []

    def report_until_it_dies(server: Server, name: int) -> None:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            for number in range(100_000):
                try:
                    answer = route(client)
                    outcome_id = f"{name}-{number}"
                    if tell(client, answer, success=True, outcome_id=outcome_id).status_code == 202:
                        acknowledged.append(outcome_id)
                except httpx.TransportError:
                    return

    with (
        serving(tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor(4) as callers,
    ):
        ref = ref_of(route(client))
        fresh, _ = chances(client, ref, "debugging")
        for name in range(4):
            callers.submit(report_until_it_dies, server, name)
        eventually(lambda: len(acknowledged) >= 200)
        server.end(signal.SIGKILL)
    store = open_store(server.state_dir, None, time.time)
    stored, position = set(), START
    while rows := store.read_outcomes(position, 1000):
        stored |= {str(streamed.row.outcome_id).removeprefix("anonymous:") for streamed in rows}
        position = rows[-1].position
    store.close()
    assert len(acknowledged) >= 200
    assert set(acknowledged) <= stored
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        assert chances(client, ref, "debugging")[0] > fresh  # the next process begins with what the last one knew


def test_without_a_store_reports_are_refused_for_now_and_requests_are_still_decided(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_bytes(b"this is no database" * 1000)
    settings = {"MONKEY_CODER_EXPLORE": "false"}
    with (
        serving(tmp_path, settings=settings) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        answer = route(client)
        for response in (
            tell(client, answer, success=True),
            client.post(BATCH, json={"reports": [{"decision_id": answer["decision_id"], "success": True}]}),
            client.post(f"{PROVIDERS}/{answer['provider']}/override", json={"state": "drained"}),
        ):
            problem(response, 503, "store_unavailable")
            assert int(response.headers["retry-after"]) >= 1
        assert route(client)["provider"] == answer["provider"]
        assert 'quantum_feedback_total{result="store_unavailable"} 2.0' in client.get("/metrics").text
