"""A server that started while its store was away: it decides, says what is missing, and mends itself over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from contract import ROUTE, ask
from redis_process import RedisProcess
from servers import PATIENCE_S, eventually, serving

DECISIONS = "/v1/quantum/decisions"
FRONT_DOOR = "/v1/route"


def logged(client: httpx.Client, decision_id: str) -> bool:
    return client.get(f"{DECISIONS}/{decision_id}").status_code == 200


def test_a_process_that_started_before_its_redis_recovers_by_itself(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    redis = RedisProcess(tmp_path / "redis")
    try:
        with (
            serving(tmp_path, settings={"MONKEY_CODER_REDIS_URL": redis.url}) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        ):
            early = ask(client)
            assert client.get(f"{DECISIONS}/{early['decision_id']}").status_code == 503
            eventually(lambda: "store" in ask(client)["degraded"], "no answer says that the store is failing")
            redis.start()
            eventually(lambda: logged(client, early["decision_id"]), "what waited for the store is not written")
            eventually(lambda: ask(client)["degraded"] == [], "answers go on to say that something is missing")
            assert logged_soon(client, ask(client))
            eventually(lambda: "could be opened now" in server.said())  # said after it is so
            assert "Traceback" not in server.said()
    finally:
        redis.kill()


def test_a_file_that_is_repaired_is_used_without_a_restart(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "store.sqlite3"
    file.write_bytes(b"this is a shopping list, and no database" * 100)
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        early = ask(client)
        assert client.get(f"{DECISIONS}/{early['decision_id']}").status_code == 503
        eventually(lambda: ask(client)["degraded"] == ["store"], "no answer says that the store is failing")
        say_so_everywhere(client)
        file.rename(tmp_path / "list")
        eventually(lambda: logged(client, early["decision_id"]), "what waited for the store is not written")


def logged_soon(client: httpx.Client, answer: dict[str, Any]) -> bool:
    eventually(lambda: logged(client, answer["decision_id"]), "a decision is not logged")
    return True


def say_so_everywhere(client: httpx.Client) -> None:
    """While the store fails, every route says so, and once: decided now, in a batch, from the cache, or by Gary8D."""
    plain = {"prompt": "Rename a variable.", "session_id": "s"}
    fresh = {"request": plain, "quantum_config": {"cache": "bypass"}}
    answers = [ask(client, FRONT_DOOR), ask(client, FRONT_DOOR, request={"prompt": "Fix a typo."})]
    answers += [ask(client, quantum_config={"cache": "bypass"})]
    response = client.post(f"{ROUTE}/batch", json={"requests": [fresh, {"request": plain}]})
    answers += [result["decision"] for result in response.json()["results"]]
    eventually(lambda: ask(client)["cache"] in ("local", "similar"), "the cache gives nothing again")
    answers.append(ask(client))
    for answer in answers:
        assert answer["degraded"].count("store") == 1, answer["degraded"]
