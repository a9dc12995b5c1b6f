"""What does the decision cache hold, withstand and save?

Usage: measure_cache.py PART [options]; PART is one of

    operations [--count 100000]     random operations on two processes and one Redis, against a model
    damage [--count 10000]          randomly damaged entries in Redis: how many are given, how many repaired
    hit [--count 20000]             how long a hit in the process takes, from the bytes of the request to the answer's
    miss [--count 64]               how much CPU time the cache adds to a decision that it does not know, per request
    similar [--count 20000]         how much CPU time it takes to look for a similar prompt, by the number of entries
    throughput [--seconds 10]       80% hits against none, 1,000 connections, by wrk
    redis [--rate 1500]             how long asking Redis takes at so many requests a second, through a whole server
    fetch [--count 300]             how long asking Redis for five entries takes, in the asking thread and by another

Redis servers are started for it and ended. Prints Markdown; 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import orjson
from starlette.types import Message

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "packages" / "core" / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "benchmarks")]

from builders import Fixed, ask  # noqa: E402
from cache_machine import CacheMachine  # noqa: E402
from caching import house  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis.stateful import invariant, run_state_machine_as_test  # noqa: E402
from load import _output, allow_many_connections  # noqa: E402
from quantum.test_redis_tier import damaged  # noqa: E402
from redis_process import RedisProcess, running_redis  # noqa: E402
from subjects import HERE, Subject, engine  # noqa: E402

from monkey_coder.app.hot_path import decide, parse  # noqa: E402
from monkey_coder.bootstrap import open_engine  # noqa: E402
from monkey_coder.quantum.cache_admission import Admission  # noqa: E402
from monkey_coder.quantum.cache_key import KEY_BYTES, CacheKey  # noqa: E402
from monkey_coder.quantum.cache_parts import SimilarAsk  # noqa: E402
from monkey_coder.quantum.embedding import StaticEmbedder  # noqa: E402
from monkey_coder.quantum.prompt_similarity import PromptSimilarity  # noqa: E402
from monkey_coder.quantum.redis_tier import RedisTier  # noqa: E402
from monkey_coder.quantum.similarity_index import LikenessIndex  # noqa: E402
from monkey_coder.settings import Settings  # noqa: E402

SURE = Fixed("sure", [0.2, 0.8, 0.3])
WORDS = "fix the race in our cache when two workers write to one file and one of them dies before it closes"
STEPS = 100
"""Operations of one run of the machine."""
TOGETHER = 16
"""Similar prompts that are looked up together."""
ROUNDS = 3
"""Times that everything is asked until Redis has it: the cache keeps strangers out that it has not seen before."""


class Everybody(Admission):
    """A door that stays open."""

    def admit(self, missed: Sequence[CacheKey], hits: int) -> set[CacheKey]:  # noqa: ARG002 - as its base has it
        """All of them."""
        return set(missed)


@contextmanager
def redis_here() -> Iterator[RedisProcess]:
    """A server of its own, without persistence."""
    with TemporaryDirectory() as folder, running_redis(Path(folder), "--appendonly", "no") as server:
        yield server


def operations(given: argparse.Namespace) -> bool:
    """Run the machine until it has done so many operations."""
    done = 0

    class Counting(CacheMachine):
        @invariant()
        def is_counted(self) -> None:
            nonlocal done
            done += 1

    with redis_here() as server:
        tiers = [RedisTier.open(server.url, time.monotonic, 30.0) for _ in range(2)]
        CacheMachine.url, CacheMachine.tiers = server.url, tiers
        profile = settings(
            max_examples=100,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        while done < given.count:
            run_state_machine_as_test(Counting, settings=profile)
        for tier in tiers:
            tier.close()
    print(f"| operations | disagreements with the model |\n|---|---|\n| {done:,} | 0 |")
    return True


def damage(given: argparse.Namespace) -> bool:
    """Damage every entry that Redis has, ask for all of them, and ask once more from another process."""
    rng = random.Random(given.seed)  # noqa: S311 - damage and load, not secrets
    prompts = [f"prompt {number}" for number in range(given.count)]
    served = repaired = 0
    with redis_here() as server:
        tiers = [RedisTier.open(server.url, time.monotonic, 60.0) for _ in range(3)]
        with server.client() as client:
            for stage, tier in enumerate(tiers):
                with house(SURE, redis=tier, max_bytes=10**9) as home:
                    home.cache.admission = Everybody()
                    for start in range(0, len(prompts), 500):
                        answers = home.route(*(ask(prompt) for prompt in prompts[start : start + 500]))
                        hits = sum(answer["cache"] == "redis" for answer in answers)
                        served += hits * (stage == 1)
                        repaired += hits * (stage == 2)
                        tier.settle(60.0)
                if stage == 0:
                    names = list(client.scan_iter(count=1000))
                    good = client.mget(names)
                    for place, name in enumerate(names):
                        client.set(name, damaged(good[place], rng, good[place - 1]))
        for tier in tiers:
            tier.close()
    print(f"| damaged | given all the same | repaired |\n|---|---|---|\n| {len(names):,} | {served} | {repaired:,} |")
    return len(names) == given.count and served == 0 and repaired == given.count


def hit(given: argparse.Namespace) -> bool:
    """Time hits in the process, one by one."""
    body = json.dumps({"request": {"prompt": "Fix the race in our LRU cache. " * 8}}).encode()

    async def measured() -> dict[str, float]:
        async def nobody() -> Message:
            await asyncio.Event().wait()
            return {}

        with TemporaryDirectory() as folder:
            async with open_engine(Settings(state_dir=Path(folder), explore=False, cache_check_rate=0.0)) as opened:
                for _ in range(3):
                    await decide(body, opened, nobody)
                cache = opened.caching.cache
                ways: dict[str, Callable[[], object]] = {
                    "the same bytes": lambda: cache.recall(body),
                    "read, keyed and found": lambda: cache.find(cache.ask(parse(body))),
                }
                return {name: _median_us(way, given.count) for name, way in ways.items()}

    told = asyncio.run(measured())
    print("| hit | p50 in microseconds |\n|---|---|")
    for name, value in told.items():
        print(f"| {name} | {value:.1f} |")
    return max(told.values()) < 50.0


def _median_us(way: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        way()
        times.append(time.perf_counter_ns() - started)
    return float(np.median(times)) / 1e3


def miss(given: argparse.Namespace) -> bool:
    """CPU time of batches that nothing is known of, with and without the cache in turns."""
    rng = random.Random(given.seed)  # noqa: S311 - damage and load, not secrets
    words = WORDS.split()

    def bodies(mode: str) -> list[bytes]:
        prompts = (" ".join(rng.choices(words, k=40)) for _ in range(given.count))
        return [
            json.dumps({"request": {"prompt": prompt}, "quantum_config": {"cache": mode}}).encode()
            for prompt in prompts
        ]

    async def measured() -> dict[bool, list[float]]:
        extra: dict[bool, list[float]] = {True: [], False: []}
        with TemporaryDirectory() as folder:
            async with open_engine(Settings(state_dir=Path(folder))) as opened:
                cache = opened.caching.cache
                for _ in range(120):
                    took = {}
                    for mode in ("bypass", "use"):
                        batch = bodies(mode)
                        started = time.thread_time_ns()
                        asked = [cache.ask(parse(body)) for body in batch]
                        for each, body in zip(asked, batch, strict=True):
                            cache.recall(body)
                            cache.find(each, body)
                        cache.decide(asked)
                        took[mode] = (time.thread_time_ns() - started) / 1e3 / given.count
                    extra[cache.admission.open].append(took["use"] - took["bypass"])
        return extra

    told = asyncio.run(measured())
    print("| a miss costs more than a bypass, by | p50 in microseconds of CPU time |\n|---|---|")
    print(f"| while everything is kept | {np.median(told[True]):.1f} |")
    print(f"| once strangers are kept out | {np.median(told[False]):.1f} |")
    return True


def similar(given: argparse.Namespace) -> bool:
    """CPU time of looking up prompts that differ from a known one by a courtesy, in an index of more and more."""
    rng, numbers = np.random.default_rng(given.seed), range(given.count)
    prompts = [f"Task {number}: {' '.join(rng.choice(WORDS.split(), 40))}" for number in numbers]
    embedder = StaticEmbedder.load()
    asked = [f"Please {prompt[0].lower()}{prompt[1:]}" for prompt in prompts[:TOGETHER]]
    wanted = [
        SimilarAsk(prompt, b"family", vector) for prompt, vector in zip(asked, embedder.embed(asked), strict=True)
    ]
    index = LikenessIndex(PromptSimilarity(b"of this measurement, and of nothing else"[:32]), max_entries=given.count)
    vectors = embedder.embed(prompts)
    print("| entries | p50 in microseconds of CPU time per prompt | found |\n|---|---|---|")
    for start, end in pairwise([0, *(count for count in (100, 1_000, 10_000) if count < given.count), given.count]):
        added = [SimilarAsk(prompts[row], b"family", vectors[row]) for row in range(start, end)]
        index.add(added, [row.to_bytes(KEY_BYTES) for row in range(start, end)])
        took = []
        for _ in range(200):
            began = time.thread_time_ns()
            found = index.find(wanted)
            took.append((time.thread_time_ns() - began) / 1e3 / len(wanted))
        print(f"| {len(index):,} | {np.median(took):.1f} | {sum(key is not None for key in found)} of {len(wanted)} |")
    return True


def throughput(given: argparse.Namespace) -> bool:
    """The rate of a server with a share of hits, against the same without any, one after the other, several times."""
    allow_many_connections()
    rates: dict[float, list[float]] = {0.0: [], given.share: []}
    failed = 0
    with engine("cache", workers=given.workers) as subject:
        for turn in range(given.turns + 1):
            for share in rates:
                result = _closed(subject, given, share, turn)
                failed += result["errors"] + result["refused"]
                if turn:  # the first warms up
                    rates[share].append(result["requests"] / result["seconds"])
        hits = _hits(subject)
    cold, warm = (float(np.median(found)) for found in rates.values())
    print("| share of repeats | requests a second |\n|---|---|")
    print(f"| 0% | {cold:,.0f} |\n| {given.share:.0%} | {warm:,.0f} |\n")
    print(f"ratio {warm / cold:.2f}, failed {failed}, hits {hits:,}")
    return warm >= 1.5 * cold and failed == 0


def _closed(subject: Subject, given: argparse.Namespace, share: float, seed: int) -> dict[str, Any]:
    command = ["wrk", "-t2", f"-c{given.connections}", f"-d{given.seconds}s", "--timeout", "10s"]
    command += ["-s", str(HERE / "wrk_cache.lua"), subject.url, "--", "/v1/quantum/route", str(share), "500", str(seed)]
    found: dict[str, Any] = json.loads(_output(command, None).partition("\nJSON ")[2])
    return found


def _hits(subject: Subject) -> int:
    text = httpx.get(f"{subject.url}/metrics").text
    return sum(int(float(n)) for n in re.findall(r'cache_requests_total\{result="hit"[^}]*\} ([\d.e+]+)', text))


def redis(given: argparse.Namespace) -> bool:
    """Ask a server that keeps next to nothing itself for what Redis has, at a constant rate."""
    prompts = [f"Task {number}: fix the race in our cache and write a test for it" for number in range(given.count)]
    with redis_here() as server:
        shared = {"MONKEY_CODER_REDIS_URL": server.url, "MONKEY_CODER_CACHE_MB": "1", "MONKEY_CODER_EXPLORE": "false"}
        with engine("redis", settings=shared) as subject:
            told = asyncio.run(_at_rate(subject.url, prompts, given))
    print("| answered by | requests | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, times in sorted(told.items()):
        p50, p99 = np.percentile(times, [50, 99])
        print(f"| {name} | {len(times):,} | {p50:.2f} | {p99:.2f} |")
    return bool(np.percentile(told["redis"], 99) < 5.0)


async def _at_rate(url: str, prompts: list[str], given: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds that each answer took by its own account, by where it came from."""
    rng = random.Random(given.seed)  # noqa: S311 - damage and load, not secrets
    told: dict[str, list[float]] = {}
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as client:

        async def batch(chosen: list[str], *, note: bool) -> None:
            requests = [{"request": {"prompt": prompt}} for prompt in chosen]
            answer = await client.post("/v1/quantum/route/batch", content=orjson.dumps({"requests": requests}))
            for each in orjson.loads(answer.content)["results"] if note else ():
                told.setdefault(each["decision"]["cache"], []).append(each["decision"]["execution_time_ms"])

        for _ in range(ROUNDS):
            for start in range(0, len(prompts), 100):
                await batch(prompts[start : start + 100], note=False)
        began, waiting = time.monotonic(), []
        for turn in range(round(given.seconds * given.rate / given.together)):
            await asyncio.sleep(max(0.0, began + turn * given.together / given.rate - time.monotonic()))
            waiting.append(asyncio.create_task(batch(rng.choices(prompts, k=given.together), note=True)))
        await asyncio.gather(*waiting)
    return told


def fetch(given: argparse.Namespace) -> bool:
    """Ask Redis for a few entries, directly and, while the direct connection is held, by the reading thread."""
    wall: dict[str, list[float]] = {"by the reading thread": [], "by the asking thread": []}
    spent: dict[str, list[float]] = {way: [] for way in wall}
    with redis_here() as server:
        tier = RedisTier.open(server.url, time.monotonic, 60.0)
        keys = [number.to_bytes(KEY_BYTES) for number in range(5)]
        tier.keep([(key, random.Random(given.seed).randbytes(3_400), 600.0) for key in keys])  # noqa: S311 - load
        tier.settle(60.0)
        for way in tuple(wall) * given.count:
            held = tier._direct.take() if way == "by the reading thread" else None
            began, cpu = time.perf_counter_ns(), time.process_time_ns()
            tier.fetch(keys)
            spent[way].append((time.process_time_ns() - cpu) / 1e3)
            wall[way].append((time.perf_counter_ns() - began) / 1e6)
            if held is not None:
                tier._direct.give_back(held)
        tier.close()
    print("| five entries | CPU time in microseconds | p50 ms | p90 ms | p99 ms |\n|---|---|---|---|---|")
    for way, times in wall.items():
        p50, p90, p99 = np.percentile(times, [50, 90, 99])
        print(f"| {way} | {np.median(spent[way]):.0f} | {p50:.2f} | {p90:.2f} | {p99:.2f} |")
    return True


PARTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    each.__name__: each for each in (operations, damage, hit, miss, similar, throughput, redis, fetch)
}
COUNTS = {
    "operations": 100_000,
    "damage": 10_000,
    "hit": 20_000,
    "miss": 64,
    "similar": 20_000,
    "redis": 3_000,
    "fetch": 300,
    "throughput": 0,
}


def main() -> int:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--count", type=int, help="of whatever the part counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=10, help="of one run of load")
    parser.add_argument("--turns", type=int, default=3, help="runs of each load")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2, help="web processes")
    parser.add_argument("--share", type=float, default=0.8, help="of requests that repeat")
    parser.add_argument("--rate", type=float, default=1500.0, help="requests a second")
    parser.add_argument("--together", type=int, default=5, help="requests sent in one body at that rate")
    given = parser.parse_args()
    given.count = given.count or COUNTS[given.part]
    return 0 if PARTS[given.part](given) else 1


if __name__ == "__main__":
    sys.exit(main())
