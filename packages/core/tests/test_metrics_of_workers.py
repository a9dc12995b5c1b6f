"""Metrics of a server with several web processes: whichever is asked tells of all of them."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import patient
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, eventually, serving

ROUTE, FEEDBACK = "/v1/quantum/route", "/v1/quantum/feedback"
BODY = json.dumps({"request": {"prompt": "Fix the race in our LRU cache"}, "quantum_config": {"explore": False}})


def samples(server: Server) -> dict[str, float]:
    """Sums over all labels, from a process of the kernel's choice."""
    told: dict[str, float] = {}
    for family in text_string_to_metric_families(patient.get(server.url + "/metrics").text):
        for sample in family.samples:
            told[sample.name] = told.get(sample.name, 0.0) + sample.value
    return told


def until_told(server: Server, **expected: float) -> dict[str, float]:
    """Wait for these sums, all in one answer: a process does not write all of its series in the same moment."""
    told: dict[str, float] = {}

    def holds() -> bool:
        told.update(samples(server))
        return all(told.get(name) == value for name, value in expected.items())

    eventually(holds, lambda: f"{expected} is not told of, but {told}")
    return told


def writers(folder: Path) -> set[int]:
    """Processes that have counted something."""
    return {int(file.stem.rpartition("_")[2]) for file in folder.glob("**/counter_*.db")}


def test_counts_of_two_processes_add_up_and_outlive_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving(tmp_path, "--workers", "2") as server, ThreadPoolExecutor(8) as callers:
        eventually(lambda: server.said().count("Application startup complete") == 2)

        def ask(_: int) -> str:
            return str(patient.post(server.url + ROUTE, content=BODY).json()["decision_id"])

        ids = list(callers.map(ask, range(40)))
        assert len(writers(temporary)) == 2  # both decided something, if only to warm up
        counts = {"quantum_route_requests_total": 40, "quantum_route_duration_seconds_count": 40 + 2}
        until_told(server, **counts)
        for _ in range(6):
            told = samples(server)
            assert {name: told[name] for name in counts} == counts

        def tell(decision: str) -> int:
            report = {"decision_id": decision, "success": True, "cost_usd": 0.25}
            return patient.post(server.url + FEEDBACK, json=report).status_code

        # Each is sent twice at once, to whichever process answers.
        assert set(callers.map(tell, [decision for decision in ids for _ in range(2)])) <= {200, 202}
        # Both processes learn from all forty, and each outcome is counted once.
        told = until_told(
            server,
            quantum_outcomes_total=40,
            quantum_successes_total=40,
            quantum_cost_usd_total=10.0,
            quantum_feedback_total=80,
        )
        assert told["quantum_cost_per_success_usd"] == pytest.approx(0.25)
        assert told["quantum_policy_version"] == 0

        victim = min(writers(temporary))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: server.said().count("Application startup complete") == 3)
        eventually(lambda: samples(server)["quantum_route_requests_total"] == 40)  # what it counted is not lost
        eventually(lambda: not list(temporary.glob(f"**/gauge_live*_{victim}.db")))  # what it said of the moment is
        server.end()
        assert list(temporary.iterdir()) == []
