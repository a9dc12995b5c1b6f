"""What else arrives over HTTP: odd bytes, odd methods, bodies at the limit, broken insides; and what comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import PATIENT
from contract import EVERY_DEFAULT, PROMPT, ROUTE, ROUTES, changed, problem
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from servers import PATIENCE_S, Server, serving

from monkey_coder.app.main import create_app
from monkey_coder.bootstrap import Engine, open_engine
from monkey_coder.models import RouteRequest
from monkey_coder.settings import Settings
from monkey_coder.validation import from_validation

LIMIT = 1024 * 1024
MINIMAL = json.dumps({"request": {"prompt": PROMPT}}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("edges")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as running:
        yield running


@pytest.fixture(autouse=True)
def no_traceback_in_the_log(server: Server) -> Iterator[None]:
    yield
    assert "Traceback" not in server.said()


def sized(size: int) -> bytes:
    """A request whose body has exactly so many bytes."""
    frame = json.dumps({"request": {"prompt": ""}}).encode()
    return frame.replace(b'""', b'"' + b"word " * ((size - len(frame)) // 5) + b"x" * ((size - len(frame)) % 5) + b'"')


@dataclass
class Raw:
    """One TCP connection, with HTTP spoken by hand."""

    port: int

    def __enter__(self) -> Raw:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self._read = self._socket.makefile("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def post(self, body: bytes, *headers: str, path: str = ROUTE) -> None:
        lines = [f"POST {path} HTTP/1.1", "host: router", f"content-length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(lines).encode() + body)

    def receive(self) -> tuple[int, bytes]:
        """Status and body of the next answer; 0 when the connection was closed instead."""
        status_line = self._read.readline()
        if not status_line:
            return 0, b""
        headers = dict(
            line.decode().rstrip("\r\n").lower().split(": ", 1) for line in iter(self._read.readline, b"\r\n")
        )
        return int(status_line.split()[1]), self._read.read(int(headers.get("content-length", 0)))


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    with Raw(server.port) as connection:
        yield connection


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"request": {"prom',
    "two documents": MINIMAL + MINIMAL,
    "not utf-8": b'{"request": {"prompt": "\xff\xfe"}}',
    "utf-16": json.dumps({"request": {"prompt": "x"}}).encode("utf-16"),
    "a lone surrogate": b'{"request": {"prompt": "\\ud800 x"}}',
    "a lone low surrogate": b'{"request": {"prompt": "\\udc00"}}',
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"request":' * 20_000 + b"1" + b"}" * 20_000,
    "an endless integer": b'{"request": {"prompt": "x", "input_tokens": ' + b"9" * 6000 + b"}}",
    "single quotes": b"{'request': {'prompt': 'x'}}",
    "gzip": gzip.compress(MINIMAL),
    "a form": b"prompt=hello",
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_json_is_said_to_be_none(client: httpx.Client, path: str, name: str) -> None:
    headers = {"content-encoding": "gzip"} if name == "gzip" else {}
    document = problem(client.post(path, content=NOT_JSON[name], headers=headers), 400, "invalid_json")
    assert document["detail"].startswith("the body is not valid JSON: ")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"7", b"true"])
def test_json_that_is_no_object_is_refused(client: httpx.Client, path: str, body: bytes) -> None:
    assert problem(client.post(path, content=body), 422, "invalid_request")["errors"][0]["field"] == "body"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "prompt",
    ["\x00", "\U0001f600" * 1000, "\n\n\n", " ", "ไม่ทำงาน", "'; DROP TABLE x; --", "\u202eabc", "```" * 999],
)
def test_any_text_is_a_prompt(client: httpx.Client, path: str, prompt: str) -> None:
    assert client.post(path, json={"request": {"prompt": prompt}}).status_code == 200


def test_the_last_of_two_equal_keys_counts_as_in_every_json_library(client: httpx.Client) -> None:
    body = b'{"request": {"prompt": ""}, "request": {"prompt": "x"}}'
    assert client.post(ROUTE, content=body).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", "", "no/such"])
@pytest.mark.parametrize("path", ROUTES)
def test_the_content_type_does_not_matter(client: httpx.Client, path: str, content_type: str) -> None:
    assert client.post(path, content=MINIMAL, headers={"content-type": content_type}).status_code == 200


@pytest.mark.parametrize("path", [*ROUTES, "/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_limit_is_exact(client: httpx.Client, path: str, chunked: bool) -> None:
    def post(size: int) -> httpx.Response:
        body = sized(size)
        assert len(body) == size
        parts = iter([body[start : start + 50_000] for start in range(0, size, 50_000)])
        return client.post(path, content=parts if chunked else body)

    assert post(LIMIT).status_code == (404 if path == "/nowhere" else 200)
    document = problem(post(LIMIT + 1), 413, "body_too_large")
    assert str(LIMIT) in document["detail"]


@pytest.mark.parametrize("size", [LIMIT + 1, 5 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_connection_stays_in_step_after_a_body_that_was_too_large(raw: Raw, size: int, chunked: bool) -> None:
    if chunked:
        raw.send(f"POST {ROUTE} HTTP/1.1\r\nhost: router\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(0, size, 65_536):
            raw.send(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
        raw.send(b"0\r\n\r\n")
    else:
        raw.post(b"a" * size)
    raw.post(MINIMAL)
    assert raw.receive()[0] == 413
    status, body = raw.receive()
    assert status == 200
    assert json.loads(body)["decision_id"]


def test_a_connection_may_be_used_again_after_every_error(raw: Raw) -> None:
    for body, expected in [(b"{", 400), (b"{}", 422), (MINIMAL, 200), (b"", 400), (MINIMAL, 200)]:
        raw.post(body)
        assert raw.receive()[0] == expected


@pytest.mark.parametrize("wish", ["Upgrade: h2c", "UPGRADE : h2c, TLS/1.0"])
@pytest.mark.parametrize("path", ROUTES)
def test_a_wish_for_another_protocol_is_passed_over_and_the_body_read(raw: Raw, path: str, wish: str) -> None:
    settings = "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"
    for _ in range(2):  # as Java's client sends its first request; and the connection is good for more
        raw.post(MINIMAL, "Connection: Upgrade, HTTP2-Settings", wish, settings, path=path)
        assert raw.receive()[0] == 200
    raw.post(MINIMAL, path=path)
    assert raw.receive()[0] == 200


def test_a_prompt_may_speak_of_upgrades(raw: Raw) -> None:
    body = json.dumps({"request": {"prompt": PROMPT}}, indent=1).replace("\n", "\r\nupgrade: h2c\r\n", 1).encode()
    raw.post(body)  # no JSON; were the line taken out, it would be
    assert raw.receive()[0] == 400


def test_pipelined_requests_are_answered_in_order(raw: Raw) -> None:
    names = [f"episode {number}" for number in range(8)]
    for name in names:
        raw.post(json.dumps({"request": {"prompt": "x"}, "episode": {"episode_id": name}}).encode())
    assert [json.loads(raw.receive()[1])["episode_id"] for _ in names] == names


def test_a_caller_that_leaves_in_the_middle_of_its_body_disturbs_nobody(server: Server, client: httpx.Client) -> None:
    for _ in range(5):
        with Raw(server.port) as leaving:
            leaving.send(f"POST {ROUTE} HTTP/1.1\r\nhost: r\r\ncontent-length: 1000\r\n\r\n{{".encode())
    assert client.post(ROUTE, content=MINIMAL).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"POST /v1/quantum/route HTTP/1.1\r\nhost: r\r\ncontent-length: -1\r\n\r\n{}",
        b"POST /v1/quantum/route HTTP/1.1\r\nhost: r\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: r\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_ambiguous_http_is_refused_and_the_connection_closed(raw: Raw, data: bytes) -> None:
    raw.send(data)
    assert raw.receive()[0] == 400
    assert raw.receive()[0] == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ROUTES)
def test_other_methods_are_told_which_one_is_right(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert method in problem(response, 405, "method_not_allowed")["detail"]
    assert response.headers["allow"] == "POST"


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    assert (client.head(ROUTE).status_code, client.head(ROUTE).content) == (405, b"")
    listed = client.get("/v1/quantum/models")
    head = client.head("/v1/quantum/models")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(listed.content))


@pytest.mark.parametrize("path", ["/", "/nowhere", f"{ROUTE}/", f"/{ROUTE}", "/v1", "/..%2f..%2fetc/passwd", "/%00"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths_are_problems_and_never_redirects(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path, headers={"host": "evil.example"})
    assert "/openapi.json" in problem(response, 404, "not_found")["detail"]
    assert "evil" not in response.text


@pytest.mark.parametrize("path", ["/v1/quantum/%72oute", f"{ROUTE}?debug=1", f"{ROUTE}?"])
def test_other_spellings_of_the_path_mean_the_same(client: httpx.Client, path: str) -> None:
    assert client.post(path, content=MINIMAL).status_code == 200


def test_a_flood_of_headers_is_no_reason_to_fail(client: httpx.Client) -> None:
    headers = {f"x-{number}": "v" * 100 for number in range(200)}
    headers |= {"x-forwarded-for": "1.2.3.4", "x-http-method-override": "DELETE", "authorization": "Bearer x"}
    assert client.post(ROUTE, content=MINIMAL, headers=headers).status_code == 200


def test_large_lists_within_their_limits_are_served(client: httpx.Client) -> None:
    refs = [model["ref"] for model in client.get("/v1/quantum/models").json()["models"]]
    files = [{"path": f"src/{number}.py", "chars": 40} for number in range(10_000)]
    assert client.post(ROUTE, json=changed("request.files", files)).status_code == 200
    assert client.post(ROUTE, json=changed("request.allowed_models", (refs * 200)[:4096])).status_code == 200
    attempts = [{"model": refs[0], "success": False, "cost_usd": 1e9}] * 100
    assert client.post(ROUTE, json=changed("episode.attempts", attempts)).status_code == 200


def test_one_list_item_too_many_names_the_list(client: httpx.Client) -> None:
    files = [{"path": "a", "chars": 1}] * 10_001
    document = problem(client.post(ROUTE, json=changed("request.files", files)), 422, "invalid_request")
    assert document["errors"][0]["field"] == "request.files"


def test_a_body_full_of_mistakes_is_refused_briefly(client: httpx.Client) -> None:
    items = client.post(ROUTE, json={"request": {"prompt": "x", "files": [0] * 300_000}})
    assert problem(items, 422, "invalid_request")["errors"][0]["field"] == "request.files[0]"
    some = client.post(ROUTE, json={"request": {"prompt": "x"} | {f"k{number}": 0 for number in range(50)}})
    document = problem(some, 422, "invalid_request")
    assert len(document["errors"]) == 20
    assert "49 more" in document["detail"]
    many = client.post(ROUTE, json={"request": {"prompt": "x"} | {f"k{number}": 0 for number in range(50_000)}})
    assert "50000 mistakes" in problem(many, 422, "invalid_request")["detail"]
    long = client.post(ROUTE, json={"request": {"prompt": "x", "k" * 500_000: 0}})
    problem(long, 422, "invalid_request")
    assert max(len(response.content) for response in (items, some, many, long)) < 5_000


def test_what_was_sent_is_not_said_back(client: httpx.Client) -> None:
    body = changed("request.task_type", "my secret task")
    assert "secret" not in client.post(ROUTE, json=body).text


_PLACES = [(part, name) for part, fields in EVERY_DEFAULT.items() for name in fields]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(place=st.sampled_from(_PLACES), value=_JSON)
def test_any_value_anywhere_is_taken_or_refused_by_name(place: tuple[str, str], value: Any) -> None:
    try:
        RouteRequest.model_validate_json(json.dumps(changed(".".join(place), value)))
    except ValidationError as error:
        refusal = from_validation(error)
    else:
        return
    assert refusal.fields[0]["field"].startswith(place[0])


@asynccontextmanager
async def in_process(
    state_dir: Path, wrap: Any = lambda engine: engine, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The application with its lifespan, without a socket; `wrap` may change the engine."""

    @asynccontextmanager
    async def opened(chosen: Settings) -> AsyncIterator[Engine]:
        async with open_engine(chosen) as engine:
            yield wrap(engine)

    front = create_app(Settings(state_dir=state_dir, **{"max_wait_s": PATIENCE_S, **settings}), opened)
    api: Any = front.app
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(front, raise_app_exceptions=False), base_url="http://router"
        ) as client,
    ):
        yield client


class Overturned:
    """A batcher that fails in an unforeseen way."""

    full = False

    def submit(self, _: RouteRequest) -> Any:
        raise ZeroDivisionError("a secret of the implementation")


class OverturnedRouter:
    def route_request(self, _: RouteRequest) -> Any:
        raise ZeroDivisionError("a secret of the implementation")


async def test_unforeseen_failures_are_problems_without_details(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(engine: Engine) -> Engine:
        parts: dict[str, Any] = {"batcher": Overturned(), "router": OverturnedRouter()}
        return replace(engine, **parts)

    async with in_process(tmp_path, broken) as client:
        for path in ROUTES:
            response = await client.post(path, content=MINIMAL)
            assert "secret" not in problem(response, 500, "internal_error")["detail"]
        assert 'outcome="internal_error"} 1.0' in (await client.get("/metrics")).text
    assert "ZeroDivisionError" in caplog.text  # the operator sees it


async def test_a_full_queue_turns_callers_away_at_once(tmp_path: Path) -> None:
    async with in_process(tmp_path, max_queue=1, max_batch=1) as client:
        responses: Sequence[httpx.Response] = await asyncio.gather(
            *(client.post(ROUTE, content=MINIMAL) for _ in range(50))
        )
        refused = [response for response in responses if response.status_code != 200]
        assert 0 < len(refused) < 50
        for response in refused:
            problem(response, 503, "overloaded")
            assert re.fullmatch(r"[1-9]\d*", response.headers["retry-after"])
        assert (await client.post(ROUTE, content=MINIMAL)).status_code == 200


async def test_the_feature_flag_turns_the_engine_off_at_the_front_door_alone(tmp_path: Path) -> None:
    async with in_process(tmp_path, quantum=False) as client:
        body = changed("quantum_config.timeout_ms", 1000)  # the machine may be busy
        front = (await client.post("/v1/route", json=body)).json()
        assert (front["strategy_used"], front["thread_results"], front["degraded"]) == ("gary8d", [], [])
        assert (await client.post(ROUTE, json=body)).json()["strategy_used"] != "gary8d"


async def test_settings_reach_the_engine(tmp_path: Path) -> None:
    async with in_process(tmp_path, explore=False, collapse="consensus", max_body_bytes=2048) as client:
        answer = (await client.post(ROUTE, json={"request": {"prompt": "x"}, "quantum_config": PATIENT})).json()
        assert (answer["collapse_strategy"], answer["propensity"]) == ("consensus", 1.0)
        assert (await client.post(ROUTE, content=sized(2049))).status_code == 413
