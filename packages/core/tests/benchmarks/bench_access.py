"""Times what checking an API key adds to a request: process CPU time, the shortest of many runs.

Run it as `python packages/core/tests/benchmarks/bench_access.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from monkey_coder.api_keys import ROLES, KeyTable, new_key, settled
from monkey_coder.app.access import admit
from monkey_coder.errors import RouterError
from monkey_coder.models import ExecuteRequest, Preferences, RouteRequest

CALLS, RUNS = 2_000, 50
KEYS = 1_000
HEADERS = [(name, b"x" * 20) for name in (b"host", b"user-agent", b"accept", b"content-type", b"content-length")]


def cpu_us(work: Callable[[], Any]) -> float:
    """The least process CPU time of one call, in microseconds."""
    least = float("inf")
    for _ in range(RUNS):
        started = time.process_time()
        for _ in range(CALLS):
            work()
        least = min(least, time.process_time() - started)
    return least / CALLS * 1e6


def main() -> None:
    made = [new_key("x", ROLES[number % len(ROLES)], 0.0) for number in range(KEYS)]
    nobody = KeyTable()
    table = KeyTable.of(kept for kept, _ in made)

    def scope(path: str, key: str) -> dict[str, Any]:
        bearer = (b"authorization", b"Bearer " + key.encode())
        return {"type": "http", "path": path, "method": "POST", "headers": [*HEADERS, bearer]}

    def refused(asked: dict[str, Any]) -> None:
        try:
            admit(asked, table)
        except RouterError:
            return

    route = scope("/v1/quantum/route", made[0][1])
    deep = scope("/v1/quantum/decisions/an-id/explain", made[1][1])
    unknown = scope("/v1/quantum/route", "mk_000000000000_" + "A" * 43)
    request = RouteRequest(request=ExecuteRequest(prompt="Fix it"))
    defaults = Preferences(value_usd=0.2)
    rows = [
        ("no keys", lambda: admit(route, nobody)),
        (f"a good key of {KEYS:,}", lambda: admit(route, table)),
        ("the same, for a path with parameters", lambda: admit(deep, table)),
        ("an unknown key", lambda: refused(unknown)),
        ("stored preferences of a key", lambda: settled(request, defaults)),
    ]
    for name, work in rows:
        sys.stdout.write(f"{name:40} {cpu_us(work):6.2f} µs\n")


if __name__ == "__main__":
    main()
