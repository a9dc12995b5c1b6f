"""Asking a server directly: answers in time, never a wait beyond it, and a connection that is mended or let go."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hiredis
import pytest
from impostors import drip, half, impostor, noise
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_process import RedisProcess, patient_tier, running_redis
from servers import PATIENCE_S, eventually

from monkey_coder.quantum.redis_direct import AnswerLateError, DirectLine, DirectLines


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with running_redis(tmp_path, "--appendonly", "no") as running:
        yield running


def lines_to(url: str) -> DirectLines:
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=PATIENCE_S)
    return DirectLines(client.connection_pool.make_connection, time.monotonic)


def ready(lines: DirectLines) -> DirectLine:
    lines.prepare()
    line = lines.take()
    assert line is not None
    return line


def soon() -> float:
    return time.monotonic() + PATIENCE_S


def test_it_asks_again_and_again_on_one_connection(server: RedisProcess) -> None:
    with closing(lines_to(server.url)) as lines, server.client() as client:
        client.set("large", b"x" * 300_000)
        connected = client.info("stats")["total_connections_received"]
        for _ in range(3):
            line = ready(lines)
            assert line.ask(soon(), b"MGET", b"large", b"none") == [b"x" * 300_000, None]
            assert lines.take() is None  # it is in use
            lines.prepare()
            assert lines.take() is None  # and no other is made meanwhile
            lines.give_back(line)
        assert client.info("stats")["total_connections_received"] == connected + 1


def test_a_refusal_is_an_error_and_no_answer(server: RedisProcess) -> None:
    with closing(lines_to(server.url)) as lines, pytest.raises(hiredis.ReplyError, match="unknown command"):
        ready(lines).ask(soon(), b"NONSENSE")


def test_a_late_answer_is_waited_for_aside_and_the_connection_goes_on(server: RedisProcess) -> None:
    with closing(lines_to(server.url)) as lines, server.client() as client:
        client.set("a", b"1")
        line = ready(lines)
        server.send(signal.SIGSTOP)
        try:
            with pytest.raises(AnswerLateError):
                line.ask(time.monotonic() + 0.02, b"MGET", b"a")
            with pytest.raises(AnswerLateError):
                line.ask(time.monotonic() - 1.0, b"MGET", b"a")  # too late to ask at all
        finally:
            server.send(signal.SIGCONT)
        with pytest.raises(ConnectionAbortedError):
            line.answer(soon())
        lines.drop(line)
        line = ready(lines)
        server.send(signal.SIGSTOP)
        try:
            with pytest.raises(AnswerLateError):
                line.ask(time.monotonic() + 0.02, b"MGET", b"a")
        finally:
            server.send(signal.SIGCONT)
        lines.recover(line, PATIENCE_S)
        again = lines.take()
        assert again is line
        assert again.ask(soon(), b"MGET", b"b") == [None]  # and not the late answer
        lines.drop(again)


def test_a_connection_whose_answer_does_not_come_is_let_go(server: RedisProcess) -> None:
    with closing(lines_to(server.url)) as lines:
        line = ready(lines)
        server.send(signal.SIGSTOP)
        try:
            for within_s in (0.02, 0.0):
                with pytest.raises(AnswerLateError):
                    line.ask(time.monotonic() + within_s, b"PING")
            with pytest.raises(ConnectionAbortedError):
                lines.recover(line, 0.02)
        finally:
            server.send(signal.SIGCONT)
        assert lines.take() is None
        assert ready(lines).ask(soon(), b"PING") == b"PONG"


def test_a_server_that_closes_is_an_error_at_once(server: RedisProcess) -> None:
    with closing(lines_to(server.url)) as lines:
        line = ready(lines)
        server.kill()
        with pytest.raises(OSError, match=r"closed|reset|pipe"):
            line.ask(soon(), b"PING")
        lines.drop(line)
        with pytest.raises(Exception, match="refused"):
            lines.prepare()
        server.start()
        assert ready(lines).ask(soon(), b"PING") == b"PONG"


@pytest.mark.parametrize("says", [half, drip, noise])
def test_no_wait_is_longer_than_asked_for_whatever_comes(says: object) -> None:
    """Also when bytes keep coming: the wait is for the whole answer."""
    ours, theirs = socket.socketpair()

    class Plain:
        _sock = ours

        def connect(self) -> None:
            pass

        def disconnect(self) -> None:
            ours.close()

        def pack_command(self, *args: bytes) -> list[bytes]:
            return [b" ".join(args)]

    line = DirectLine(Plain(), time.monotonic)
    speaking = threading.Thread(target=says, args=(theirs,), daemon=True)  # type: ignore[arg-type]
    speaking.start()
    with pytest.raises((AnswerLateError, hiredis.ProtocolError)):
        line.ask(time.monotonic() + 0.2, b"PING")
    line.close()
    speaking.join(PATIENCE_S)
    theirs.close()


def test_the_tier_asks_directly_and_by_its_thread_when_the_connection_is_in_use(server: RedisProcess) -> None:
    tier = patient_tier(server.url)
    try:
        tier.keep([(b"a", b"1", 60.0)])
        assert tier.settle(PATIENCE_S)
        eventually(lambda: tier._direct._ready is not None)
        direct = tier._direct.take()
        assert tier.fetch([b"a", b"b"]) == [b"1", None]
        assert direct is not None
        tier._direct.give_back(direct)
        assert tier.fetch([b"a", b"b"]) == [b"1", None]
        assert tier.counts["fetched"] == 4
    finally:
        tier.close()


def test_with_a_password_and_a_database_of_its_own(server: RedisProcess) -> None:
    with server.client() as client:
        client.config_set("requirepass", "secret")
        address = server.url.replace("redis://", "redis://:secret@").rpartition("/")[0] + "/3"
        with closing(lines_to(address)) as lines:
            line = ready(lines)
            assert line.ask(soon(), b"SET", b"a", b"1") == b"OK"
            lines.give_back(line)
        client.auth("secret")
        client.config_set("requirepass", "")
        with Redis.from_url(server.url.rpartition("/")[0] + "/3") as other:
            assert other.keys() == [b"a"]
        assert client.keys() == []
    with impostor(noise) as url, closing(lines_to(url)) as lines, pytest.raises(Exception, match=r".+"):
        lines.prepare()
