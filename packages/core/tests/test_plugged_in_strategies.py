"""Strategies that other packages bring along: announced as entry points, asked like our own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import httpx
import patient
import pytest
from builders import Fixed, ask, table
from contract import PROMPT, ROUTE, STRATEGIES, problem
from servers import PATIENCE_S, Server, command, eventually, serving

from monkey_coder.bootstrap import MOST_SWIFT_CHARS, STRATEGY_GROUP, decides_swiftly, is_swift, plugged_in_strategies
from monkey_coder.errors import SettingsError
from monkey_coder.quantum.cache_parts import Asked
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.settings import Settings

PLUG_IN = '''
import threading
import numpy as np
from monkey_coder.ports import Scores

class Last:
    """Wants the last model of the catalog, always; fails when the task is security."""

    name = "last_one"

    def score(self, batch):
        if (batch.task == 7).any():
            raise ValueError("not for me")
        utility = np.zeros(batch.candidates.shape, dtype=np.float32)
        utility[:, -1] = 1.0
        rows = len(batch)
        return Scores(utility, np.ones(rows, dtype=np.float32), np.zeros(rows, dtype=np.bool_))

class Stuck:
    name = "stuck"

    def score(self, batch):
        threading.Event().wait()

def broken():
    raise RuntimeError("no licence found")
'''


class Answering(Fixed):
    """What a package would bring along: made without arguments."""

    def __init__(self) -> None:
        super().__init__("answering", [0.1, 0.9, 0.1])


class Further(Fixed):
    def __init__(self) -> None:
        super().__init__("further", [0.9, 0.1, 0.1])


class Usurper(Fixed):
    def __init__(self) -> None:
        super().__init__("balanced", [0.1, 0.9, 0.1])


class Nameless:
    name = None

    def score(self, batch: object) -> None: ...


def refuses() -> Fixed:
    raise RuntimeError("no licence found")


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, STRATEGY_GROUP)


def install(folder: Path, made_by: str) -> dict[str, str]:
    """Lay a package out as installers do; returns the settings under which Python finds it."""
    info = folder / "house_strategies-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "house_strategies.py").write_text(PLUG_IN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-strategies\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{STRATEGY_GROUP}]\nhouse = house_strategies:{made_by}\n")
    return {"PYTHONPATH": str(folder)}


def test_without_such_packages_there_are_none() -> None:
    assert plugged_in_strategies() == ()
    assert plugged_in_strategies([]) == ()


def test_each_entry_point_is_made_into_a_strategy_in_order() -> None:
    entries = [entry("one", f"{__name__}:Answering"), entry("two", f"{__name__}:Further")]
    assert [strategy.name for strategy in plugged_in_strategies(entries)] == ["answering", "further"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Strategy", "No module named 'no_such_module'"),
        (f"{__name__}:NoSuchClass", "NoSuchClass"),
        (f"{__name__}:refuses", "no licence found"),
        (f"{__name__}:PLUG_IN", "not callable"),
        ("builtins:dict", "no attribute 'name'"),
        (f"{__name__}:Nameless", "no strategy"),
        (f"{__name__}:Answering", "a strategy 'answering' already"),
        (f"{__name__}:Usurper", "a strategy 'balanced' already"),
    ],
)
def test_a_broken_one_is_named_with_the_reason_and_the_mend(value: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        plugged_in_strategies([entry("good", f"{__name__}:Answering"), entry("house", value)])
    message = str(caught.value)
    for part in ("'house'", value, why, "repair or uninstall"):
        assert part in message


def test_what_may_get_stuck_is_kept_out_of_the_event_loop() -> None:
    own = EngineSnapshot(table=table(), strategies=configured_strategies(None, None))
    plugged_in = replace(own, strategies=configured_strategies(None, None, [Answering()]))
    assert decides_swiftly(Settings(), own)
    assert not decides_swiftly(Settings(), plugged_in)
    assert not decides_swiftly(Settings(), replace(own, strategies={**own.strategies, "dqn": Answering()}))
    assert not decides_swiftly(Settings(redis_url="redis://127.0.0.1:1"), own)


def test_what_waits_for_the_store_or_takes_long_to_read_is_kept_out_of_the_event_loop() -> None:
    longest = "x" * MOST_SWIFT_CHARS
    assert is_swift(ask(longest))
    assert not is_swift(ask(longest + "x"))
    assert not is_swift(ask(session_id="a session"))
    assert is_swift(Asked(ask()))
    assert not is_swift(Asked(ask(session_id="a session")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("plugged")
    with serving(folder, settings=install(folder / "site", "Last")) as running:
        yield running


def test_an_installed_package_takes_part_in_decisions(server: Server) -> None:
    body = {"request": {"prompt": PROMPT}, "quantum_config": {"explore": False, "timeout_ms": 1000}}
    everyone = patient.post(server.url + ROUTE, json=body).json()
    assert {result["strategy"] for result in everyone["thread_results"]} == STRATEGIES | {"last_one"}
    body["quantum_config"]["strategies"] = ["last_one"]
    alone = patient.post(server.url + ROUTE, json=body).json()
    last = patient.get(server.url + "/v1/quantum/models").json()["models"][-1]["ref"]
    assert (f"{alone['provider']}/{alone['model']}", alone["strategy_used"]) == (last, "last_one")


def test_one_that_keeps_failing_raises_an_alert_that_monitoring_sees(server: Server) -> None:
    body = {"request": {"prompt": PROMPT, "task_type": "security"}, "quantum_config": {"timeout_ms": 1000}}
    series = 'quantum_strategy_alert{figure="failure_rate",strategy="last_one"} 1.0'
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        while series not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            answer = client.post(ROUTE, json=body).json()
            assert answer["degraded"] == ["strategy"]
    eventually(lambda: "strategy last_one: failure_rate is too high" in server.said())  # said after it is counted


def test_one_that_is_stuck_for_ever_costs_neither_answers_nor_the_end_of_the_server(tmp_path: Path) -> None:
    body = {"request": {"prompt": PROMPT}, "quantum_config": {"timeout_ms": 200}}
    with serving(tmp_path, settings=install(tmp_path / "site", "Stuck")) as running:
        for _ in range(3):
            answer = patient.post(running.url + ROUTE, json=body).json()
            statuses = {result["strategy"]: result["status"] for result in answer["thread_results"]}
            assert (statuses["stuck"], answer["degraded"]) == ("TIMEOUT", ["deadline"])
        running.end()
        assert "Traceback" not in running.said()


def test_a_server_does_not_start_with_a_broken_one_and_says_which(tmp_path: Path) -> None:
    done = command(tmp_path / "state", "serve", "--port", "0", settings=install(tmp_path / "site", "broken"))
    assert done.returncode != 0
    assert "house_strategies:broken" in done.stderr
    assert "no licence found" in done.stderr
    assert "Traceback" not in done.stderr


def test_asking_for_one_that_is_not_installed_lists_those_that_are(server: Server) -> None:
    body = {"request": {"prompt": PROMPT}, "quantum_config": {"strategies": ["first_one"]}}
    document = problem(patient.post(server.url + ROUTE, json=body), 422, "unknown_strategy")
    assert "last_one" in document["detail"]
