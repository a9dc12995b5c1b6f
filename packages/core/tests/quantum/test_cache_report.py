"""What is told of the cache's tiers, and what is advised about Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from monkey_coder.quantum.cache_report import memory_advice, redis_report

MB = 1_000_000


def advice(used: int, bound: int, policy: str) -> str:
    return " ".join(memory_advice({"used_memory": used, "maxmemory": bound, "maxmemory_policy": policy}, 5 * MB))


def test_a_bounded_server_with_room_needs_no_advice() -> None:
    assert advice(10 * MB, 100 * MB, "noeviction") == ""


def test_a_server_without_a_bound_is_named_with_its_size() -> None:
    assert "maxmemory is not set: the cache takes about 5 MB of 10 MB" in advice(10 * MB, 0, "noeviction")


def test_a_full_server_that_refuses_writes_is_named() -> None:
    told = advice(95 * MB, 100 * MB, "noeviction")
    assert "95 of 100 MB are used: raise maxmemory" in told
    assert "refuses writes" in told


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
def test_policies_that_drop_what_must_stay_are_named(policy: str) -> None:
    assert f"maxmemory-policy {policy} drops decisions" in advice(10 * MB, 100 * MB, policy)


@dataclass
class Tier:
    """A shared tier over a mapping; `broken` fails as a client does."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    broken: bool = False
    failing: bool = False
    counts: Mapping[str, int] = field(default_factory=lambda: {"fetched": 3})

    def scan(self, limit: int) -> Iterable[tuple[bytes, bytes]]:
        if self.broken:
            raise ConnectionError("refused")
        return list(self.kept.items())[:limit]

    def info(self) -> Mapping[str, int | str]:
        return {"used_memory": MB, "maxmemory": 10 * MB, "maxmemory_policy": "noeviction"}


def test_entries_and_bytes_are_counted() -> None:
    small, large = redis_report(Tier({b"k" * 10: b"v" * 100})), redis_report(Tier({b"k" * 10: b"v" * 1100}))
    assert (small["entries"], small["counted_all"], small["calls"]) == (1, True, {"fetched": 3})
    assert large["bytes"] - small["bytes"] == 1000
    assert small["maxmemory"] == 10 * MB


def test_a_server_that_does_not_answer_is_told_and_not_raised() -> None:
    told = redis_report(Tier(broken=True))
    assert told["failing"] is True
    assert told["advice"] == ["Redis does not answer"]
