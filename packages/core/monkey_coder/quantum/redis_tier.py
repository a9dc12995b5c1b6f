"""The tier that all processes share: bytes in plain Redis 7, asked for in bulk, and never waited for long.

Who fetches asks the server directly, and waits a fixed time at the most, whatever the network or the server does; who
keeps or forgets does not wait at all. Two threads beside them talk with the server: one writes, the other reads for who
comes while the direct connection is in use or in trouble, and mends it. After trouble nobody asks the server any more
but these two, until it answers in time again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as LateError
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, cast

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from monkey_coder.ports import Clock
from monkey_coder.quantum.redis_direct import AnswerLateError, DirectLine, DirectLines
from monkey_coder.quantum.redis_line import RedisLine

DEFAULT_WAIT_S: Final = 0.005
CONNECT_TIMEOUT_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 0.25
"""After which the tier's own threads give up a command, unless others wait for it longer."""
MOST_UNWANTED: Final = 20_000
"""Keys whose deletion may wait for a server that is in trouble; beyond, the oldest are left to end by themselves."""
SCAN_COUNT: Final = 500

Item = tuple[bytes, bytes, float]
"""Key, value, and seconds to live."""


class RedisTier:
    """Bytes by key. Safe to use from any thread; no method raises because of the server, but where it says so.

    Args:
        connect: Makes a client, which answers in bytes, gives up after a fixed time, and does not try again by itself.
        clock: Monotonic seconds.
        wait_s: How long `fetch` waits at the most.
        namespace: Begins every key. What stands in braces there keeps all entries in one slot of a Cluster, so that
            they can be asked for together.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        clock: Clock,
        wait_s: float = DEFAULT_WAIT_S,
        namespace: str = "monkey-coder:{cache}",
    ) -> None:
        # Any, for the library's types speak of its asynchronous client, too.
        reader, writer = cast("Any", connect()), cast("Any", connect())
        self._reader, self._writer = reader, writer
        self._clock, self._wait_s = clock, wait_s
        self._prefix = f"{namespace}:".encode()
        self._budget = threading.local()
        self._unwanted: dict[bytes, None] = {}
        self._lock = threading.Lock()  # guards the above
        self.counts: Counter[str] = Counter()
        """What happened so far: `fetched`, `kept`, `error`, `late`, `dropped`, `skipped`."""
        probe = self._prefix + b"probe"
        self._direct = DirectLines(reader.connection_pool.make_connection, clock)
        self._reads = RedisLine(
            "cache-reads",
            clock,
            lambda: reader.mget([probe]),
            wait_s,
            _reconnecting(reader),
            self.counts,
            self._direct.prepare,
        )
        self._writes = RedisLine(
            "cache-writes",
            clock,
            lambda: writer.set(probe, b"", px=1000),
            float("inf"),
            _reconnecting(writer),
            self.counts,
            self._delete,
        )
        for line, client in ((self._reads, reader), (self._writes, writer)):
            line.submit(client.ping)  # connects, so that no request has to

    @classmethod
    def open(cls, url: str, clock: Clock, wait_s: float = DEFAULT_WAIT_S) -> Self:
        """Prepare to talk to a server, which need not be there yet.

        Args:
            url: `redis://user:password@host:6379/0`, `rediss://...` or `unix://...`.
            clock: Monotonic seconds.
            wait_s: How long `fetch` waits at the most.

        Raises:
            ValueError: The address is malformed.
        """
        return cls(
            lambda: Redis.from_url(
                url,
                socket_timeout=max(ANSWER_TIMEOUT_S, wait_s),
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            ),
            clock,
            wait_s,
        )

    @property
    def failing(self) -> bool:
        """Whether the server failed at the last try to read, or to write."""
        return self._reads.failing or self._writes.failing

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """The values under some keys; None where the server is in trouble, or does not answer in time."""
        if self._reads.given_up:
            self.counts["skipped"] += 1
            return None
        names = [self._prefix + key for key in keys]
        now = self._clock()
        due = min(now + self._wait_s, getattr(self._budget, "due", float("inf")))
        if now >= due:
            return None
        direct = self._direct.take()
        found = self._by_line(names, now, due) if direct is None else self._directly(direct, names, due)
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != len(keys):
            self._reads.failed("it answered something else than was asked")
            return None
        self.counts["fetched"] += len(keys)
        return [value if isinstance(value, bytes) else None for value in found]

    def _directly(self, direct: DirectLine, names: Sequence[bytes], due: float) -> Any:  # noqa: ANN401 - unchecked
        """What the server says, None where it does not in time; asked by the calling thread."""
        try:
            found = direct.ask(due, b"MGET", *names)
        except AnswerLateError:
            self._late()
            if self._reads.submit(lambda: self._direct.recover(direct, ANSWER_TIMEOUT_S), due) is None:
                self._direct.drop(direct)
            return None
        except Exception as error:  # noqa: BLE001 - whatever the server made of it must not reach a request
            self._direct.drop(direct)
            self.counts["error"] += 1
            self._reads.failed(f"{type(error).__name__}: {error}")
            return None
        self._direct.give_back(direct)
        self._reads.succeeded()
        return found

    def _by_line(self, names: Sequence[bytes], now: float, due: float) -> Any:  # noqa: ANN401 - unchecked
        """The same, asked by the reading thread."""
        waiting = self._reads.submit(lambda: self._reader.mget(names), due)
        if waiting is None:
            return None
        try:
            return waiting.result(due - now)
        except LateError:
            self._late()
        except Exception:  # noqa: BLE001, S110 - the line has counted and logged it
            pass
        return None

    def _late(self) -> None:
        self.counts["late"] += 1
        self._reads.failed(f"no answer within {self._wait_s * 1e3:g} ms", late=True)

    @contextmanager
    def one_wait(self) -> Iterator[None]:
        """Let all fetches of this thread in the block together wait no longer than a single one may."""
        self._budget.due = self._clock() + self._wait_s
        try:
            yield
        finally:
            self._budget.due = float("inf")

    def keep(self, items: Sequence[Item]) -> None:
        """Store values soon; never waits."""
        if items and not self._reads.given_up and not self._writes.given_up:
            self._writes.submit(lambda: self._keep(items))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Delete values soon; never waits. While the server is in trouble this is remembered, and done afterwards."""
        if not keys:
            return
        with self._lock:
            self._unwanted |= dict.fromkeys(self._prefix + key for key in keys)
            for name in list(self._unwanted)[: max(0, len(self._unwanted) - MOST_UNWANTED)]:
                del self._unwanted[name]
                self.counts["dropped"] += 1
        if not self._writes.given_up:
            self._writes.submit(lambda: None)  # wakes the line, which then deletes

    def settle(self, within_s: float) -> bool:
        """Wait until what was to be kept or deleted so far is; returns whether it is."""
        waiting = self._writes.submit(self._delete)
        with suppress(Exception):  # the line has counted and logged it
            if waiting is not None:
                waiting.result(within_s)
                return not self._unwanted
        return False

    def scan(self, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """Up to so many keys with their values, in no order; waits for the server, which is tried whatever its state.

        Raises:
            RedisError: The server failed.
        """
        seen = 0
        for names in self._pages():
            values = self._writer.mget(names) if names else ()
            for name, value in zip(names, values, strict=True):
                if seen < limit and value is not None:
                    seen += 1
                    yield name.removeprefix(self._prefix), value
            if seen >= limit:
                return

    def clear(self) -> int:
        """Delete everything that is ours, and return how much that was; waits for the server.

        Raises:
            RedisError: The server failed.
        """
        self.settle(ANSWER_TIMEOUT_S)  # what still waits to be kept would come afterwards
        return sum(self._writer.unlink(*names) for names in self._pages() if names)

    def info(self) -> dict[str, int | str]:
        """Memory of the server (`used_memory`, `maxmemory` in bytes, `maxmemory_policy`); waits for it.

        Raises:
            RedisError: The server failed.
        """
        told = self._writer.info("memory")
        return {name: told[name] for name in ("used_memory", "maxmemory", "maxmemory_policy")}

    def close(self) -> None:
        """Write what waits, unless that takes long, and end the threads."""
        for line in (self._reads, self._writes):
            line.close(2 * ANSWER_TIMEOUT_S)
        self._direct.close()
        self._reader.close()
        self._writer.close()

    def _pages(self) -> Iterator[list[bytes]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, names = self._writer.scan(cursor or 0, match=_escaped(self._prefix) + b"*", count=SCAN_COUNT)
            yield names

    def _keep(self, items: Sequence[Item]) -> None:
        pipe = self._writer.pipeline(transaction=False)
        for key, value, ttl_s in items:
            pipe.set(self._prefix + key, value, px=max(1, int(ttl_s * 1e3)))
        pipe.execute()
        self.counts["kept"] += len(items)

    def _delete(self) -> None:
        """Delete what is not wanted any more; what fails stays unwanted."""
        with self._lock:
            names, self._unwanted = self._unwanted, {}
        if not names:
            return
        try:
            self._writer.unlink(*names)
        except BaseException:
            with self._lock:
                self._unwanted = names | self._unwanted
            raise


def _reconnecting(client: Redis) -> Callable[[], None]:
    """What drops the connections of a client: half an answer may be left in them, or the address have moved."""

    def reconnect() -> None:
        with suppress(RedisError, OSError):
            client.connection_pool.disconnect()

    return reconnect


def _escaped(prefix: bytes) -> bytes:
    """A prefix that means itself in a pattern."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in prefix)
