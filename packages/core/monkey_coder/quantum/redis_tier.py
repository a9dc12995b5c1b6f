"""The tier that all processes share: bytes in plain Redis 7, asked for in bulk, and never waited for long.

All talk with the server happens in one thread of this tier. Who fetches waits for that thread a fixed time at the most,
whatever the network or the server does; who keeps or forgets does not wait at all. After trouble nobody asks the server
any more but that thread, which tries it again after pauses that double, until it answers in time.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Any, Final, Self, cast

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from monkey_coder.ports import Clock

DEFAULT_WAIT_S: Final = 0.005
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 0.25
"""After which the tier's own thread gives up a command; nobody else waits for that."""
MOST_JOBS: Final = 64
"""Jobs that may wait for the thread; further ones are dropped, which costs a few misses later."""
MOST_LATE: Final = 3
"""Answers in a row that may come late, until nobody waits for them any more."""
IDLE_S: Final = 1.0
"""How often the thread looks up when there is nothing to do."""
SILENCE_S: Final = 10.0
"""Time between two lines about trouble in the log."""
SCAN_COUNT: Final = 500

Item = tuple[bytes, bytes, float]
"""Key, value, and seconds to live."""

_log = logging.getLogger(__name__)


class RedisTier:
    """Bytes by key. Safe to use from any thread; no method raises because of the server.

    Args:
        client: Answers in bytes, gives up after a fixed time, and does not try again by itself.
        clock: Monotonic seconds.
        wait_s: How long `fetch` waits at the most.
        namespace: Begins every key. What stands in braces there keeps all entries in one slot of a Cluster, so that
            they can be asked for together.
    """

    def __init__(
        self, client: Redis, clock: Clock, wait_s: float = DEFAULT_WAIT_S, namespace: str = "monkey-coder:{cache}"
    ) -> None:
        self._client = cast("Any", client)  # the library's types speak of its asynchronous client, too
        self._clock, self._wait_s = clock, wait_s
        self._prefix = f"{namespace}:".encode()
        self._jobs: Queue[_Job | None] = Queue(MOST_JOBS)
        self._reads, self._writes = _Patience(clock), _Patience(clock)
        self._said_at = float("-inf")
        self._budget = threading.local()
        self.counts: Counter[str] = Counter()
        """What happened so far: `fetched`, `kept`, `error`, `late`, `dropped`, `skipped`."""
        self._thread = threading.Thread(target=self._run, name="cache-redis", daemon=True)
        self._thread.start()

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
        client = Redis.from_url(
            url,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        tier = cls(client, clock, wait_s)
        tier._submit(_Job(lambda: tier._client.ping(), tier._writes))  # connects, so that no request has to
        return tier

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
        job = self._submit(_Job(lambda: self._client.mget(names), self._reads, due)) if now < due else None
        if job is None:
            return None
        try:
            found = job.result(due - now)
        except LateError:
            self.counts["late"] += 1
            self._failed(self._reads, f"no answer within {self._wait_s * 1e3:g} ms", late=True)
            return None
        except Exception:  # noqa: BLE001 - the thread has counted and logged it
            return None
        if not isinstance(found, list) or len(found) != len(keys):
            self._failed(self._reads, "it answered something else than was asked")
            return None
        self.counts["fetched"] += len(keys)
        return [value if isinstance(value, bytes) else None for value in found]

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
            self._submit(_Job(lambda: self._keep(items), self._writes))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Delete values soon; never waits."""
        if keys and not self._reads.given_up:
            names = [self._prefix + key for key in keys]
            self._submit(_Job(lambda: self._client.unlink(*names), self._writes))

    def scan(self, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """Up to so many keys with their values, in no order; waits for the server, which is tried whatever its state.

        Raises:
            RedisError: The server failed.
        """
        seen = 0
        for names in self._pages():
            values = self._client.mget(names) if names else ()
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
        return sum(self._client.unlink(*names) for names in self._pages() if names)

    def info(self) -> dict[str, int | str]:
        """Memory of the server (`used_memory`, `maxmemory` in bytes, `maxmemory_policy`); waits for it.

        Raises:
            RedisError: The server failed.
        """
        told = self._client.info("memory")
        return {name: told[name] for name in ("used_memory", "maxmemory", "maxmemory_policy")}

    def close(self) -> None:
        """End the thread; what still waits is dropped."""
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        self._thread.join(2 * ANSWER_TIMEOUT_S)
        self._client.close()

    def _submit(self, job: _Job) -> Future[Any] | None:
        """Have the thread do something; None when too much waits already."""
        try:
            self._jobs.put_nowait(job)
        except Full:
            self.counts["dropped"] += 1
            return None
        return job.result

    def _pages(self) -> Iterator[list[bytes]]:
        cursor: int | None = None
        while cursor != 0:
            cursor, names = self._client.scan(cursor or 0, match=_escaped(self._prefix) + b"*", count=SCAN_COUNT)
            yield names

    def _keep(self, items: Sequence[Item]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for key, value, ttl_s in items:
            pipe.set(self._prefix + key, value, px=max(1, int(ttl_s * 1e3)))
        pipe.execute()
        self.counts["kept"] += len(items)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_S if not self.failing else FIRST_PAUSE_S / 4)
            except Empty:
                self._try_again()
                continue
            if job is None:
                return
            self._do(job)

    def _do(self, job: _Job) -> None:
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001 - whatever the server made of it must not end this thread
            self.counts["error"] += 1
            self._failed(job.patience, f"{type(error).__name__}: {error}")
            with suppress(RedisError, OSError):  # half an answer may be left in it, or the address have moved
                self._client.connection_pool.disconnect()
            job.result.set_exception(error)
        else:
            if self._clock() <= job.due:  # who comes late has failed, and is not good again by coming at all
                job.patience.good()
            job.result.set_result(result)

    def _try_again(self) -> None:
        """See whether the server reads and writes again, if it is time to."""
        probe = self._prefix + b"probe"
        now = self._clock()
        if self._reads.due(now):
            self._do(_Job(lambda: self._client.mget([probe]), self._reads, now + self._wait_s))
        if self._writes.due(now) and not self._reads.failing:
            self._do(_Job(lambda: self._client.set(probe, b"", px=1000), self._writes))

    def _failed(self, patience: _Patience, what: str, *, late: bool = False) -> None:
        patience.bad(late=late)
        now = self._clock()
        if patience.given_up and now - self._said_at >= SILENCE_S:
            self._said_at = now
            _log.warning("the shared cache is left alone for a while: %s", what)


@dataclass(frozen=True, slots=True)
class _Job:
    """Something for the thread to do; what comes after `due` does not count as success."""

    work: Callable[[], Any]
    patience: _Patience
    due: float = float("inf")
    result: Future[Any] = field(default_factory=Future)


class _Patience:
    """Whether something failed, and when to try it again. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._given_up = False
        self._retry_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def failing(self) -> bool:
        """Whether it failed the last time."""
        return self._failures > 0

    @property
    def given_up(self) -> bool:
        """Whether it is not to be tried any more but by those who look whether it works again."""
        return self._given_up

    def due(self, now: float) -> bool:
        """Whether it failed, and it is time to try again."""
        return self._failures > 0 and now >= self._retry_at

    def good(self) -> None:
        if self._failures:
            with self._lock:
                self._failures = 0
                self._given_up = False

    def bad(self, *, late: bool) -> None:
        """Note a failure; who was only late, as happens on a busy machine, gets another chance."""
        with self._lock:
            self._failures += 1
            self._given_up |= not late or self._failures >= MOST_LATE
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 30))
            self._retry_at = self._clock() + pause_s


def _escaped(prefix: bytes) -> bytes:
    """A prefix that means itself in a pattern."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in prefix)
