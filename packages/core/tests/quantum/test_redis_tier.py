"""The shared tier against real servers: shared when all is well, harmless whatever befalls them."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import Fixed, SetClock, ask
from caching import KEYRING, NOW, STEADY, House, entry, house
from impostors import drip, half, impostor, noise
from redis_process import RedisProcess, patient_tier, running_redis
from servers import PATIENCE_S, eventually, free_port

from monkey_coder.errors import NoEligibleModelError
from monkey_coder.quantum.cache_entry import encode
from monkey_coder.quantum.cache_key import KEY_BYTES, Keyring
from monkey_coder.quantum.cache_verifier import CacheVerifier
from monkey_coder.quantum.redis_line import MOST_LATE
from monkey_coder.quantum.redis_tier import MOST_UNWANTED, RedisTier

SURE = Fixed("sure", [0.2, 0.8, 0.3])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with running_redis(tmp_path, "--appendonly", "no") as running:
        yield running


@contextmanager
def tier(server: RedisProcess) -> Iterator[RedisTier]:
    opened = patient_tier(server.url)
    try:
        yield opened
    finally:
        opened.close()


def settled(shared: RedisTier) -> None:
    """Wait until everything that was to be kept is kept."""
    assert shared.settle(PATIENCE_S)


def cache_of(home: House, *prompts: str) -> list[str]:
    return [answer["cache"] for answer in home.route(*(ask(prompt) for prompt in prompts))]


def test_what_one_learned_the_other_hits(server: RedisProcess) -> None:
    with tier(server) as one, tier(server) as two, house(SURE, redis=one) as a, house(SURE, redis=two) as b:
        assert cache_of(a, "first", "second") == ["miss", "miss"]
        settled(one)
        assert cache_of(b, "first", "second", "third") == ["redis", "redis", "miss"]
        assert cache_of(b, "first") == ["local"]
        assert b.decided == 1
        a.cache.forget(a.cache.tiers.local.items()[0][1].origin, "mid/middle")
        settled(one)
        with tier(server) as three, house(SURE, redis=three) as c:
            assert cache_of(c, "first", "second") == ["miss", "redis"]


def test_another_secret_finds_nothing(server: RedisProcess) -> None:
    other = Keyring("other", b"another secret for tests only"[:32])
    with tier(server) as one, house(SURE, redis=one) as a, house(SURE, redis=one, keyring=other) as b:
        cache_of(a, "first")
        settled(one)
        assert cache_of(b, "first") == ["miss"]


def test_no_prompt_and_no_secret_reach_the_server(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one) as home:
        cache_of(home, "Find the treasure that pirates buried")
        settled(one)
        with server.client() as client:
            stored = b"".join(key + client.get(key) for key in client.scan_iter())
    assert b"mid" in stored
    assert b"treasure" not in stored
    assert KEYRING.secret not in stored


def test_the_server_forgets_entries_by_itself(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one) as home:
        cache_of(home, "first")
        settled(one)
        with server.client() as client:
            (name,) = client.keys()
            assert 0 < client.pttl(name) <= 100_000


def test_entries_can_be_listed_counted_and_cleared(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one) as home:
        with server.client() as client:
            client.set("somebody:else", "stays")
        home.route(*(ask(f"prompt {number}") for number in range(700)))
        one.keep([(b"like:something", b"else", 9.0)])
        settled(one)
        assert len(list(home.cache.shared(10_000))) == 700
        assert len(list(home.cache.shared(25))) <= 25
        assert set(one.info()) == {"used_memory", "maxmemory", "maxmemory_policy"}
        assert one.clear() == 701
        assert list(home.cache.shared(10)) == []
        with server.client() as client:
            assert client.keys() == [b"somebody:else"]


def test_all_keys_lie_in_one_slot_of_a_cluster(tmp_path: Path) -> None:
    with (
        running_redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as clustered,
        tier(clustered) as one,
        house(SURE, redis=one) as a,
        house(SURE, redis=one) as b,
    ):
        cache_of(a, "first", "second", "third")
        settled(one)
        assert cache_of(b, "first", "second", "third") == ["redis"] * 3


def test_damaged_entries_are_never_given_and_all_repaired(server: RedisProcess) -> None:
    count, rng = 300, random.Random(11)
    prompts = [f"prompt {number}" for number in range(count)]
    with tier(server) as one, house(SURE, redis=one) as a, server.client() as client:
        cache_of(a, *prompts)
        settled(one)
        names = client.keys()
        assert len(names) == count
        good = dict(zip(names, client.mget(names), strict=True))
        for name in names:
            client.set(name, damaged(good[name], rng, good[rng.choice([n for n in names if n != name])]))
        with tier(server) as two, house(SURE, redis=two) as b:
            assert cache_of(b, *prompts) == ["miss"] * count
            assert b.cache.counts["redis", "corrupt"] == count
            settled(two)
        with tier(server) as three, house(SURE, redis=three) as c:
            assert cache_of(c, *prompts) == ["redis"] * count


def damaged(payload: bytes, rng: random.Random, other: bytes) -> bytes:
    """One of the ways in which bytes get lost, changed, or somewhere else."""
    place = rng.randrange(len(payload))
    return rng.choice(
        [
            lambda: payload[:place],
            lambda: payload[:place] + bytes([payload[place] ^ 1 << rng.randrange(8)]) + payload[place + 1 :],
            lambda: payload[:3] + bytes([rng.randrange(2, 256)]) + payload[4:],
            lambda: payload + rng.randbytes(rng.randrange(1, 9)),
            lambda: rng.randbytes(place),
            lambda: other,
        ]
    )()


def test_an_entry_past_its_end_is_not_given_though_the_server_has_it(server: RedisProcess) -> None:
    key = b"k" * KEY_BYTES
    with tier(server) as one, house(SURE, redis=one) as home:
        one.keep([(key, encode(entry(expires_at=NOW - 1.0), key, KEYRING), 60.0)])
        settled(one)
        assert one.fetch([key]) != [None]
        assert home.cache.remote.get([key]) == {}


# Trouble


def answers_throughout(home: House, prompt: str) -> Any:
    (answer,) = home.route(ask(prompt))
    assert answer["provider"] in {"tiny", "mid", "big"}
    return answer


def test_a_server_that_dies_costs_no_answer_and_is_used_again_when_it_is_back(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one) as home:
        answers_throughout(home, "before")
        settled(one)
        server.kill()
        assert answers_throughout(home, "while it is dead")["degraded"] == ["redis"]
        assert answers_throughout(home, "while it is dead")["cache"] == "local"
        assert answers_throughout(home, "before")["degraded"] == ["redis"]
        server.start()  # empty
        eventually(lambda: not one.failing)
        assert answers_throughout(home, "after")["degraded"] == []
        settled(one)
        with tier(server) as two, house(SURE, redis=two) as other:
            assert cache_of(other, "after", "before") == ["redis", "miss"]


def test_a_server_that_was_never_there_costs_nothing(tmp_path: Path) -> None:
    absent = RedisProcess(tmp_path)
    with tier(absent) as one, house(SURE, redis=one) as home:
        eventually(lambda: one.failing)
        assert answers_throughout(home, "first")["degraded"] == ["redis"]
        absent.start()
        try:
            eventually(lambda: not one.failing)
            assert answers_throughout(home, "second")["degraded"] == []
        finally:
            absent.kill()


def test_a_server_that_hangs_is_waited_for_a_few_times_and_then_no_more(server: RedisProcess) -> None:
    with closing(RedisTier.open(server.url, time.monotonic, 0.02)) as one, house(SURE, redis=one) as home:
        eventually(lambda: answers_throughout(home, f"before {time.monotonic()}")["degraded"] == [])
        server.send(signal.SIGSTOP)
        late = one.counts["late"]
        try:
            answers = [answers_throughout(home, f"while it hangs {number}") for number in range(50)]
            assert all(answer["degraded"] == ["redis"] for answer in answers)
            assert one.counts["late"] - late <= MOST_LATE
            assert one.counts["skipped"] >= 50 - 2 * MOST_LATE
        finally:
            server.send(signal.SIGCONT)
        eventually(lambda: answers_throughout(home, f"after {time.monotonic()}")["degraded"] == [])


def test_a_server_without_memory_still_serves_what_it_has(tmp_path: Path) -> None:
    full = ("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    with running_redis(tmp_path, "--appendonly", "no") as server, tier(server) as one, house(SURE, redis=one) as home:
        answers_throughout(home, "before")
        settled(one)
        with server.client() as client:
            client.config_set("maxmemory", full[1])
        answers_throughout(home, "fills")
        eventually(lambda: one.failing)
        with house(SURE, redis=one) as other:
            assert answers_throughout(other, "before")["cache"] == "redis"
            assert answers_throughout(other, "before")["degraded"] == ["redis"]
        with server.client() as client:
            client.config_set("maxmemory", "0")
        eventually(lambda: not one.failing)
        assert answers_throughout(home, "after")["degraded"] == []


def test_a_server_that_became_a_replica_is_only_read(tmp_path: Path) -> None:
    (tmp_path / "primary").mkdir()
    (tmp_path / "replica").mkdir()
    with (
        running_redis(tmp_path / "primary", "--appendonly", "no") as primary,
        running_redis(tmp_path / "replica", "--appendonly", "no") as server,
        tier(server) as one,
        house(SURE, redis=one) as home,
        server.client() as client,
    ):
        answers_throughout(home, "before")
        settled(one)
        client.replicaof("127.0.0.1", str(primary.port))
        answers_throughout(home, "while it is one")
        eventually(lambda: one.failing)
        assert answers_throughout(home, "still")["degraded"] == ["redis"]
        client.replicaof("NO", "ONE")
        eventually(lambda: not one.failing)
        assert answers_throughout(home, "after")["degraded"] == []


def test_a_decision_that_failed_comes_back_from_nowhere_though_the_server_takes_no_orders(
    server: RedisProcess,
) -> None:
    with (
        tier(server) as one,
        tier(server) as two,
        house(SURE, redis=one) as a,
        house(SURE, redis=two) as b,
        server.client() as client,
    ):
        failed = answers_throughout(a, "first")["decision_id"]
        settled(one)
        client.config_set("min-replicas-to-write", "1")  # it can still be read
        assert a.cache.forget(failed, "mid/middle") == 1
        assert b.cache.forget(failed, "mid/middle") == 0  # it has not met it yet
        assert cache_of(a, "first") == cache_of(b, "first") == ["miss"]
        eventually(lambda: one.failing and two.failing)
        assert one.fetch([client.keys()[0].removeprefix(b"monkey-coder:{cache}:")]) is not None
        client.config_set("min-replicas-to-write", "0")
        eventually(lambda: client.keys(b"*probe*") == client.keys())
        eventually(lambda: not one.failing)
        with tier(server) as three, house(SURE, redis=three) as c:
            assert cache_of(c, "first") == ["miss"]


def test_a_failure_speaks_against_the_model_that_failed_and_no_other(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one) as home:
        decided = answers_throughout(home, "first")["decision_id"]
        settled(one)
        assert home.cache.forget(decided, "big/dear") == 0  # its caller fell back to that one
        home.cache.tiers.local.clear()
        assert cache_of(home, "first") == ["redis"]


def test_a_hit_that_does_not_stand_is_deleted_though_it_has_left_the_process(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one, check_rate=1.0) as home:
        cache_of(home, "first", "second")
        assert cache_of(home, "first") == ["local"]
        settled(one)
        home.cache.tiers.local.clear()
        assert CacheVerifier(home.cache, lambda _: [NoEligibleModelError([])], home.notes).check() == 1
        settled(one)
        with tier(server) as two, house(SURE, redis=two) as other:
            assert cache_of(other, "first", "second") == ["miss", "redis"]


def test_what_is_to_be_deleted_does_not_pile_up_while_the_server_is_away(tmp_path: Path) -> None:
    with tier(RedisProcess(tmp_path)) as one:
        eventually(lambda: one.failing)
        one.forget([number.to_bytes(4) for number in range(MOST_UNWANTED + 5)])
        assert one.counts["dropped"] == 5
        assert not one.settle(PATIENCE_S)


@pytest.mark.parametrize("says", [half, noise, drip], ids=["half an answer", "another protocol", "drop by drop"])
def test_what_answers_wrongly_or_without_end_costs_no_answer(says: Callable[[socket.socket], None]) -> None:
    with impostor(says) as url:
        one = RedisTier.open(url, time.monotonic, 0.05)
        try:
            with house(SURE, redis=one) as home:
                for number in range(5):
                    answers_throughout(home, f"prompt {number}")
                eventually(lambda: one.failing)
                assert answers_throughout(home, "another")["degraded"] == ["redis"]
        finally:
            one.close()


def test_all_waits_of_one_batch_together_are_one(server: RedisProcess) -> None:
    clock = SetClock(0.0)
    one = patient_tier(server.url, clock)
    try:
        with one.one_wait():
            assert one.fetch([b"a"]) == [None]
            clock.now += PATIENCE_S
            assert one.fetch([b"a"]) is None
            assert not one.failing
        assert one.fetch([b"a"]) == [None]
    finally:
        one.close()


def test_a_malformed_address_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="scheme"):
        RedisTier.open("nonsense", time.monotonic)


def test_what_is_not_bytes_at_a_key_is_a_miss(server: RedisProcess) -> None:
    key = b"k" * KEY_BYTES
    with tier(server) as one, server.client() as client:
        client.rpush(b"monkey-coder:{cache}:" + key, "a list")
        assert one.fetch([key, b"other"]) == [None, None]


def test_swapping_the_server_for_an_empty_one_under_load_fails_nothing(server: RedisProcess) -> None:
    with tier(server) as one, house(SURE, redis=one, lifetimes=STEADY) as home:
        ended = threading.Event()
        answers: list[Any] = []

        def load() -> None:
            number = 0
            while not ended.is_set():
                number += 1
                answers.append(answers_throughout(home, f"prompt {number % 50}"))
                if number % 50 == 0:
                    home.cache.tiers.local.clear()

        def last() -> Any:
            return answers[-1] if answers else {"cache": None, "degraded": None}

        pool = ThreadPoolExecutor(1)
        loading = pool.submit(load)
        try:
            for _ in range(2):
                eventually(lambda: last()["cache"] == "redis")
                server.kill()
                eventually(lambda: last()["degraded"] == ["redis"])
                server.start()
                eventually(lambda: last()["degraded"] == [])
            eventually(lambda: last()["cache"] == "redis")
        finally:
            ended.set()
            loading.result()
            pool.shutdown()
    assert len(answers) > 100
