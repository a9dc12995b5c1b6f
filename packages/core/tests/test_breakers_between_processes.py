"""Breakers of two real processes on one store: they open together, share their probes, and close together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from servers import PATIENCE_S, eventually, serving

from monkey_coder.quantum.circuit_breaker import BreakerOptions

ROUTE, FEEDBACK, PROVIDERS = "/v1/quantum/route", "/v1/quantum/feedback", "/v1/quantum/providers"
OPTIONS = BreakerOptions()

Pair = tuple[httpx.Client, httpx.Client]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("breakers")
    shared = {"MONKEY_CODER_STATE_DIR": str(folder / "shared"), "MONKEY_CODER_EXPLORE": "false"}
    for name in ("one", "two"):
        (folder / name).mkdir()
    with (
        serving(folder / "one", settings=shared) as one,
        serving(folder / "two", settings=shared) as two,
        httpx.Client(base_url=one.url, timeout=PATIENCE_S) as first,
        httpx.Client(base_url=two.url, timeout=PATIENCE_S) as second,
    ):
        yield first, second


def ask(client: httpx.Client, attempts: list[dict[str, Any]] | None = None, **task: Any) -> httpx.Response:
    body: dict[str, Any] = {
        "request": {"prompt": "Fix the race in our cache", "task_type": "debugging", **task},
        "quantum_config": {"cache": "bypass", "timeout_ms": 1000},
    }
    return client.post(ROUTE, json=body | ({"episode": {"attempts": attempts}} if attempts else {}))


def ref_of(answer: dict[str, Any]) -> str:
    return f"{answer['provider']}/{answer['model']}"


def tell(client: httpx.Client, answer: dict[str, Any], **said: Any) -> None:
    report = {"decision_id": answer["decision_id"], "model": ref_of(answer)} | said
    assert client.post(FEEDBACK, json=report).status_code == 202


def state_of(client: httpx.Client, ref: str) -> str:
    providers = client.get(PROVIDERS).raise_for_status().json()["providers"]
    return next(model["state"] for provider in providers for model in provider["models"] if model["name"] == ref)


def excluded(client: httpx.Client) -> set[str]:
    return {each["model"] for each in ask(client).raise_for_status().json()["excluded"]}


def test_both_open_share_their_probes_and_close(pair: Pair) -> None:
    first, second = pair
    answer = ask(first).raise_for_status().json()
    ref = ref_of(answer)
    for number in range(OPTIONS.failures):
        tell(pair[number % 2], answer, error_type="provider_error", outcome_id=f"failure {number}")
    for client in pair:
        eventually(lambda client=client: ref in excluded(client))
        assert state_of(client, ref) != "closed"
    for client in pair:
        eventually(lambda client=client: state_of(client, ref) == "half_open")
    probes: list[dict[str, Any]] = []
    asked_until = time.monotonic() + PATIENCE_S
    while len(probes) < OPTIONS.probes and time.monotonic() < asked_until:
        probes += [r.json() for r in (ask(client, allowed_models=[ref]) for client in pair) if r.status_code == 200]
        time.sleep(0.01)
    for _ in range(20):  # whoever has them out has the only permit
        assert {ask(client, allowed_models=[ref]).status_code for client in pair} == {503}
        time.sleep(0.05)
    assert len(probes) == OPTIONS.probes
    for probe in probes:
        tell(second, probe, success=True)
    for client in pair:
        eventually(lambda client=client: state_of(client, ref) == "closed")
        eventually(lambda client=client: ref not in excluded(client))


def test_a_provider_that_failed_comes_last_in_what_is_tried_next(pair: Pair) -> None:
    client, _ = pair
    answer = ask(client).raise_for_status().json()
    failed = ref_of(answer)
    attempts = [{"model": failed, "success": False, "error_type": "timeout", "decision_id": answer["decision_id"]}]
    tried = {failed.partition("/")[0]}
    following = ask(client, attempts).raise_for_status().json()
    chain = [following["provider"], *(each["provider"] for each in following["alternatives"])]
    assert chain[0] not in tried
    behind = [place for place, provider in enumerate(chain) if provider in tried]
    assert behind == list(range(len(chain) - len(behind), len(chain)))
    while len(tried) < 4:  # a chain of providers that all fail
        following = ask(client, attempts).raise_for_status().json()
        assert following["provider"] not in tried
        tried.add(following["provider"])
        attempts.append({"model": ref_of(following), "success": False, "error_type": "provider_error"})
