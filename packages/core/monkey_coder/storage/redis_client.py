"""Connections to Redis or Valkey, alone or as a Cluster, and its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis import DataError, Redis, RedisCluster, RedisError, ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from monkey_coder.errors import StoreFormatError, StoreUnavailableError


def connect(url: str, connect_timeout_s: float, answer_timeout_s: float) -> Redis | RedisCluster:
    """Connect to a server or, when it says that it is a part of one, to its Cluster; nothing is tried twice.

    Args:
        url: `redis://user:password@host:6379/0`, `rediss://...` or `unix://...`.
        connect_timeout_s: How long connecting may take.
        answer_timeout_s: How long an answer may take.

    Raises:
        StoreUnavailableError: The server does not answer.
        ValueError: The address is malformed, or has an option that there is not.
    """
    timeouts = {"socket_connect_timeout": connect_timeout_s, "socket_timeout": answer_timeout_s}
    once = Retry(NoBackoff(), 0)
    alone = Redis.from_url(url, retry=once, **timeouts)
    client: Redis | RedisCluster = alone
    pool = alone.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)  # not connected yet: the first to know of a wrong option
    except TypeError as error:
        raise ValueError(f"an option behind the address is unknown: {error}") from error
    try:
        with explained():
            if cast("Any", client).info("server")["redis_mode"] == "cluster":
                client.close()
                client = RedisCluster.from_url(url, retry=once, **timeouts)
    except BaseException:
        client.close()
        raise
    return client


def disconnect(client: Redis | RedisCluster) -> None:
    """Let go of all connections."""
    if isinstance(client, RedisCluster):  # closing it alone leaves its connections to the nodes open
        cast("Any", client).disconnect_connection_pools()
    client.close()


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the client library raises in the block into errors of a store."""
    try:
        yield
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            raise StoreFormatError(
                "Redis holds something foreign under a key of the router; choose another namespace or database, or "
                f"delete that key ({error})"
            ) from error
        raise StoreUnavailableError(f"Redis refused: {error}") from error
    except DataError as error:
        raise ValueError(f"cannot be stored: {error}") from error
    except RedisError as error:
        raise StoreUnavailableError(f"Redis does not answer: {error}; see that it runs and can be reached") from error
