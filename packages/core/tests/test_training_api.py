"""`/v1/quantum/training` and `/v1/quantum/policies` of a real server, with and without policies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import patient
import pytest
from servers import PATIENCE_S, Server, eventually, serving

from monkey_coder.policies import LOOK_EVERY_S
from monkey_coder.quantum.learner_status import LearnerStatus, StatusBoard, TrainingRun
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import Said, StoreShelf
from monkey_coder.quantum.training_pipeline import TrainedPolicy
from monkey_coder.quantum.training_wishes import read_wishes
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import Store

TRAINING, POLICIES = "/v1/quantum/training", "/v1/quantum/policies"
BODY = {
    "request": {"prompt": "Fix the race in our LRU cache"},
    "quantum_config": {"explore": False, "timeout_ms": 1000},  # the machine may be busy
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("training"), "--workers", "2") as running:
        yield running


@pytest.fixture
def store(server: Server) -> Iterator[Store]:
    with closing(open_store(server.state_dir, None, time.time)) as opened:
        yield opened


def get(server: Server, path: str) -> dict[str, Any]:
    response = patient.get(server.url + path)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_before_anything_was_learned(server: Server) -> None:
    told = get(server, TRAINING)
    assert (told["alive"], told["learner"], told["current"], told["policies"]) == (False, None, None, [])
    assert told["enabled"] is False  # as this server was started
    assert get(server, POLICIES) == {"current": None, "policies": [], "switches": []}
    refused = patient.post(server.url + TRAINING + "/rollback")
    assert refused.status_code == 409
    assert refused.json()["code"] == "no_earlier_policy"
    assert "no earlier policy" in refused.json()["detail"]


def test_pausing_reaches_every_learner_and_is_taken_back(server: Server, store: Store) -> None:
    assert patient.post(server.url + TRAINING + "/pause").json()["paused"] is True
    assert read_wishes(store).paused
    assert get(server, TRAINING)["wishes"]["paused"] is True
    assert patient.post(server.url + TRAINING + "/resume").json()["paused"] is False
    assert not read_wishes(store).paused


def test_what_the_learner_said_is_shown_until_it_is_silent_too_long(server: Server, store: Store) -> None:
    board, now = StatusBoard(store), time.time()
    board.write(LearnerStatus(owner="here", doing="idle", started_at=now, heartbeat_at=now, counts={"outcomes": 7}))
    told = get(server, TRAINING)
    assert (told["alive"], told["learner"]["owner"], told["learner"]["counts"]) == (True, "here", {"outcomes": 7})
    board.write(LearnerStatus(owner="here", doing="idle", started_at=now, heartbeat_at=now - 3600))
    assert get(server, TRAINING)["alive"] is False


def test_answers_and_metrics_tell_of_the_learner(server: Server, store: Store) -> None:
    board, now = StatusBoard(store), time.time()
    run = TrainingRun(ended_at=now, seconds=2.0, loss=0.25)
    soon = now + 3600  # however long this takes, it has not fallen silent
    alive = LearnerStatus(owner="it", started_at=now, heartbeat_at=soon, counts={"outcomes": 321}, training=run)
    board.write(alive)
    eventually(lambda: "quantum_replay_size 321" in metrics(server) and "quantum_training_loss 0.25" in metrics(server))
    eventually(lambda: [answer(server)["degraded"] for _ in range(10)] == [[]] * 10)
    board.write(alive.model_copy(update={"heartbeat_at": now - 3600}))
    eventually(lambda: answer(server)["degraded"] == ["learner"])
    board.write(alive.model_copy(update={"doing": "ended"}))
    eventually(lambda: [answer(server)["degraded"] for _ in range(10)] == [[]] * 10)


def metrics(server: Server) -> str:
    return patient.get(server.url + "/metrics").text


def test_policies_are_swapped_under_load_in_all_processes_and_no_request_is_lost(
    server: Server, store: Store, trained_policy: TrainedPolicy
) -> None:
    trained, shelf = trained_policy, StoreShelf(store, time.time)
    bundle = PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)
    for number in (1, 2):
        assert shelf.put(bundle, {}) == number
        shelf.set_current(number, Said("train", "made for this test"))
        versions = until_served_everywhere(server, number)
        assert set(versions) <= {None, number - 1 or None, number}
    listed = get(server, POLICIES)
    assert listed["current"] == 2
    assert [(row["policy"], row["current"]) for row in listed["policies"]] == [(1, False), (2, True)]
    assert listed["policies"][0]["models"] == len(trained.card["data"]["models"])
    assert [(each["policy"], each["why"]) for each in listed["switches"]] == [
        (1, "made for this test"),
        (2, "made for this test"),
    ]

    assert patient.post(server.url + TRAINING + "/rollback").json() == {"current": 1}
    until_served_everywhere(server, 1)
    assert patient.post(server.url + TRAINING + "/rollback?to=none").json() == {"current": None}
    until_served_everywhere(server, None)
    assert patient.post(server.url + TRAINING + "/rollback?to=2").status_code == 422
    assert patient.post(server.url + TRAINING + "/rollback").json() == {"current": 1}
    until_served_everywhere(server, 1)

    foreign = store.put_policy(b"of another program", b"no card")
    assert store.set_current_policy(foreign, 1)
    deadline = time.monotonic() + PATIENCE_S
    while server.said().count(f"policy {foreign} is no policy of ours") < 2:
        assert time.monotonic() < deadline, server.said()
        assert answer(server)["policy_version"] == 1
    assert "problem" in get(server, POLICIES)["policies"][-1]
    assert get(server, TRAINING)["current"] == foreign
    assert get(server, TRAINING)["served"] == 1


def answer(server: Server) -> dict[str, Any]:
    response = patient.post(server.url + "/v1/quantum/route", json=BODY)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def until_served_everywhere(server: Server, number: int | None) -> list[int | None]:
    """Route without a pause until only this policy answers, for longer than a process goes without looking.

    Several callers at once: one alone may find the same process first, again and again.
    """
    seen: list[int | None] = []
    deadline = time.monotonic() + PATIENCE_S
    since, agreed = time.monotonic(), 0
    with ThreadPoolExecutor(4) as callers:
        while agreed < 30 or time.monotonic() - since < 2.0 * LOOK_EVERY_S:
            assert time.monotonic() < deadline, seen
            fresh = [told["policy_version"] for told in callers.map(answer, [server] * 4)]
            seen += fresh
            agreed += len(fresh)
            if fresh != [number] * 4:
                since, agreed = time.monotonic(), 0
    return seen
