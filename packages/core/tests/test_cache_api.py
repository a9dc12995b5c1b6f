"""The cache end to end: over HTTP, between processes, and through the log, explanations and feedback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import patient
import pytest
from contract import ROUTE, ask, ref_of
from redis_process import running_redis
from servers import PATIENCE_S, Server, serving

SOON_S = PATIENCE_S
ALONE = {"MONKEY_CODER_LEARN": "false"}
"""No learner beside the server: none of this needs one."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        serving(tmp_path_factory.mktemp("cached"), settings=ALONE) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as opened,
    ):
        yield opened


def soon(look: Any) -> Any:
    until = time.monotonic() + SOON_S
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def shown(client: httpx.Client, path: str) -> Any:
    def look() -> Any:
        response = client.get(path)
        return response.json() if response.status_code == 200 else None

    return soon(look)


def twice(client: httpx.Client, prompt: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = (ask(client, request={"prompt": prompt}, quantum_config=options) for _ in range(2))
    return first, second


def test_the_second_answer_is_the_first_under_another_id(client: httpx.Client) -> None:
    first, second = twice(client, "Find the leak in our connection pool")
    assert (first["cache"], second["cache"]) == ("miss", "local")
    own = {"decision_id", "episode_id", "cache", "execution_time_ms"}
    assert {k: v for k, v in first.items() if k not in own} == {k: v for k, v in second.items() if k not in own}
    assert first["decision_id"] != second["decision_id"]


def test_a_hit_can_be_looked_up_and_explained_like_the_decision_it_repeats(client: httpx.Client) -> None:
    first, second = twice(client, "Explain why this join is slow")
    view = shown(client, f"/v1/quantum/decisions/{second['decision_id']}")
    assert view["decision"]["cache"] == "local" if "decision" in view else True
    explained = [shown(client, f"/v1/quantum/decisions/{each['decision_id']}/explain") for each in (first, second)]
    assert explained[0]["why"] == explained[1]["why"]
    assert explained[0]["strategies"] == explained[1]["strategies"]
    assert explained[1]["served"] == ref_of(second)


def test_feedback_about_a_hit_is_learned_from_and_ends_its_entry(client: httpx.Client) -> None:
    first, second = twice(client, "Port the build to the new compiler")
    report = {"decision_id": second["decision_id"], "success": False}
    assert client.post("/v1/quantum/feedback", json=report).status_code == 202

    def decided_anew() -> bool:
        answer = ask(client, request={"prompt": "Port the build to the new compiler"})
        return bool(answer["cache"] == "miss" and answer["expected"] != first["expected"])

    soon(decided_anew)


def test_bypass_refresh_and_batches(client: httpx.Client) -> None:
    prompt = {"prompt": "Rename the module everywhere"}
    modes = ["bypass", "use", "use", "refresh", "bypass"]
    answers = [ask(client, request=prompt, quantum_config={"cache": mode})["cache"] for mode in modes]
    assert answers == ["bypass", "miss", "local", "miss", "bypass"]
    body = {"request": prompt, "quantum_config": {"timeout_ms": 1000, "explore": False}}
    response = client.post(f"{ROUTE}/batch", json={"requests": [body, body]})
    assert [each["decision"]["cache"] for each in response.json()["results"]] == ["local", "local"]


def test_hits_are_counted(client: httpx.Client) -> None:
    twice(client, "Count this one")

    def told() -> bool:
        text = client.get("/metrics").text
        hits = 'quantum_cache_requests_total{result="hit",tier="local"}' in text
        return hits and 'quantum_route_duration_seconds_count{cache="local"}' in text

    soon(told)


def test_what_one_instance_decided_another_gives_and_both_outlive_their_redis(tmp_path: Path) -> None:
    for name in ("redis", "a", "b"):
        (tmp_path / name).mkdir()
    shared = "shared:" + "5e" * 32
    with running_redis(tmp_path / "redis") as redis:
        settings = ALONE | {
            "MONKEY_CODER_REDIS_URL": redis.url,
            "MONKEY_CODER_CACHE_KEY": shared,
            "MONKEY_CODER_CACHE_WAIT_MS": "1000",
        }
        with serving(tmp_path / "a", settings=settings) as a, serving(tmp_path / "b", settings=settings) as b:
            soon(lambda: all(shared_tier(server)["entries"] is not None for server in (a, b)))
            assert route(a, "Fix the shared cache")["cache"] == "miss"
            soon(lambda: shared_tier(a)["entries"])  # written behind the answer
            assert route(b, "Fix the shared cache")["cache"] == "redis"
            assert route(b, "Fix the shared cache")["cache"] == "local"
            redis.kill()
            degraded = [route(server, f"While it is dead {n}")["degraded"] for n in range(3) for server in (a, b)]
            assert all("redis" in each for each in degraded)
            assert "redis" in route(a, "Fix the shared cache")["degraded"]


def shared_tier(server: Server) -> dict[str, Any]:
    """What a server tells of what it shares with others."""
    told: dict[str, Any] = patient.get(f"{server.url}/v1/quantum/cache").raise_for_status().json()["redis"]
    return told


def route(server: Server, prompt: str) -> dict[str, Any]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        return ask(client, request={"prompt": prompt})
