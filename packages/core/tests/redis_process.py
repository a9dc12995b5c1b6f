"""Real Redis servers for tests: started on a free port in a directory of their own, awaited, never left behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from servers import PATIENCE_S, free_port

from monkey_coder.quantum.redis_tier import RedisTier
from monkey_coder.storage.port import Retention
from monkey_coder.storage.redis_client import connect
from monkey_coder.storage.redis_store import DEFAULT_NAMESPACE, RedisStore
from monkey_coder.storage.redis_uses import RedisLastUses

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""What the docs ask for."""


@dataclass
class RedisProcess:
    """One server, which can be killed and started again over the same data."""

    directory: Path
    options: tuple[str, ...] = DURABLE
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port)

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is missing: scripts/system_packages redis-server installs it"
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *where, "--save", "", *self.options], stdout=log, stderr=subprocess.STDOUT
            )
        self.await_answer()

    def await_answer(self) -> None:
        clustered = "--cluster-enabled" in self.options
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.client() as client:
                    if clustered and client.cluster("info")["cluster_slots_assigned"] != "16384":
                        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
                    if not clustered or client.cluster("info")["cluster_state"] == "ok":
                        client.ping()
                        return
            except RedisError:
                pass
            ended = self.process is None or self.process.poll() is not None
            assert not ended, (self.directory / "log").read_text()
            assert time.monotonic() < give_up_at, (self.directory / "log").read_text()
            time.sleep(0.02)

    def send(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[RedisProcess]:
    """A server that is gone afterwards, whatever happened to it meanwhile."""
    server = RedisProcess(directory, options or DURABLE)
    try:
        server.start()
        yield server
    finally:
        server.kill()


# What waits for a server as long as a loaded machine may need: the product's own patience is that of a request


def patient_store(url: str, retention: Retention | None = None, namespace: str = DEFAULT_NAMESPACE) -> RedisStore:
    """A store on a server or a Cluster."""
    return RedisStore(connect(url, PATIENCE_S, PATIENCE_S), time.time, retention, namespace)


def patient_uses(url: str, clock: Callable[[], float], max_age_s: float, most: int) -> RedisLastUses:
    """Last uses on a server or a Cluster."""
    return RedisLastUses(connect(url, PATIENCE_S, PATIENCE_S), clock, max_age_s, most)


def patient_tier(url: str, clock: Callable[[], float] = time.monotonic, wait_s: float = PATIENCE_S) -> RedisTier:
    """A tier of the cache on a server that may not be there yet."""
    once = Retry(NoBackoff(), 0)
    timeouts = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    return RedisTier(lambda: Redis.from_url(url, retry=once, **timeouts), clock, wait_s)
