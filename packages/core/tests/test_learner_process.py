"""The learner as a process: it learns from a real engine's decisions, survives being killed, and is alone at it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import patient
import pytest
from redis_process import running_redis
from servers import COMMAND, PATIENCE_S, command, environment, eventually, serving
from taught_store import teaching

from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.learner_status import LearnerStatus, read_status
from monkey_coder.quantum.policy_shelf import StoreShelf
from monkey_coder.quantum.transition_log import TransitionLog
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import START, Store

ENOUGH = 700
"""Outcomes after which a policy is worth publishing in the world of `taught_store`."""
AT_ONCE = ("--nice", "0")
"""The tests wait for it, and the machine may be busy."""
NEVER = "1000000"
"""So many outcomes are needed for a training that shall not happen."""


@dataclass
class Deployment:
    """A store, and the environment in which processes use it."""

    state_dir: Path
    store: Store
    settings: dict[str, str]

    def status(self) -> LearnerStatus | None:
        return read_status(self.store)

    def learn(self, *options: str) -> subprocess.CompletedProcess[str]:
        return command(self.state_dir, "learn", *AT_ONCE, *options, settings=self.settings)

    @contextmanager
    def learning(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A learner in the background, never left behind."""
        process = subprocess.Popen(
            [*COMMAND, "learn", *AT_ONCE, *options],
            env=environment(self.state_dir, self.settings) | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(params=["sqlite", "redis"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    if request.param == "sqlite":
        with closing(open_store(state_dir, None, time.time)) as store:
            yield Deployment(state_dir, store, {})
    else:
        with running_redis(tmp_path) as server, closing(open_store(state_dir, server.url, time.time)) as store:
            yield Deployment(state_dir, store, {"MONKEY_CODER_REDIS_URL": server.url})


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Deployment]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with closing(open_store(state_dir, None, time.time)) as store:
        yield Deployment(state_dir, store, {})


def until_said(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}:\n{said}")


def last_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def taken_once(store: Store) -> dict[str, int]:
    """What a learner counts that is never killed, and sees every outcome once."""
    log = TransitionLog()

    def decision(decision_id: str) -> Any:
        payload = store.decision(decision_id)
        return None if payload is None else decode(payload)

    log.take(store.read_outcomes(START, 1_000_000), decision, time.time())
    return {"outcomes": log.counts.outcomes, "decisions": log.counts.decisions, "waiting": log.counts.waiting}


def test_killed_again_and_again_it_loses_and_repeats_nothing(deployment: Deployment) -> None:
    rng = random.Random(5)
    with teaching(deployment.state_dir, deployment.store) as teacher:
        answers = teacher.decide(300)
        teacher.report(answers[:120], time.time())
        for moment, words in enumerate(("reading the outcomes", "training on")):
            with deployment.learning("--least", "50", "--owner", "the-same") as process:
                until_said(process, words)
                teacher.report(answers[120 + 60 * moment : 180 + 60 * moment], time.time())
                time.sleep(rng.uniform(0.0, (0.1, 2.0)[moment]))
                process.kill()
        teacher.report(answers[240:], time.time())
    told = last_json(deployment.learn("--once", "--json", "--least", NEVER, "--owner", "the-same"))
    expected = taken_once(deployment.store)
    assert expected == {"outcomes": 300, "decisions": 300, "waiting": 0}
    assert {name: told["counts"][name] for name in expected} == expected


def test_what_it_learned_is_served_by_a_running_server(embedded: Deployment, tmp_path: Path) -> None:
    deployment = embedded
    with teaching(deployment.state_dir, deployment.store) as teacher:
        teacher.report(teacher.decide(ENOUGH), time.time())
    done = deployment.learn("--once")
    assert done.returncode == 0, done.stderr
    assert "policy 1 is served" in done.stdout
    assert f"{ENOUGH} outcomes of {ENOUGH} decisions; 0 since the last training" in done.stdout
    shelf = StoreShelf(deployment.store, time.time)
    assert shelf.current() == 1
    assert shelf.load(1).card["verdict"]["publish"] is True
    assert shelf.switches()[-1].by == "learner"
    status = deployment.status()
    assert status is not None
    assert (status.doing, status.policy, status.counts["outcomes"]) == ("ended", 1, ENOUGH)
    assert status.training is not None
    assert status.training.tasks > 100
    assert [verdict.policy for verdict in status.verdicts] == [1]
    assert deployment.store.lease_owner("learner") is None

    with serving(tmp_path) as server:
        body = {"request": {"prompt": "Write a parser"}, "quantum_config": {"timeout_ms": 1000}}
        answer = patient.post(server.url + "/v1/quantum/route", json=body).json()
        assert answer["policy_version"] == 1
        told = patient.get(server.url + "/v1/quantum/training").json()
        assert (told["learner"]["doing"], told["learner"]["verdicts"][0]["policy"]) == ("ended", 1)


def test_one_is_active_and_the_next_takes_over_when_it_ends(embedded: Deployment) -> None:
    with embedded.learning("--least", NEVER) as first:
        until_said(first, "reading")
        with embedded.learning("--least", NEVER) as second:
            until_said(second, "waiting")
            refused = embedded.learn("--once")
            assert refused.returncode == 1
            assert "is the active learner" in refused.stderr
            assert "Traceback" not in refused.stderr
            owner = embedded.store.lease_owner("learner")
            first.send_signal(signal.SIGTERM)
            until_said(second, "reading")
            assert first.wait(PATIENCE_S) == 0
            assert embedded.store.lease_owner("learner") not in (None, owner)
            second.send_signal(signal.SIGINT)
            assert second.wait(PATIENCE_S) == 0
            assert second.stdout is not None
            assert "Traceback" not in second.stdout.read()


def test_the_server_starts_one_restarts_it_and_takes_it_along(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", "--learn") as server:
        eventually(lambda: learners_of(server.process.pid))
        (pid,) = learners_of(server.process.pid)
        eventually(lambda: os.getpriority(os.PRIO_PROCESS, pid) == 19)
        with suppress(PermissionError):  # it yields to everybody, and the machine may be busy for long
            os.setpriority(os.PRIO_PROCESS, pid, 0)
        eventually(lambda: patient.get(server.url + "/v1/quantum/training").json()["alive"])
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: learners_of(server.process.pid) not in ([], [pid]))
        eventually(lambda: "started again" in server.said())
        (successor,) = learners_of(server.process.pid)
        assert patient.post(server.url + "/v1/quantum/route", json={"request": {"prompt": "x"}}).status_code == 200
        server.process.kill()  # it has no time to end its learner
        server.process.wait()
        eventually(lambda: not words_of(successor))


def test_the_server_ends_its_learner_and_can_do_without(tmp_path: Path) -> None:
    with serving(tmp_path, settings={"MONKEY_CODER_LEARN": "true"}) as server:
        eventually(lambda: learners_of(server.process.pid))
        (pid,) = learners_of(server.process.pid)
        server.end(signal.SIGINT)
        assert not Path(f"/proc/{pid}").exists()
        assert "Traceback" not in server.said()
    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other", "--no-learn", settings={"MONKEY_CODER_LEARN": "true"}) as server:
        assert patient.get(server.url + "/v1/quantum/training").json()["enabled"] is False
        assert learners_of(server.process.pid) == []


def learners_of(pid: int) -> list[int]:
    """Children of a process that learn, whichever of its threads started them."""
    children = b" ".join(told_of(each) for each in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for child in children.split() if b"learn" in words_of(int(child))]


def words_of(pid: int) -> list[bytes]:
    """The command line of a process; empty once it has ended, whether or not anybody asked how."""
    return told_of(Path(f"/proc/{pid}/cmdline")).split(b"\0")[:-1]


def told_of(file: Path) -> bytes:
    """What a file of the system says of a process or thread; nothing once that is gone."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
