"""A session's requests may reach any worker process of any host: it keeps its model, store or no store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from contract import ROUTE, ask, ref_of
from redis_process import running_redis
from servers import PATIENCE_S, Server, eventually, serving

from monkey_coder.app.hot_path import respond
from monkey_coder.bootstrap import MOST_SHARED_SESSIONS, Engine, open_engine
from monkey_coder.caching import keyring
from monkey_coder.deployment import local_secret
from monkey_coder.quantum.shared_sessions import FRESH_S
from monkey_coder.settings import Settings
from monkey_coder.storage.last_uses import open_last_uses

LONG = {"input_tokens": 20_000, "expected_output_tokens": 10}
WORTH: dict[str, Any] = {"value_usd": 0.01}
"""With so much in the provider's cache, leaving the model costs more than any other model brings."""


def test_a_session_keeps_its_model_whichever_worker_answers(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", settings={"MONKEY_CODER_SESSION_WAIT_MS": "1000"}) as server:
        eventually(lambda: server.said().count("Application startup complete") == 2)
        warm_up = (f"warm-up {number}" for number in count())
        eventually(lambda: kept(server, begin(server, [next(warm_up)])))  # each opens what they share a little later
        assert kept(server, begin(server, [f"session {number}" for number in range(6)]))


def begin(server: Server, sessions: Sequence[str]) -> dict[str, str]:
    """Begin sessions with another model than the usual one; returns the model of each, once all can know of it."""
    begun: dict[str, str] = {}
    for session in sessions:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            usual = ref_of(ask(client, request=LONG, preferences=WORTH))
            request = {"session_id": session, "excluded_models": [usual], **LONG}
            begun[session] = ref_of(ask(client, request=request, preferences=WORTH))
        assert begun[session] != usual
    until_shared(Settings(state_dir=server.state_dir), begun)
    return begun


def kept(server: Server, begun: Mapping[str, str]) -> bool:
    """Whether these sessions keep their models."""
    for _ in range(12):  # each connection goes to whichever worker is first; all to one: once in 2,000 times
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            for session, ref in begun.items():
                answer = ask(client, request={"session_id": session, **LONG}, preferences=WORTH)
                if ref_of(answer) != ref:
                    return False
    return True


def until_shared(settings: Settings, last: Mapping[str, str]) -> None:
    """Wait until every process can find that these models were used last by these sessions."""
    keys = keyring(settings, local_secret(settings.state_dir))
    asked = [keys.digest(b"session", session.encode()) for session in last]
    wanted = [ref.encode() for ref in last.values()]
    place = settings.state_dir, settings.redis_url
    with closing(open_last_uses(*place, time.time, settings.session_ttl_s, MOST_SHARED_SESSIONS)) as uses:
        eventually(lambda: [use and use.value for use in uses.last_uses(asked)] == wanted)


@pytest.fixture(params=["sqlite", "redis"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Settings]]:
    """Settings of two processes of one deployment."""
    with ExitStack() as stack:
        shared: dict[str, Any] = {"session_wait_ms": 1000.0, "learn": False, "max_wait_s": PATIENCE_S}
        if request.param == "redis":
            url = stack.enter_context(running_redis(tmp_path, "--appendonly", "no")).url
            shared |= {"redis_url": url, "cache_key": f"test:{'5a' * 32}"}
            yield [Settings(state_dir=tmp_path / name, **shared) for name in ("a", "b")]
        else:
            yield [Settings(state_dir=tmp_path / "state", **shared) for _ in range(2)]


async def asked(engine: Engine, session: str | None, **request: Any) -> dict[str, Any]:
    body = {
        "request": {"prompt": "Fix the race condition.", "session_id": session, **LONG, **request},
        "preferences": WORTH,
        "quantum_config": {"explore": False, "timeout_ms": 1000},
    }
    response = await respond(orjson.dumps(body), engine, _never)
    assert response.status_code == 200, response.body
    answer: dict[str, Any] = orjson.loads(response.body)
    return answer


async def _never() -> Any:
    await asyncio.Event().wait()


def test_a_session_keeps_its_model_on_another_host_and_in_the_cache(hosts: list[Settings]) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(open_engine(host)) for host in hosts]
            sessions = [engine.manager.sessions for engine in (one, other)]
            await asyncio.to_thread(eventually, lambda: not any(memory.failing for memory in sessions))
            usual = ref_of(await asked(one, None))
            first = ref_of(await asked(one, "s", excluded_models=[usual]))
            assert first != usual
            assert ref_of(await asked(other, None)) == usual
            assert ref_of(await asked(other, "new session")) == usual
            await asyncio.to_thread(until_shared, hosts[0], {"s": first})
            for _ in range(3):  # the first is looked up and decided; the others may come from the cache
                assert ref_of(await asked(other, "s")) == first
            moved = ref_of(await asked(other, "s", excluded_models=[first, usual]))
            assert moved not in (first, usual)
            await asyncio.to_thread(until_shared, hosts[0], {"s": moved})
            await asyncio.sleep(FRESH_S)
            assert ref_of(await asked(one, "s")) == moved

    asyncio.run(story())


def test_each_process_keeps_its_own_sessions_where_nothing_is_shared(tmp_path: Path) -> None:
    async def story() -> None:
        settings = Settings(state_dir=tmp_path, learn=False, session_ttl_s=0.0, max_wait_s=PATIENCE_S)
        async with open_engine(settings) as one, open_engine(settings) as other:
            usual = ref_of(await asked(one, None))
            first = ref_of(await asked(one, "s", excluded_models=[usual]))
            assert (ref_of(await asked(one, "s")), ref_of(await asked(other, "s"))) == (first, usual)
        assert not (tmp_path / "sessions.sqlite3").exists()

    asyncio.run(story())


def test_a_server_whose_sessions_cannot_be_shared_goes_on_by_its_own(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "sessions.sqlite3").write_bytes(b"this is a shopping list, and no database" * 100)
    with serving(tmp_path) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        usual = ref_of(ask(client, request=LONG, preferences=WORTH))
        first = ref_of(ask(client, request={"session_id": "s", "excluded_models": [usual], **LONG}, preferences=WORTH))
        assert client.post(ROUTE, json={"request": {"prompt": "Hello.", "session_id": "t"}}).status_code == 200
        for path in (ROUTE, "/v1/route"):
            assert ref_of(ask(client, path, request={"session_id": "s", **LONG}, preferences=WORTH)) == first
        eventually(lambda: "sessions are left to each process for a while" in server.said())
        eventually(lambda: "move the file" in server.said())
        assert "Traceback" not in server.said()
