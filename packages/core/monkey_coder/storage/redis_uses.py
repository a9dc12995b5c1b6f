"""Last uses in Redis 7 or Valkey, alone or as a Cluster: one hash and one sorted set, in one slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, cast

from redis import Redis, RedisCluster
from typing_extensions import override

from monkey_coder.storage.last_uses import LastUse, LastUses
from monkey_coder.storage.redis_client import connect, disconnect, explained

_CHUNK: Final = 500  # uses a step: the server serves nobody else meanwhile
_CONNECT_TIMEOUT_S: Final = 1.0
_ANSWER_TIMEOUT_S: Final = 0.5
_NOTE: Final = """
local uses, times = KEYS[1], KEYS[2]
for at = 4, #ARGV, 3 do
  local key, time, value = unpack(ARGV, at, at + 2)
  local known = redis.call('ZSCORE', times, key)
  if not known or tonumber(known) <= tonumber(time) then
    redis.call('ZADD', times, time, key)
    redis.call('HSET', uses, key, time .. ' ' .. value)
  end
end
local gone = redis.call('ZRANGE', times, '-inf', '(' .. ARGV[2], 'BYSCORE', 'LIMIT', 0, 1000)
if #gone == 0 then
  local surplus = math.min(redis.call('ZCARD', times) - tonumber(ARGV[3]), 1000)
  if surplus > 0 then gone = redis.call('ZRANGE', times, 0, surplus - 1) end
end
if #gone > 0 then
  redis.call('ZREM', times, unpack(gone))
  redis.call('HDEL', uses, unpack(gone))
end
redis.call('PEXPIRE', uses, ARGV[1])
redis.call('PEXPIRE', times, ARGV[1])
"""
"""KEYS uses, times; ARGV longest life in ms, oldest time, most, and three a use: key, time, value."""


class RedisLastUses(LastUses):
    """Keeps them in Redis.

    Args:
        client: Answers in bytes.
        wall_clock: Seconds since 1970.
        max_age_s: Seconds after which a use is forgotten.
        most: Keys that are kept.
        namespace: Begins both keys of the server.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        wall_clock: Callable[[], float],
        max_age_s: float,
        most: int,
        namespace: str = "monkey-coder:1",
    ) -> None:
        self._client = cast("Any", client)  # the library's types speak of its asynchronous client, too
        self._now, self._max_age_s, self._most = wall_clock, max_age_s, most
        self._keys = (f"{namespace}:{{sessions}}:uses", f"{namespace}:{{sessions}}:times")
        self._note = self._client.register_script(_NOTE)

    @classmethod
    def open(cls, url: str, wall_clock: Callable[[], float], max_age_s: float, most: int) -> Self:
        """Connect to a server or its Cluster; arguments as in the constructor and in `connect`.

        Raises:
            StoreUnavailableError: The server does not answer.
            ValueError: The address is malformed.
        """
        return cls(connect(url, _CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S), wall_clock, max_age_s, most)

    @override
    def last_uses(self, keys: Sequence[bytes]) -> list[LastUse | None]:
        if not keys:
            return []
        oldest = self._now() - self._max_age_s
        with explained():
            found = [_use(entry) for entry in self._client.hmget(self._keys[0], keys)]
        return [None if use is None or use.time_s < oldest else use for use in found]

    @override
    def note_uses(self, uses: Mapping[bytes, LastUse]) -> None:
        rows = list(uses.items())
        bounds = (max(1, int(self._max_age_s * 1e3)), self._now() - self._max_age_s, self._most)
        for start in range(0, len(rows), _CHUNK):
            flat = [part for key, use in rows[start : start + _CHUNK] for part in (key, *use)]
            with explained():
                self._note(keys=self._keys, args=[*bounds, *flat])

    @override
    def close(self) -> None:
        disconnect(self._client)


def _use(entry: bytes | None) -> LastUse | None:
    if entry is None:
        return None
    time_s, _, value = entry.partition(b" ")
    return LastUse(float(time_s), value)
