"""The decision cache of real servers: seen and cleared over HTTP and from the command line, shared through Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_process import RedisProcess, running_redis
from servers import PATIENCE_S, Server, command, eventually, serving

PROMPT = "Sort the rows of the report by their third column in ascending order"
EXPLORES_NOT = {"explore": False, "timeout_ms": 1000}


def route(server: Server, prompt: str = PROMPT) -> dict[str, Any]:
    body = {"request": {"prompt": prompt}, "quantum_config": EXPLORES_NOT}
    answer = httpx.post(f"{server.url}/v1/quantum/route", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(server: Server) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/v1/quantum/cache", timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cached(server: Server, prompt: str = PROMPT) -> str:
    """Ask until the answer comes from the cache, and say from which tier."""
    answers: list[str] = []

    def ask() -> bool:
        answers.append(route(server, prompt)["cache"])
        return answers[-1] != "miss"

    eventually(ask)
    return answers[-1]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder, "--save", "") as server:
        yield server


def test_the_cache_of_one_server(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with serving(tmp_path / "one") as server:
        assert cached(server) == "local"
        similar = route(server, f"Could you please {PROMPT[0].lower()}{PROMPT[1:]}? Thanks!")
        assert similar["cache"] == "similar"
        assert route(server, PROMPT.replace("third", "fourth"))["cache"] == "miss"
        assert route(server, PROMPT.replace("ascending", "descending"))["cache"] == "miss"
        report = told(server)
        assert report["local"]["entries"] >= 1
        assert report["similar"]["hit"] == 1
        assert report["redis"] is None

        failed = {"decision_id": similar["decision_id"], "success": False}
        reported = httpx.post(f"{server.url}/v1/quantum/feedback", json=failed, timeout=PATIENCE_S)
        assert reported.status_code == 202
        eventually(lambda: told(server)["local"].get("invalidated", 0) >= 1)

        assert cached(server) == "local"
        cleared = httpx.delete(f"{server.url}/v1/quantum/cache", timeout=PATIENCE_S)
        assert cleared.json()["cleared"]["local"] >= 1
        assert route(server)["cache"] == "miss"
        assert httpx.delete(f"{server.url}/v1/quantum/cache?tier=nothing", timeout=PATIENCE_S).status_code == 422

        shown = command(server.state_dir, "cache", "stats", "--url", server.url, "--json")
        assert (shown.returncode, json.loads(shown.stdout)["on"]) == (0, True)
        assert "local" in command(server.state_dir, "cache", "stats", "--url", server.url).stdout
        assert cached(server) == "local"
        ordered = command(server.state_dir, "cache", "clear", "--json")
        assert (ordered.returncode, list(json.loads(ordered.stdout))) == (0, ["order"])
        eventually(lambda: told(server)["local"]["entries"] == 0)


def test_what_one_server_learned_to_cache_the_other_hits(tmp_path: Path, redis: RedisProcess) -> None:
    settings = {
        "MONKEY_CODER_REDIS_URL": redis.url,
        "MONKEY_CODER_CACHE_KEY": "shared:" + "ab" * 32,
        "MONKEY_CODER_CACHE_WAIT_MS": "1000",
    }
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "here", settings=settings) as here, serving(tmp_path / "there", settings=settings) as there:
        assert cached(here) == "local"
        eventually(lambda: (told(here)["redis"]["entries"] or 0) >= 2)  # the entry, and its place in the index
        assert route(there, f"Please {PROMPT[0].lower()}{PROMPT[1:]}!")["cache"] == "similar"
        assert route(there, PROMPT)["cache"] in ("local", "redis")
        assert route(there, PROMPT.replace("third", "fourth"))["cache"] == "miss"
        redis_told = told(there)["redis"]
        assert redis_told["bytes"] > 1000
        assert any("maxmemory is not set" in advice for advice in redis_told["advice"])
        keys = redis.client().keys("*")
        assert not any(b"rows" in (redis.client().get(key) or b"") for key in keys if b"cache" in key), "no text"

        done = command(here.state_dir, "cache", "clear", settings=settings)
        assert done.returncode == 0, done.stderr
        assert "keys of the cache in Redis are gone" in done.stdout
        for server in (here, there):
            eventually(lambda server=server: told(server)["local"]["entries"] == 0)


def test_commands_say_what_is_wrong(tmp_path: Path) -> None:
    state = tmp_path / "state"
    nobody = command(state, "cache", "stats", "--url", "http://127.0.0.1:9")
    assert nobody.returncode == 1
    assert "no server answers at http://127.0.0.1:9" in nobody.stderr
    assert "--url" in nobody.stderr
    assert command(state, "cache", "stats", "--url", "somewhere").returncode == 2
    without = command(state, "cache", "clear", "--tier", "redis")
    assert without.returncode == 2
    assert "MONKEY_CODER_REDIS_URL is not set" in without.stderr
