"""The store of a deployment with several hosts: Redis 7 or Valkey, alone or as a Cluster.

Keys read `<namespace>:<schema>:{<family>}:...`: the hash tag keeps what changes together in one slot. Payloads
of decisions, the bulk of all data, carry no tag and spread over the Cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, cast

from redis import Redis, RedisCluster
from typing_extensions import override

from monkey_coder.errors import StoreFormatError, StoreUnavailableError
from monkey_coder.storage import redis_scripts as scripts
from monkey_coder.storage.port import (
    SCHEMA_VERSION,
    Appended,
    DecisionRow,
    Document,
    OutcomeRow,
    Place,
    PolicyCard,
    Retention,
    Store,
    StreamedOutcome,
    require_storable,
)
from monkey_coder.storage.redis_client import connect, disconnect, explained
from monkey_coder.storage.redis_entries import pack_document, read_entry, unpack_document

DEFAULT_NAMESPACE: Final = "monkey-coder"
OLDEST_SERVER: Final = 7
"""Major version; no earlier one is tested with."""

_CHUNK: Final = 500  # rows a step: the server serves nobody else meanwhile
_CONNECT_TIMEOUT_S: Final = 2.0
_ANSWER_TIMEOUT_S: Final = 5.0


class RedisStore(Store):
    """Keeps everything in Redis.

    What was acknowledged survives a crash of the server if that writes its log before it answers
    (`appendonly yes`, `appendfsync always`); `warnings` tells when it does not.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        wall_clock: Callable[[], float],
        retention: Retention | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> None:
        """Take the namespace of a server into use.

        Args:
            client: Answers in bytes, and must not try again by itself: what was done once would be done twice.
            wall_clock: Seconds since 1970, for the times of documents and policies. Leases and the age of
                outcomes go by the server's clock.
            retention: How much is kept; default `Retention()`.
            namespace: Begins every key.

        Raises:
            StoreFormatError: The server is too old, or the namespace holds another schema.
            StoreUnavailableError: The server does not answer.
            ValueError: The namespace holds other characters than letters, digits and ._:-
        """
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", namespace):
            raise ValueError(f"namespace {namespace!r}: use letters, digits and ._:- only")
        self._client = cast("Any", client)  # the library's types speak of its asynchronous client, too
        self._prefix = f"{namespace}:{SCHEMA_VERSION}:"
        # A transaction is synced once, and the commands of a long pipeline by the dozen; a Cluster has no such thing.
        self._bulk = {"transaction": not isinstance(client, RedisCluster)}
        self._now = wall_clock
        self._retention = retention or Retention()
        self._times = self._key("decisions", "times")
        self._stream = self._key("outcomes", "stream")
        self._log = (self._stream, self._key("outcomes", "standing"), self._key("outcomes", "of"))
        self._cards, self._blobs = self._key("policies", "cards"), self._key("policies", "blobs")
        self._current = self._key("policies", "current")
        self._check(namespace)

    @classmethod
    def open(
        cls,
        url: str,
        wall_clock: Callable[[], float],
        retention: Retention | None = None,
        namespace: str = DEFAULT_NAMESPACE,
    ) -> Self:
        """Connect to a server or, when it says that it is a part of one, to its Cluster.

        Arguments and errors are those of the constructor, but for the address, as
        `redis://user:password@host:6379/0`, `rediss://...` or `unix://...`; a malformed one is a ValueError.
        """
        client = connect(url, _CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S)
        try:
            return cls(client, wall_clock, retention, namespace)
        except BaseException:
            client.close()
            raise

    @override
    def append_decisions(self, rows: Sequence[DecisionRow]) -> None:
        require_storable(rows)
        keyed = [(row.id.encode(), row) for row in rows]  # an id that is no text is refused before anything is sent
        lifetime_ms = int(self._retention.max_decision_age_s * 1e3)
        for start in range(0, len(rows), _CHUNK):
            chunk = keyed[start : start + _CHUNK]
            with explained():
                pipe = self._client.pipeline(**self._bulk)
                for key, row in chunk:
                    pipe.set(self._payload(key), row.payload, px=lifetime_ms, nx=True)
                # last: who finds an id here finds its payload; reversed: of an id that comes twice the first stays
                pipe.zadd(self._times, {key: row.time_s for key, row in reversed(chunk)}, nx=True)
                pipe.execute()

    @override
    def decision(self, decision_id: str) -> bytes | None:
        with explained():
            return cast("bytes | None", self._client.get(self._payload(decision_id.encode())))

    @override
    def decision_payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            with explained():
                pipe = self._client.pipeline(transaction=False)
                for decision_id in chunk:
                    pipe.get(self._payload(decision_id.encode()))
                payloads = pipe.execute()
            found |= {name: payload for name, payload in zip(chunk, payloads, strict=True) if payload is not None}
        return found

    @override
    def recent_decisions(self, since_s: float, limit: int) -> Sequence[DecisionRow]:
        with explained():
            found = self._client.zrevrangebyscore(self._times, "+inf", since_s, 0, limit, withscores=True)
            return self._rows([(key, float(time_s)) for key, time_s in found])

    @override
    def decisions(self, after: Place, limit: int) -> Sequence[DecisionRow]:
        rows: list[DecisionRow] = []
        time_s, decision_id = after
        with explained():
            while len(rows) < limit:
                flat = self._run(scripts.PLACES, [self._times], time_s, decision_id, limit - len(rows))
                found = [(key, float(score)) for key, score in zip(flat[::2], flat[1::2], strict=True)]
                if not found:
                    break
                rows += [row for row in self._rows(found) if row.place > after]
                decision_id, time_s = found[-1][0].decode(), found[-1][1]
        return rows

    @override
    def append_outcomes(self, rows: Sequence[OutcomeRow]) -> Sequence[Appended]:
        reports = [
            (r.identity.encode(), r.decision_id.encode(), r.model.encode(), repr(float(r.occurred_at)), r.payload)
            for r in rows
        ]
        results: list[Appended] = []
        with explained():
            for start in range(0, len(rows), _CHUNK):
                values = [value for report in reports[start : start + _CHUNK] for value in report]
                results += [Appended(r.decode()) for r in self._run(scripts.APPEND_OUTCOMES, self._log, *values)]
        return results

    @override
    def outcomes_of(self, decision_id: str) -> Sequence[OutcomeRow]:
        with explained():
            found = self._run(scripts.OUTCOMES_OF, self._log[::2], decision_id)
        return [read_entry(*entry).row for entry in found]

    @override
    def read_outcomes(self, after: str, limit: int) -> Sequence[StreamedOutcome]:
        counting: list[StreamedOutcome] = []
        while not counting:
            with explained():
                found = self._client.xrange(self._stream, f"({after}", "+", count=limit)
            if not found:
                break
            after = found[-1][0].decode()
            counting = [read_entry(position, fields) for position, fields in found if fields[b"s"] != b"late"]
        return counting

    @override
    def put_policy(self, blob: bytes, card: bytes) -> int:
        keys = [self._key("policies", "counter"), self._cards, self._blobs, self._current]
        with explained():
            return int(
                self._run(scripts.PUT_POLICY, keys, pack_document(0, self._now(), card), blob, self._retention.policies)
            )

    @override
    def policy(self, number: int) -> bytes | None:
        with explained():
            return cast("bytes | None", self._client.hget(self._blobs, str(number)))

    @override
    def policies(self) -> Sequence[PolicyCard]:
        with explained():
            found = self._client.hgetall(self._cards)
        cards = {int(number): unpack_document(packed) for number, packed in found.items()}
        return [PolicyCard(number, cards[number].time_s, cards[number].value) for number in sorted(cards)]

    @override
    def current_policy(self) -> int | None:
        with explained():
            found = self._client.get(self._current)
        return None if found is None else int(found)

    @override
    def set_current_policy(self, number: int | None, expected: int | None) -> bool:
        wanted, before = ("" if n is None else str(n) for n in (number, expected))
        with explained():
            result = self._run(scripts.SET_CURRENT, [self._cards, self._current], wanted, before)
        if result < 0:
            raise ValueError(f"policy {number} is not kept; choose one of those listed")
        return bool(result)

    @override
    def put_document(self, kind: str, name: str, value: bytes, expected: int, keep: int = 0) -> bool:
        packed = pack_document(expected + 1, self._now(), value)
        keys = [self._key("documents", "versions", kind), self._values(kind), self._history(kind, name)]
        with explained():
            return bool(self._run(scripts.PUT_DOCUMENT, keys, name, packed, expected, keep))

    @override
    def document(self, kind: str, name: str, version: int | None = None) -> Document | None:
        with explained():
            newest = self._client.hget(self._values(kind), name)
        found = None if newest is None else unpack_document(newest)
        if found is None or version in (None, found.version):
            return found
        return next((old for old in self.document_history(kind, name) if old.version == version), None)

    @override
    def documents(self, kind: str) -> Mapping[str, Document]:
        with explained():
            found = self._client.hgetall(self._values(kind))
        return {name.decode(): unpack_document(packed) for name, packed in sorted(found.items())}

    @override
    def document_history(self, kind: str, name: str) -> Sequence[Document]:
        with explained():
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(self._values(kind), name)
            pipe.lrange(self._history(kind, name), 0, -1)
            newest, older = pipe.execute()
        found = {old.version: old for old in map(unpack_document, [*filter(None, [newest]), *older])}
        return [found[version] for version in sorted(found, reverse=True)]

    @override
    def acquire_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        with explained():
            return bool(self._run(scripts.ACQUIRE_LEASE, [self._key("leases", name)], owner, _milliseconds(ttl_s)))

    @override
    def renew_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        with explained():
            return bool(self._run(scripts.RENEW_LEASE, [self._key("leases", name)], owner, _milliseconds(ttl_s)))

    @override
    def release_lease(self, name: str, owner: str) -> None:
        with explained():
            self._run(scripts.RELEASE_LEASE, [self._key("leases", name)], owner)

    @override
    def lease_owner(self, name: str) -> str | None:
        with explained():
            found = self._client.get(self._key("leases", name))
        return None if found is None else cast("bytes", found).decode()

    @override
    def trim(self, now_s: float, max_rows: int = 500) -> int:
        keep = self._retention
        with explained():
            since_ms, since_s = int((now_s - keep.max_outcome_age_s) * 1e3), now_s - keep.max_decision_age_s
            outcomes = self._run(scripts.TRIM_OUTCOMES, self._log, since_ms, keep.max_outcomes, max_rows)
            ids = self._run(scripts.TRIM_DECISIONS, [self._times], since_s, keep.max_decisions, max_rows)
            if ids:  # a crash just here leaves payloads behind, until their time to live ends
                pipe = self._client.pipeline(**self._bulk)
                for decision_id in ids:
                    pipe.unlink(self._payload(decision_id))
                pipe.execute()
        return int(outcomes) + len(ids)

    @override
    def ping(self) -> None:
        with explained():
            self._client.ping()

    @override
    def warnings(self) -> Sequence[str]:
        wanted = {
            "appendonly": ("yes", "acknowledged outcomes are lost when Redis crashes"),
            "appendfsync": ("always", "acknowledged outcomes of a second or two are lost when its machine crashes"),
            "maxmemory-policy": ("noeviction", "Redis drops what it should keep when its memory is full"),
        }
        try:
            with explained():
                found = {name: self._client.config_get(name).get(name) for name in wanted}
        except StoreUnavailableError:
            return ("Redis does not let its configuration be read: see to appendonly, appendfsync, maxmemory-policy",)
        return [
            f"Redis has {name} {found[name]}: {risk}; set it to {good}"
            for name, (good, risk) in wanted.items()
            if found[name] not in (good, None)
        ]

    @override
    def close(self) -> None:
        disconnect(self._client)

    def _check(self, namespace: str) -> None:
        with explained():
            info = self._client.info("server")
            version = str(info.get("valkey_version", info["redis_version"]))
            if int(version.split(".")[0]) < OLDEST_SERVER:
                raise StoreFormatError(f"Redis {version} is too old: version {OLDEST_SERVER} or Valkey is needed")
            self._client.set(key := f"{namespace}:schema", SCHEMA_VERSION, nx=True)
            found = self._client.get(key).decode(errors="replace")
        if found != str(SCHEMA_VERSION):
            raise StoreFormatError(
                f"Redis key {key!r} speaks of schema {found}, this program reads schema {SCHEMA_VERSION}; run the "
                "version of the router that wrote it, or choose another namespace or database"
            )

    def _key(self, family: str, *rest: str) -> str:
        return ":".join([f"{self._prefix}{{{family}}}", *rest])

    def _payload(self, decision_id: bytes) -> bytes:
        return self._prefix.encode() + b"decision:" + decision_id

    def _values(self, kind: str) -> str:
        return self._key("documents", "values", kind)

    def _history(self, kind: str, name: str) -> str:
        return self._key("documents", "history", str(len(kind)), kind, name)

    def _rows(self, found: Sequence[tuple[bytes, float]]) -> list[DecisionRow]:
        """The rows behind entries of the index, without those that ended meanwhile."""
        pipe = self._client.pipeline(transaction=False)
        for key, _ in found:
            pipe.get(self._payload(key))
        payloads = pipe.execute() if found else []
        return [
            DecisionRow(key.decode(), time_s, payload)
            for (key, time_s), payload in zip(found, payloads, strict=True)
            if payload is not None
        ]

    def _run(self, script: str, keys: Sequence[str], *values: bytes | str | float) -> Any:  # noqa: ANN401 each script has its own answer
        return self._client.register_script(script)(keys=keys, args=values)


def _milliseconds(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1e3))
