"""One key that reports only failures, against another that reports the truth: how far it moves what is decided from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import patient
import pytest
from keyed import client_of, make_key
from prometheus_client.parser import text_string_to_metric_families
from servers import PATIENCE_S, Server, eventually, serving

ROUTES, REPORTS = "/v1/quantum/route/batch", "/v1/quantum/feedback/batch"
TASK = "debugging"
SHARE = 0.5
ROUNDING = 1e-4
"""The last digit that answers tell."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, settings={"MONKEY_CODER_EXPLORE": "false"}) as running:
        yield running


def decide(client: httpx.Client, *models: str) -> list[dict[str, Any]]:
    """A decision for each model, which was the only candidate."""
    bodies = [
        {
            "request": {"prompt": "Fix the race in our cache", "task_type": TASK, "allowed_models": [model]},
            "quantum_config": {"cache": "bypass", "timeout_ms": 1000},
        }
        for model in models
    ]
    answers: list[dict[str, Any]] = []
    for start in range(0, len(bodies), 256):
        response = client.post(ROUTES, json={"requests": bodies[start : start + 256]}).raise_for_status()
        answers += [result["decision"] for result in response.json()["results"]]
    return answers


def report(client: httpx.Client, decision_ids: list[str], *, success: bool) -> None:
    reports = [{"decision_id": decision_id, "success": success} for decision_id in decision_ids]
    results = client.post(REPORTS, json={"reports": reports}).raise_for_status().json()["results"]
    assert all(result["accepted"] for result in results)


def decisions_for(client: httpx.Client, model: str, times: int) -> list[str]:
    return [answer["decision_id"] for answer in decide(client, *[model] * times)]


def learned(client: httpx.Client, count: int) -> None:
    """Wait until so many reports have been learned from, each the first of its reporter on a decision."""

    def told() -> float:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == "quantum_outcomes_total")

    eventually(lambda: told() == count, "not all reports were learned from")


def chances(client: httpx.Client, models: tuple[str, ...]) -> Mapping[str, float]:
    """P(success) of each model, once it does not change any more; what was counted is served a moment later."""
    deadline, before, rested = time.monotonic() + PATIENCE_S, None, 0
    while time.monotonic() < deadline:
        now = {
            model: answer["expected"]["success"] for model, answer in zip(models, decide(client, *models), strict=True)
        }
        rested = rested + 1 if now == before else 0
        if rested == 2:
            return now
        before = now
        time.sleep(0.4)
    raise AssertionError("P(success) did not come to rest")


@pytest.fixture
def clients(server: Server) -> Iterator[tuple[httpx.Client, ...]]:
    """Three keys: two that tell the truth, and one that does not."""
    keys = [make_key(server.state_dir, "client", name)[1] for name in ("honest", "another", "poisoning")]
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(server, key)) for key in keys]
        # Until the server knows of keys, all is open, and everybody is the same nobody.
        eventually(lambda: patient.get(f"{server.url}/v1/quantum/models").status_code == 401)
        eventually(lambda: all(client.get("/v1/quantum/models").status_code != 401 for client in clients))
        yield tuple(clients)


def test_one_key_moves_a_profile_by_no_more_than_its_share_and_others_not_at_all(
    clients: tuple[httpx.Client, ...], record_property: Callable[[str, object], None]
) -> None:
    honest, another, poisoning = clients
    refs = tuple(model["ref"] for model in honest.get("/v1/quantum/models").json()["models"])
    target, other, *_ = refs
    true = decisions_for(honest, target, 60)
    report(honest, true, success=True)
    report(another, decisions_for(another, other, 5), success=True)  # from here on there are two reporters
    learned(honest, 65)
    before = chances(honest, refs)
    # Of its own decisions, and of the honest one's:
    for lies, count in ((decisions_for(poisoning, target, 400), 465), (true, 525)):
        report(poisoning, lies, success=False)
        learned(honest, count)
        eventually(lambda: chances(honest, (target,))[target] < before[target], "it is not heard")
        after = chances(honest, refs)
        record_property("P(success) before and after", (before[target], after[target]))
        assert after[target] < before[target]  # it is heard
        # Failures alone would be 0; with a share of one half, the others' word is still half of what counts.
        assert after[target] >= (1.0 - SHARE) * before[target] - ROUNDING
        for ref in refs[1:]:
            assert after[ref] == pytest.approx(before[ref], abs=ROUNDING)
    report(honest, true, success=True)  # who told the truth may still say so, and nothing is lost
    assert chances(honest, refs)[target] >= (1.0 - SHARE) * before[target] - ROUNDING


def test_the_first_word_of_a_second_key_moves_no_other_model(clients: tuple[httpx.Client, ...]) -> None:
    honest, _, poisoning = clients
    refs = tuple(model["ref"] for model in honest.get("/v1/quantum/models").json()["models"])
    target, good, bad, *_ = refs
    report(honest, decisions_for(honest, target, 30), success=True)
    report(honest, decisions_for(honest, good, 30), success=True)
    report(honest, decisions_for(honest, bad, 30), success=False)
    learned(honest, 90)
    before = chances(honest, refs)
    report(poisoning, decisions_for(poisoning, target, 200), success=False)
    learned(honest, 290)
    eventually(lambda: chances(honest, (target,))[target] < before[target], "it is not heard")
    after = chances(honest, refs)
    assert (1.0 - SHARE) * before[target] - ROUNDING <= after[target] < before[target]
    for ref in refs[1:]:
        assert after[ref] == pytest.approx(before[ref], abs=ROUNDING)
