"""The short way of the hot endpoints, spoken to by hand: callers are answered in order, and none in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from contract import ROUTE
from held import PATIENCE_S
from wires import LONG_WAY, Place, Wire, body_of, eventually, place

from monkey_coder.api_keys import new_key
from monkey_coder.app.http_protocol import RoutingProtocol
from monkey_coder.key_ring import add_key, change_key


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as opened:
        yield opened


@pytest.fixture
async def free(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path, held=False) as opened:
        yield opened


async def test_who_hangs_up_is_withdrawn_in_the_moment_and_counted(busy: Place) -> None:
    first, leaves, last = [await busy.wire() for _ in range(3)]
    first.ask("first")
    await busy.at_work("first")
    leaves.ask("leaves")
    await busy.waiting(1)
    last.ask("last")
    await busy.waiting(2)
    leaves.writer.close()
    await eventually(lambda: busy.held.outcome("abandoned") == 1)
    assert not busy.held.release.is_set()
    busy.held.release.set()
    assert [(await wire.answer()).status for wire in (first, last)] == [200, 200]
    assert busy.held.decided == ["first", "last"]
    assert (busy.held.outcome("decided"), busy.held.outcome("abandoned")) == (2, 1)


async def test_who_hangs_up_in_the_middle_of_the_body_has_asked_nothing(free: Place) -> None:
    leaves, stays = await free.wire(), await free.wire()
    leaves.writer.write(f"POST {ROUTE} HTTP/1.1\r\nhost: r\r\ncontent-length: 100\r\n\r\n{{".encode())
    await leaves.writer.drain()
    await asyncio.sleep(0.02)
    leaves.writer.close()
    stays.ask("x")
    assert (await stays.answer()).status == 200
    assert (free.held.outcome("decided"), free.held.outcome("abandoned")) == (1, None)


async def test_what_is_sent_in_one_go_is_answered_in_order_by_whichever_way(busy: Place) -> None:
    wire = await busy.wire()
    targets = [ROUTE, LONG_WAY, ROUTE, ROUTE, LONG_WAY, ROUTE]
    for number, target in enumerate(targets):
        body = json.dumps({"request": {"prompt": "x"}, "episode": {"episode_id": f"e{number}"}})
        wire.ask(body.encode(), target=target)
    wire.writer.write(b"GET /healthz HTTP/1.1\r\nhost: r\r\n\r\n")
    await asyncio.sleep(0.05)
    busy.held.release.set()
    answers = [await wire.answer() for _ in range(len(targets) + 1)]
    assert [answer.body.get("episode_id") for answer in answers[:-1]] == [f"e{n}" for n in range(len(targets))]
    assert answers[-1].body["status"] == "ok"


@pytest.mark.parametrize("target", [ROUTE, LONG_WAY])
async def test_what_was_sent_behind_a_known_request_may_take_longer_than_an_idle_connection(
    tmp_path: Path, target: str
) -> None:
    async with place(tmp_path, explore=False, cache_check_rate=0.0) as busy:
        wire, known = await busy.wire(), json.dumps({"request": {"prompt": "known"}}).encode()
        busy.held.release.set()
        wire.ask(known)
        assert (await wire.answer()).body["cache"] == "miss"
        busy.held.release.clear()
        (connection,) = busy.state.connections
        connection.timeout_keep_alive = 0.05  # type: ignore[union-attr,assignment]  # seconds of idleness
        wire.ask(known)
        wire.ask("slow", target=target)
        assert (await wire.answer()).body["cache"] == "local"
        await asyncio.sleep(0.2)
        busy.held.release.set()
        assert (await wire.answer()).body["cache"] == "bypass"
        assert await wire.ended()  # idle at last


async def test_who_hangs_up_with_more_in_the_pipe_leaves_nothing_behind(busy: Place) -> None:
    wire, stays = await busy.wire(), await busy.wire()
    for number in range(3):
        wire.ask(f"{number}", target=ROUTE if number else LONG_WAY)
    await busy.at_work("0")
    stays.ask("stays")
    await busy.waiting(1)
    wire.writer.close()
    await asyncio.sleep(0.05)
    busy.held.release.set()
    assert (await stays.answer()).status == 200
    await eventually(lambda: len(busy.state.connections) == 1 and not busy.state.tasks)


@pytest.mark.parametrize(("headers", "version"), [(["connection: close"], "1.1"), ([], "1.0")])
async def test_a_caller_that_asks_for_no_more_is_let_go(free: Place, headers: list[str], version: str) -> None:
    wire = await free.wire()
    wire.ask("x", *headers, version=version)
    answer = await wire.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended()


async def test_a_body_in_pieces_is_one_body(free: Place) -> None:
    wire, body = await free.wire(), body_of("in many pieces")
    wire.writer.write(f"POST {ROUTE} HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    for start in range(0, len(body), 7):
        piece = body[start : start + 7]
        wire.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await asyncio.sleep(0.001)
    wire.writer.write(b"0\r\n\r\n")
    assert (await wire.answer()).status == 200


@pytest.mark.parametrize(("target", "first"), [(ROUTE, ""), (LONG_WAY, "{")])
async def test_a_full_queue_refuses_before_the_body_is_there(tmp_path: Path, target: str, first: str) -> None:
    async with place(tmp_path, max_queue=1) as busy:
        wires = [await busy.wire() for _ in range(3)]
        wires[0].ask("at work")
        await busy.at_work("at work")
        wires[1].ask("waits")
        await busy.waiting(1)
        wires[2].writer.write(f"POST {target} HTTP/1.1\r\nhost: r\r\ncontent-length: 52\r\n\r\n{first}".encode())
        refused = await wires[2].answer()
        assert (refused.status, refused.body["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert busy.held.outcome("overloaded") == 1
        wires[2].writer.write(b" " * (52 - len(first)))  # which nobody reads
        busy.held.release.set()
        assert [(await wire.answer()).status for wire in wires[:2]] == [200, 200]
        wires[2].ask("later")
        assert (await wires[2].answer()).status == 200


@pytest.mark.parametrize("target", [ROUTE, LONG_WAY])
async def test_a_full_queue_keeps_nobody_from_what_the_cache_knows(tmp_path: Path, target: str) -> None:
    async with place(tmp_path, max_queue=1, explore=False, cache_check_rate=0.0) as busy:
        wires = [await busy.wire() for _ in range(3)]
        known = json.dumps({"request": {"prompt": "asked often"}}).encode()
        for count in range(3):  # decided, found, and found by its very bytes
            wires[2].ask(known, target=target)
            busy.held.release.set()
            assert (await wires[2].answer()).body["cache"] == ("local" if count else "miss")
        busy.held.release.clear()
        wires[0].ask("at work")
        await busy.at_work("at work")
        wires[1].ask("waits")
        await busy.waiting(1)
        wires[2].ask(known, target=target)
        assert (await wires[2].answer()).body["cache"] == "local"
        wires[2].ask("unknown", target=target)
        assert (await wires[2].answer()).status == 503
        assert (busy.held.outcome("overloaded"), busy.held.outcome("decided")) == (1, 4)


async def test_a_server_that_stops_answers_what_it_has_begun_and_closes(busy: Place) -> None:
    asks, idle = await busy.wire(), await busy.wire()
    asks.ask("x")
    await busy.at_work("x")
    await eventually(lambda: len(busy.state.connections) == 2)
    for connection in list(busy.state.connections):
        connection.shutdown()
    assert await idle.ended()
    busy.held.release.set()
    answer = await asks.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await asks.ended()


@pytest.mark.parametrize(("prompt_s", "again"), [(3_600.0, False), (-1.0, True)])
async def test_a_request_is_unprompted_unless_the_one_before_it_has_just_been_answered(
    free: Place, monkeypatch: pytest.MonkeyPatch, prompt_s: float, again: bool
) -> None:
    monkeypatch.setattr("monkey_coder.app.http_protocol.PROMPT_S", prompt_s)
    batcher, seen = free.held.engine.batcher, []
    put = batcher.put

    def noting(request: Any, waiting: Any, *, unprompted: bool = False) -> None:
        seen.append(unprompted)
        put(request, waiting, unprompted=unprompted)

    batcher.put = noting  # type: ignore[method-assign]
    wire = await free.wire()
    for prompt in ("first", "second"):
        wire.ask(prompt)
        assert (await wire.answer()).status == 200
    assert seen == [True, again]


async def test_who_sends_the_same_head_again_has_it_parsed_once_and_each_request_answered(free: Place) -> None:
    wire = await free.wire()
    for prompt in ("x", "xy", "a longer one", "x"):
        wire.ask(body_of(prompt, cache="use"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    (connection,) = free.state.connections
    assert connection.parser is not None
    assert connection._messages == 1  # type: ignore[union-attr]
    wire.ask(b"{}")
    assert (await wire.answer()).status == 422
    wire.ask("another", "x-further: header")
    assert (await wire.answer()).status == 200
    wire.ask("another", target="/healthz")
    assert (await wire.answer()).status == 405
    assert free.state.total_requests == 7
    assert free.held.outcome("decided") == 5


async def test_behind_a_known_head_come_pieces_and_several_at_once(free: Place) -> None:
    wire = await free.wire()
    wire.ask(body_of("first"))
    assert (await wire.answer()).status == 200
    wire.ask("second", target=ROUTE)
    wire.ask("third")
    await wire.writer.drain()
    assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
    body = body_of("fourth")
    wire.writer.write(f"POST {ROUTE} HTTP/1.1\r\nhost: router\r\ncontent-length: {len(body)}\r\n\r\n".encode())
    await asyncio.sleep(0.01)
    wire.writer.write(body)
    assert (await wire.answer()).status == 200
    assert free.held.decided[-4:] == ["first", "second", "third", "fourth"]


async def test_a_key_that_is_revoked_opens_nothing_although_its_head_is_known(free: Place) -> None:
    engine = free.held.engine
    kept, key = new_key("test", "client", 0.0)
    add_key(engine.store, kept)
    await eventually(lambda: engine.keys.table.required)
    wire = await free.wire()
    statuses = []
    for _ in range(3):
        wire.ask("mine", f"authorization: Bearer {key}")
        statuses.append((await wire.answer()).status)
    assert statuses == [200, 200, 200]
    change_key(engine.store, kept.id, lambda old: old.model_copy(update={"revoked_at": 1.0}))
    async with asyncio.timeout(PATIENCE_S):
        while (await wire_status(wire, f"authorization: Bearer {key}")) == 200:
            pass
    assert await wire_status(wire, f"authorization: Bearer {key}") == 401


async def wire_status(wire: Wire, header: str) -> int:
    wire.ask("mine", header)
    return (await wire.answer()).status


async def test_a_connection_is_closed_when_it_is_idle_and_not_while_it_is_used(busy: Place) -> None:
    wire = await busy.wire()
    wire.ask("first")
    await eventually(lambda: bool(busy.state.connections))
    (connection,) = busy.state.connections
    assert isinstance(connection, RoutingProtocol)
    await eventually(lambda: connection.cycle is not None)
    connection.timeout_keep_alive = 0.01  # type: ignore[assignment]  # seconds
    connection.timeout_keep_alive_handler()  # a request is under way
    busy.held.release.set()
    assert (await wire.answer()).status == 200
    assert await wire.ended()
    wire = await busy.wire()
    wire.ask("second")
    assert (await wire.answer()).status == 200
    (connection,) = busy.state.connections
    assert isinstance(connection, RoutingProtocol)
    connection.timeout_keep_alive_handler()  # it has been answered a moment ago
    wire.ask("third")
    assert (await wire.answer()).status == 200
