"""The web process as the operating system sees it: what it loads, how it starts, how it stops, and two of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import patient
import pytest
from servers import PATIENCE_S, Server, command, environment, eventually, serving

from monkey_coder.deployment import SECRET_BYTES, local_secret
from monkey_coder.quantum.identifiers import SignedIds

ROUTE = "/v1/quantum/route"
BODY = json.dumps({"request": {"prompt": "Fix the race in our LRU cache"}}).encode()

ROUTE_ONCE = """
import asyncio, json, os, sys
from pathlib import Path
from monkey_coder.app.main import create_app
from monkey_coder.bootstrap import open_engine
from monkey_coder.models import ExecuteRequest, RouteRequest
from monkey_coder.settings import Settings

async def once():
    settings = Settings.from_environment(os.environ)
    create_app(settings)
    async with open_engine(settings) as engine:
        answer = await engine.batcher.submit(RouteRequest(request=ExecuteRequest(prompt="Fix it")))
        decision = json.loads(answer) if isinstance(answer, bytes) else answer  # what was explored is not cached
        assert decision["model"], answer

asyncio.run(once())
print(" ".join(name for name in ("torch", "matplotlib", "scipy.stats", "redis") if name in sys.modules))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


def test_a_fresh_server_is_small_and_a_second_one_on_its_port_gives_way(server: Server) -> None:
    assert server.resident_bytes() < 200_000_000
    second = command(server.state_dir, "serve", "--port", str(server.port))
    assert (second.returncode, second.stdout) == (2, "")
    assert f"cannot listen on 127.0.0.1:{server.port}" in second.stderr
    assert "--port" in second.stderr
    assert second.stderr.count("\n") == 1
    assert patient.post(server.url + ROUTE, content=BODY).status_code == 200


def test_routing_loads_nothing_that_is_heavy_and_not_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUTE_ONCE],
        env=environment(tmp_path / "state"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == ""


@dataclass
class Load:
    """Callers that route without a pause until the server is gone."""

    server: Server
    answered: int = 0
    broken: list[str] = field(default_factory=list)
    under_way: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while True:
                try:
                    response = client.post(self.server.url + ROUTE, content=BODY)
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError):
                    return  # nobody took the request
                except httpx.RemoteProtocolError as error:
                    if "without sending a response" not in str(error):  # then part of an answer came
                        self.broken.append(str(error))
                    return
                if response.status_code != 200 or "decision_id" not in response.json():
                    self.broken.append(response.text)
                self.answered += 1
                if self.answered > 50:
                    self.under_way.set()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_under_load_it_finishes_what_it_accepted_and_ends(server: Server, how: signal.Signals) -> None:
    load = Load(server)
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: r\r\nexpect: 100-continue\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
    with ExitStack() as stack, ThreadPoolExecutor(4) as callers:
        for _ in range(4):
            callers.submit(load.call)
        assert load.under_way.wait(PATIENCE_S)
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(10)]
        for connection in held:
            connection.settimeout(PATIENCE_S)
            connection.sendall(head)
        for connection in held:  # the server has these ten requests in hand, and waits for their bodies
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(how)
        eventually(lambda: not accepts(server.port))
        for connection in held:
            connection.sendall(BODY)
        for connection in held:
            answer = b"".join(iter(lambda c=connection: c.recv(65_536), b""))  # to the end: the server closes
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["decision_id"]
        code = server.process.wait(PATIENCE_S)
    assert code == (0 if how == signal.SIGINT else -how)  # -how is what init systems expect after their SIGTERM
    assert load.broken == []
    assert "Traceback" not in server.said()


def test_idle_it_stops_at_once_and_its_successor_knows_its_ids(tmp_path: Path) -> None:
    with serving(tmp_path) as first, httpx.Client(timeout=PATIENCE_S) as client:  # whose connection is kept alive
        made = client.post(first.url + ROUTE, content=BODY).json()["decision_id"]
        secret = (first.state_dir / "secret").read_bytes()
        first.end()
        assert "Traceback" not in first.said()
    with serving(tmp_path) as second:
        assert patient.post(second.url + ROUTE, content=BODY).status_code == 200
        assert (second.state_dir / "secret").read_bytes() == secret
    assert SignedIds(secret, time.time, os.urandom).issued_at(made) == pytest.approx(time.time(), abs=PATIENCE_S)


def test_two_workers_serve_with_one_secret_and_stop_together(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server, ThreadPoolExecutor(8) as callers:
        eventually(lambda: server.said().count("Application startup complete") == 2)
        workers = children(server.process.pid)
        answers = list(callers.map(lambda _: patient.post(server.url + ROUTE, content=BODY), range(21)))
        signed = SignedIds((server.state_dir / "secret").read_bytes(), time.time, os.urandom)
        assert all(signed.issued_at(answer.json()["decision_id"]) for answer in answers)
        eventually(lambda: {decided(server) for _ in range(8)} == {21})  # whichever process is asked adds up both
        assert server.end() in (0, -signal.SIGTERM)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        assert not accepts(server.port)
    assert "Traceback" not in server.said()


def decided(server: Server) -> int:
    """Decisions of all processes, as counted by whichever answers on a new connection."""
    found = re.search(r'^quantum_route_requests_total{outcome="decided"} (\d+)', metrics_of(server), re.MULTILINE)
    return int(found[1]) if found else 0


def metrics_of(server: Server) -> str:
    return patient.get(server.url + "/metrics").text


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_processes_that_start_at_once_agree_on_one_secret_for_this_user_alone(tmp_path: Path) -> None:
    state, at_once = tmp_path / "deep" / "state", threading.Barrier(16)

    def open_() -> bytes:
        at_once.wait()
        return local_secret(state)

    with ThreadPoolExecutor(16) as processes:
        secrets = {future.result() for future in [processes.submit(open_) for _ in range(16)]}
    assert len(secrets) == 1
    assert len(secrets.pop()) == SECRET_BYTES
    assert [path.name for path in state.iterdir()] == ["secret"]
    assert stat.S_IMODE((state / "secret").stat().st_mode) == 0o600
