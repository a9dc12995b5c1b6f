"""The short way of the hot endpoints, spoken to by hand: it answers as the long way does, in order, none in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from contract import ROUTE
from held import PATIENCE_S, Held, holding
from uvicorn.server import ServerState

from monkey_coder.api_keys import new_key
from monkey_coder.app.feedback import FEEDBACK_PATH as FEEDBACK
from monkey_coder.app.http_protocol import RoutingProtocol
from monkey_coder.key_ring import add_key, change_key


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Wire:
    """One connection of a caller."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, prompt: str | bytes, *headers: str, target: str = ROUTE, version: str = "1.1") -> None:
        """Send a request for a prompt, or with just this body."""
        body = prompt if isinstance(prompt, bytes) else body_of(prompt)
        lines = [f"POST {target} HTTP/{version}", "host: router", f"content-length: {len(body)}", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    async def answer(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status_line.split()[1]), headers, json.loads(body) if body else None)

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""


@dataclass
class Place:
    """A listening server in this event loop."""

    held: Held
    state: ServerState
    port: int
    wires: list[Wire] = field(default_factory=list)

    async def wire(self) -> Wire:
        self.wires.append(Wire(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.wires[-1]

    async def at_work(self, prompt: str) -> None:
        """Until a request has left the queue for the engine, which is held."""
        await eventually(lambda: prompt in self.held.begun)

    async def waiting(self, count: int) -> None:
        """Until so many requests wait behind the one at work."""
        await eventually(lambda: len(self.held.engine.batcher) == count)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


@asynccontextmanager
async def place(state_dir: Path, *, held: bool = True, **settings: Any) -> AsyncIterator[Place]:
    async with holding(state_dir, **settings) as house:
        if not held:
            house.release.set()
        # Its logging is the whole process's, and other tests read what is logged.
        config = uvicorn.Config(house.front, lifespan="off", log_config=None, log_level=None, proxy_headers=False)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: RoutingProtocol(config, state, {}), "127.0.0.1", 0
        )
        opened = Place(house, state, server.sockets[0].getsockname()[1])
        try:
            yield opened
        finally:
            house.release.set()
            server.close()
            for wire in opened.wires:
                wire.writer.close()
                with suppress(ConnectionError):
                    await wire.writer.wait_closed()
            await eventually(lambda: not state.connections and not state.tasks)


def body_of(prompt: str, **options: Any) -> bytes:
    return json.dumps({"request": {"prompt": prompt}, "quantum_config": {"cache": "bypass"} | options}).encode()


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as opened:
        yield opened


@pytest.fixture
async def free(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path, held=False) as opened:
        yield opened


LONG_WAY = f"{ROUTE}?"
"""The same to the application, and not as plain as the short way wants it."""

LONG_FEEDBACK = f"{FEEDBACK}?"
JSON = "content-type: application/json"

FAULTY = {
    "nothing": b"",
    "half": b'{"request": {"prom',
    "no request": b"{}",
    "an unknown field": b'{"request": {"prompt": "x", "colour": "red"}}',
    "an unknown model": b'{"request": {"prompt": "x", "allowed_models": ["no/such"]}}',
    "nothing is left": b'{"request": {"prompt": "x"}, "preferences": {"max_cost_usd": 1e-12}}',
    "too large": b" " * 2_000_000,
}


@pytest.mark.parametrize("what", FAULTY)
async def test_both_ways_tell_a_mistake_in_the_same_words(free: Place, what: str) -> None:
    wire, other = await free.wire(), await free.wire()
    wire.ask(FAULTY[what])
    other.ask(FAULTY[what], target=LONG_WAY)
    short, long = await wire.answer(), await other.answer()
    assert short.status >= 400
    assert (short.status, short.headers, short.body) == (long.status, long.headers, long.body)
    wire.ask("and the connection is good for more")
    assert (await wire.answer()).status == 200


FAULTY_REPORTS = {
    "nothing": (b"", JSON),
    "half": (b'{"decision_id": "x', JSON),
    "says nothing": (b'{"decision_id": "x"}', JSON),
    "a forged id": (b'{"decision_id": "x", "success": true}', JSON),
    "a form": (b'{"decision_id": "x", "success": true}', "content-type: text/plain"),
    "no type": (b'{"decision_id": "x", "success": true}', "accept: */*"),
    "too large": (b" " * 2_000_000, JSON),
}


@pytest.mark.parametrize("what", FAULTY_REPORTS)
async def test_both_ways_tell_what_is_wrong_with_a_report_in_the_same_words(free: Place, what: str) -> None:
    body, header = FAULTY_REPORTS[what]
    wire, other = await free.wire(), await free.wire()
    wire.ask(body, header, target=FEEDBACK)
    other.ask(body, header, target=LONG_FEEDBACK)
    short, long = await wire.answer(), await other.answer()
    assert short.status >= 400
    assert (short.status, short.headers, short.body) == (long.status, long.headers, long.body)
    wire.ask("and the connection is good for more")
    assert (await wire.answer()).status == 200


async def test_a_report_is_taken_once_whichever_way_it_comes(free: Place) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    said = json.dumps({"decision_id": decision_id, "outcome_id": "mine", "success": True}).encode()
    for target, status in ((FEEDBACK, 202), (LONG_FEEDBACK, 200), (FEEDBACK, 200)):
        wire.ask(said, JSON, target=target)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (status, {"accepted": True})
        assert answer.headers["content-type"] == "application/json"
        assert [row.outcome_id for row in free.held.engine.store.outcomes_of(decision_id)] == ["anonymous:mine"]


async def test_reports_sent_in_one_go_with_requests_are_answered_in_order(free: Place) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    for number in range(6):
        if number % 2:
            wire.ask(f"request {number}")
        else:
            said = {"decision_id": decision_id, "outcome_id": f"o{number}", "success": True}
            wire.ask(json.dumps(said).encode(), JSON, target=FEEDBACK)
    assert [(await wire.answer()).status for _ in range(6)] == [202, 200] * 3


async def test_a_report_whose_sender_hangs_up_is_stored_all_the_same(free: Place) -> None:
    wire, leaves = await free.wire(), await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    leaves.ask(json.dumps({"decision_id": decision_id, "success": True}).encode(), JSON, target=FEEDBACK)
    await leaves.writer.drain()
    leaves.writer.close()
    await eventually(lambda: len(free.held.engine.store.outcomes_of(decision_id)) == 1)
    wire.ask("and others are served")
    assert (await wire.answer()).status == 200


async def test_what_breaks_while_a_report_is_taken_is_told_without_details(
    free: Place, caplog: pytest.LogCaptureFixture
) -> None:
    wire = await free.wire()
    wire.ask("x")
    decision_id = (await wire.answer()).body["decision_id"]
    free.held.engine.reports.put = None  # type: ignore[method-assign,assignment]
    wire.ask(json.dumps({"decision_id": decision_id, "success": True}).encode(), JSON, target=FEEDBACK)
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "NoneType" in caplog.text
    assert "NoneType" not in json.dumps(answer.body)


async def test_both_ways_decide(free: Place) -> None:
    wire = await free.wire()
    for target in (ROUTE, LONG_WAY):
        wire.ask("x", target=target)
        answer = await wire.answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.body["cache"] == "bypass"
    again = json.dumps(
        {"request": {"prompt": "again"}, "quantum_config": {"explore": False, "timeout_ms": 1000}}
    ).encode()
    wire.ask(again)
    first = await wire.answer()
    wire.ask(again)
    assert {(await wire.answer()).body["model"], first.body["model"]} == {first.body["model"]}
    assert free.held.outcome("decided") == 4


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


@pytest.mark.parametrize("target", [ROUTE, LONG_WAY])
async def test_an_answer_that_cannot_be_written_is_told_as_such_and_spares_the_next(free: Place, target: str) -> None:
    cache = free.held.engine.caching.cache
    good, cache.decide = cache.decide, lambda _: [{"odd": object()}]  # type: ignore[method-assign]
    wire = await free.wire()
    wire.ask("x", target=target)
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    cache.decide = good  # type: ignore[method-assign]
    wire.ask("y", target=target)
    assert (await wire.answer()).status == 200
    assert (free.held.outcome("internal_error"), free.held.outcome("decided")) == (1, 1)


async def test_what_breaks_inside_is_told_without_details(free: Place, caplog: pytest.LogCaptureFixture) -> None:
    free.held.engine.batcher.put = None  # type: ignore[method-assign,assignment]
    wire = await free.wire()
    wire.ask("x")
    answer = await wire.answer()
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert "NoneType" in caplog.text
    assert "NoneType" not in json.dumps(answer.body)


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
