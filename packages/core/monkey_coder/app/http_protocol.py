"""uvicorn's HTTP protocol, with a short way for the hot endpoints: a request to decide, and a report.

A decision that is made in a batch, or a report that is stored in a group, costs less than what a server does around a
request: a task, a scope, two messages each way, a timer, and somebody who watches whether the caller is still there. On
the short way a request is what it is, some bytes in and some bytes out, and a caller that hangs up is noticed in the
moment. Only plain requests take it, that is those that were sent alone, by whom they may be sent, as most programs send
them; all others are left to uvicorn and to `Front`, which give the same answers. Who sends the same head again, as
programs do, has it parsed once.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from monkey_coder.api_keys import Caller, KeyTable
from monkey_coder.app.access import admit
from monkey_coder.app.feedback import FEEDBACK_PATH, begin_feedback, finish_feedback
from monkey_coder.app.hot_path import PATH, TURNED_AWAY, Front, begin, content_type, finish, recalled
from monkey_coder.app.known_head import KnownHead
from monkey_coder.app.problems import error_response
from monkey_coder.bootstrap import Engine
from monkey_coder.errors import BodyTooLargeError, OverloadedError, RouterError
from monkey_coder.quantum.cache_parts import Asked, Reply
from monkey_coder.quantum.gathering import PROMPT_S
from monkey_coder.report_groups import Result

_JSON: Final = (b"content-type", b"application/json")
_UPGRADE: Final = re.compile(rb"\r\nupgrade[ \t]*:(?![ \t]*websocket)[^\r\n]*", re.IGNORECASE)

Headers = Iterable[tuple[bytes, bytes]]


def without_upgrade(data: bytes) -> bytes:
    """A message without its wish to go on in another protocol than a WebSocket, which a server may pass over.

    The parser would pass over the body instead. Java's own client wishes for HTTP/2 (`h2c`) with every first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"", head) + end + rest if end else data


class Exchange:
    """A request on the short way, from its headers to its answer; in uvicorn's eyes one of its cycles.

    Args:
        protocol: Of the connection, with the headers of the request.
        engine: Serves.
        caller: Who asks.
        limit_bytes: Of the body.
    """

    __slots__ = (
        "_chunks",
        "_engine",
        "_left",
        "_limit_bytes",
        "_protocol",
        "caller",
        "keep_alive",
        "response_complete",
    )

    disconnected = False

    def __init__(self, protocol: RoutingProtocol, engine: Engine, caller: Caller, limit_bytes: int) -> None:
        self._protocol = protocol
        self._engine = engine
        self.caller = caller
        self._limit_bytes = self._left = limit_bytes
        self._chunks: list[bytes] = []
        self.keep_alive = protocol.parser.should_keep_alive()
        self.response_complete = False

    def hurry(self) -> None:
        """Turn the request away if it is hopeless while the rest of its body is still to come."""

    def take(self, chunk: bytes) -> None:
        """Take a part of the body; what comes after the answer is passed over."""
        self._left -= len(chunk)
        if self.response_complete:
            return
        if self._left >= 0:
            self._chunks.append(chunk)
        else:
            self._answer(error_response(self._too_large()))

    def serve(self) -> None:
        """Do what is asked, now that the request is complete."""
        if not self.response_complete:
            body = b"".join(self._chunks)
            self._chunks.clear()  # a body may be long, and what is read from it is all that must wait
            self.serve_body(body)

    def withdraw(self) -> None:
        """Give the request up, for the caller has hung up."""
        self.response_complete = True

    def done(self) -> bool:
        """Whether no answer is wanted any more."""
        return self.response_complete

    def serve_body(self, body: bytes) -> None:
        """Do what is asked in a body that came in one piece."""
        raise NotImplementedError

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(self._limit_bytes)

    def _answer(self, answer: bytes | Response) -> None:
        self.response_complete = True
        if not isinstance(answer, bytes):
            self._protocol.send(answer.status_code, answer.raw_headers, bytes(answer.body), keep_alive=self.keep_alive)
        elif self.keep_alive:
            self._protocol.send_decision(answer)
        else:
            length = (b"content-length", b"%d" % len(answer))
            self._protocol.send(200, (_JSON, length), answer, keep_alive=False)


class Decision(Exchange):
    """A request to decide; waits for the batcher."""

    __slots__ = ("_asked", "_unprompted")

    def __init__(self, protocol: RoutingProtocol, engine: Engine, caller: Caller, limit_bytes: int) -> None:
        super().__init__(protocol, engine, caller, limit_bytes)
        self._asked = False
        self._unprompted = protocol.idle_s > PROMPT_S

    def hurry(self) -> None:
        """Turn the request away if there are too many already and the rest of its body is still to come."""
        if not self.response_complete and self._engine.batcher.full:
            self._refuse()

    def withdraw(self) -> None:
        """Give the request up, for the caller has hung up."""
        if self._asked and not self.response_complete:
            self._engine.metrics.on_finished("abandoned")
        super().withdraw()

    def set_result(self, reply: Reply, /) -> None:
        """Send the answer."""
        self._answer(finish(reply, self._engine))

    def set_exception(self, error: Exception, /) -> None:
        """Send what is to be known of an error."""
        self._answer(finish(error, self._engine))

    def serve_body(self, body: bytes) -> None:
        """Have the request decided; while too many wait, only what the cache knows is."""
        engine, defaults = self._engine, self.caller.defaults
        try:
            if engine.batcher.full:
                known = recalled(body, engine, defaults)
                if known is None:
                    self._refuse()
                else:
                    self.set_result(known)
                return
            begun = begin(body, engine, defaults)
            if isinstance(begun, Asked):
                engine.batcher.put(begun, self, unprompted=self._unprompted)
                self._asked = True
            else:
                self.set_result(begun)
        except Exception as error:  # noqa: BLE001 - `finish` tells it apart
            self.set_exception(error)

    def _too_large(self) -> BodyTooLargeError:
        self._engine.metrics.on_finished(BodyTooLargeError.code)
        return super()._too_large()

    def _refuse(self) -> None:
        self._engine.metrics.on_finished(OverloadedError.code)
        self._answer(TURNED_AWAY)


class Report(Exchange):
    """A report on a decision; waits until it is durable."""

    __slots__ = ("_content_type",)

    def __init__(self, protocol: RoutingProtocol, engine: Engine, caller: Caller, limit_bytes: int) -> None:
        super().__init__(protocol, engine, caller, limit_bytes)
        self._content_type = content_type(protocol.headers)

    def set_result(self, results: Sequence[Result], /) -> None:
        """Send what became of it."""
        self._answer(finish_feedback(results[0]))

    def serve_body(self, body: bytes) -> None:
        """Have the report stored."""
        try:
            begun = begin_feedback(body, self._content_type, self._engine, self.caller.id)
            if isinstance(begun, Response):
                self._answer(begun)
            else:
                self._engine.reports.put([begun], self)
        except Exception as error:  # noqa: BLE001 - `finish_feedback` logs it, and the connection is good for more
            self._answer(finish_feedback(error))


_SHORT: Final[Mapping[bytes, type[Exchange]]] = MappingProxyType(
    {PATH.encode(): Decision, FEEDBACK_PATH.encode(): Report}
)
"""What goes the short way, by target."""


class RoutingProtocol(HttpToolsProtocol):
    """One connection."""

    _engine: Engine | None = None
    """Decides what goes the short way; None: nothing does."""
    _limit_bytes = 0
    _exchange: Exchange | None = None
    """The last one that was begun."""
    _reading: Exchange | None = None
    """The one that the message belongs to that is coming in."""
    _answered_at = -math.inf
    """When the last answer was sent, by the clock of the loop."""
    _messages = 0
    """How many the parser has begun."""
    _between = True
    """Whether the parser is in none of them."""
    _table: KeyTable | None = None
    """The keys by which the last caller was admitted."""
    _known: KnownHead | None = None
    """Of the last message that the parser read, if that went the short way, and came in one piece."""
    _headers: object = None
    """The server's own, of which `_before_length` was made."""
    _before_length = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Begin; by now the engine runs."""
        super().connection_made(transport)
        front = self.app
        if isinstance(front, Front) and not self.root_path and self.limit_concurrency is None:
            self._engine, self._limit_bytes = front.engine, front.max_body_bytes

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        if self._known is not None and self._comes_again(self._known, data):
            return
        if self._between and _UPGRADE.search(data) is not None:
            data = without_upgrade(data)
        messages, between, last = self._messages, self._between, self._exchange
        super().data_received(data)
        exchange = self._exchange
        if self._reading is not None:
            self._reading.hurry()
        elif (
            between
            and self._between
            and self._messages == messages + 1
            and exchange is not None
            and exchange is not last
            and exchange.keep_alive
            and self._table is not None
        ):
            self._known = KnownHead.of(data, exchange.caller, self._table)

    def on_message_begin(self) -> None:
        """Begin with a message."""
        self._messages += 1
        self._between, self._known = False, None
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Choose the way of a request."""
        if self.timeout_keep_alive_task is not None:  # what came before it in the same bytes is answered already
            self._unset_keepalive_if_required()
        self._reading = self._short_way()
        if self._reading is None:
            super().on_headers_complete()
        else:
            self._exchange = self._reading
            self.cycle = self._reading  # type: ignore[assignment]  # it has what the base class looks at

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        if self._reading is None:
            super().on_body(body)
        else:
            self._reading.take(body)

    def on_message_complete(self) -> None:
        """Begin to answer."""
        self._between = True
        exchange, self._reading = self._reading, None
        if exchange is None:
            super().on_message_complete()
        else:
            exchange.serve()

    def connection_lost(self, exc: Exception | None) -> None:
        """Withdraw what the caller does not wait for any more."""
        current: object = self.cycle
        if self._exchange is not None:
            self._exchange.withdraw()
            if current is self._exchange:
                self.cycle = None  # type: ignore[assignment]  # there is nobody to wake
        super().connection_lost(exc)

    @property
    def idle_s(self) -> float:
        """Seconds since the last answer."""
        return self.loop.time() - self._answered_at

    def send(self, status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> None:
        """Send the answer to an exchange, and go on to what came after it."""
        if self.transport.is_closing():
            return
        said = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            said += (name, b": ", value, b"\r\n")
        said += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(said))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_decision(self, body: bytes) -> None:
        """Send a decision to a caller that may send another request."""
        if self.transport.is_closing():
            return
        if self._headers is not self.server_state.default_headers:
            self._headers = self.server_state.default_headers
            said = [STATUS_LINE[200]]
            for name, value in (*self.server_state.default_headers, _JSON):
                said += (name, b": ", value, b"\r\n")
            self._before_length = b"".join((*said, b"content-length: "))
        self.transport.write(b"%b%d\r\n\r\n%b" % (self._before_length, len(body), body))
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on to what came after a request. A timer for idleness that runs is left running."""
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None or self.pipeline or self.flow.read_paused:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough by now; else look again when it could be."""
        busy = self.cycle is not None and not self.cycle.response_complete
        rest_s = self.timeout_keep_alive - (0.0 if busy else self.idle_s)
        if rest_s > 0.0:
            self.timeout_keep_alive_task = self.loop.call_later(rest_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _comes_again(self, known: KnownHead, data: bytes) -> bool:
        """Serve what is one whole request with the head that was parsed last; returns whether it is."""
        engine, last = self._engine, self._exchange
        if (
            engine is None
            or last is None
            or not last.response_complete
            or self.flow.write_paused
            or engine.keys.table is not known.table
        ):
            return False
        body = known.body(data)
        if body is None or len(body) > self._limit_bytes:
            return False
        self._exchange = exchange = type(last)(self, engine, known.caller, self._limit_bytes)
        self.cycle = exchange  # type: ignore[assignment]  # it has what the base class looks at
        exchange.serve_body(body)
        return True

    def _short_way(self) -> Exchange | None:
        """The exchange of a request whose headers are complete; None for one that must go the long way."""
        engine, kind = self._engine, _SHORT.get(self.url)
        if (
            engine is None
            or kind is None
            or self.parser.get_method() != b"POST"
            or not (self.cycle is None or self.cycle.response_complete)
            or self.expect_100_continue
            or self.parser.should_upgrade()
            or self.parser.get_http_version() != "1.1"
            or self.flow.write_paused
        ):
            return None
        scope: dict[str, Any] = {"path": self.url.decode(), "method": "POST", "headers": self.headers}
        self._table = engine.keys.table
        try:
            caller = admit(scope, self._table)
        except RouterError:
            return None
        return kind(self, engine, caller, self._limit_bytes)
