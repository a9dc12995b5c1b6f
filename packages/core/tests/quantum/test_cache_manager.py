"""What makes entries of the cache come and go, one by one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from builders import Fixed, ask, engine
from redis_process import RedisProcess, patient_tier, running_redis
from servers import PATIENCE_S, eventually

from monkey_coder.caching import cache_before
from monkey_coder.errors import StoreUnavailableError
from monkey_coder.models import RouteRequest
from monkey_coder.ports import FloatArray, OutcomeEvent
from monkey_coder.quantum.cache_key import Keyring
from monkey_coder.quantum.cache_manager import CacheManager, ManagerOptions, order_clear
from monkey_coder.quantum.cache_verifier import CacheVerifier, plain
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.prompt_similarity import PromptSimilarity
from monkey_coder.quantum.redis_tier import RedisTier
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.quantum.similarity_index import LikenessIndex
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.storage.sqlite_store import SqliteStore

KEYRING = Keyring("tests", b"a secret of the cache for tests."[:32])
PROMPT = "Fix the failing test"
OFTEN = "What is asked for often"
DEAR, MIDDLE, CHEAP = "big/dear", "mid/middle", "tiny/cheap"


class Alike:
    """Gives all prompts the same embedding, so that their wording alone tells them apart."""

    dimensions = 4

    def embed(self, texts: Sequence[str]) -> FloatArray:
        return np.tile(np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32), (len(texts), 1))


@dataclass
class Process:
    """A cache with its manager over a real engine whose snapshot can be swapped."""

    cache: RoutingCache
    manager: CacheManager
    now: list[EngineSnapshot]
    store: SqliteStore
    log: list[Any]

    def ask(self, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
        asked = self.cache.ask(request(prompt, **options))
        answer = self.cache.find(asked) or self.cache.decide([asked])[0]
        return answer if isinstance(answer, dict) else orjson.loads(answer)

    def swap(self, **changes: Any) -> None:
        self.now[0] = replace(self.now[0], **changes)
        self.manager.look()

    def write_log(self) -> None:
        self.store.append_decisions([make() for make in self.log])

    def report(self, origin: str, model: str, score: float | None) -> None:
        self.manager.on_outcomes([OutcomeEvent("report", model, score, None, origin)])


def request(prompt: str, **options: Any) -> RouteRequest:
    return ask(prompt, options={"explore": False, **options})


@contextmanager
def process(folder: Path, shared: RedisTier | None = None, options: ManagerOptions | None = None) -> Iterator[Process]:
    with ExitStack() as stack:
        store = SqliteStore(folder / "store.sqlite3", time.time)
        stack.callback(store.close)
        log: list[Any] = []
        favourite = Fixed("favourite", [0.1, 0.2, 0.9])
        listening = [DecisionLog(log.append, time.time)]
        made = stack.enter_context(engine(favourite, embedder=Alike(), listeners=listening))
        now = [replace(made.snapshot(), policy_version=1)]
        made.snapshot = lambda: now[0]
        cache = cache_before(
            made,
            KEYRING,
            10_000_000,
            time.time,
            time.monotonic,
            np.random.default_rng(0),
            shared=shared,
            similar=LikenessIndex(PromptSimilarity(KEYRING.secret), shared=shared),
        )
        notes = cache.deciding.notes
        quiet = replace(made, listeners=(notes,))
        manager = CacheManager(
            cache=cache,
            verifier=CacheVerifier(cache, quiet.decide, notes),
            decide=lambda requests: quiet.decide([plain(each) for each in requests]),
            notes=notes,
            store=store,
            snapshot=made.snapshot,
            options=options or ManagerOptions(),
        )
        cache.remember = manager.patterns.note
        yield Process(cache, manager, now, store, log)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path) as running:
        running.manager.look()
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with running_redis(folder, "--save", "") as server:
        yield server


def test_a_failed_decision_takes_its_own_entry_along_and_no_other(here: Process) -> None:
    first, _ = here.ask(), here.ask("Another task")
    here.report(first["decision_id"], DEAR, 0.0)
    assert here.ask()["cache"] == "miss"
    assert here.ask("Another task")["cache"] == "local"


def test_who_sets_the_lives_of_entries_is_told_how_much_is_learned(here: Process) -> None:
    told: list[int] = []
    here.manager.on_learned = told.append
    first = here.ask()
    for score in (1.0, 0.0, None):  # the last tells of availability alone
        here.report(first["decision_id"], DEAR, score)
    assert sum(told) == 2
    events = [OutcomeEvent(number, DEAR, 1.0, None, "x", received_at=float(number)) for number in range(10)]
    here.manager.began_at = 7.0
    here.manager.on_outcomes(events)  # most are of the time before this process, and were read all at once
    assert sum(told) == 2 + 3


def test_a_failed_hit_takes_along_the_entry_that_it_repeats(here: Process) -> None:
    first = here.ask()
    assert here.ask()["cache"] == "local"
    here.report(first["decision_id"], DEAR, 0.0)  # the follower has turned the hit's id into its origin
    assert here.ask()["cache"] == "miss"


@pytest.mark.parametrize(
    ("model", "score"),
    [pytest.param(DEAR, None, id="only availability"), pytest.param(MIDDLE, 0.0, id="another model answered")],
)
def test_what_says_nothing_of_the_cached_decision_leaves_it(here: Process, model: str, score: float | None) -> None:
    first = here.ask()
    here.report(first["decision_id"], model, score)
    assert here.ask()["cache"] == "local"


def test_a_success_prolongs_the_entry(here: Process) -> None:
    first = here.ask()
    ((_, before),) = here.cache.tiers.local.items()
    ends = before.expires_at
    here.report(first["decision_id"], DEAR, 1.0)
    ((_, after),) = here.cache.tiers.local.items()
    assert after.expires_at > ends
    assert after.confirmed == 1


def test_outcomes_of_unknown_decisions_change_nothing(here: Process) -> None:
    here.ask()
    here.report("unknown", DEAR, 0.0)
    assert here.ask()["cache"] == "local"


def test_a_model_that_is_gone_takes_its_entries_along_and_leaves_the_rest(here: Process) -> None:
    here.ask()
    here.ask("Cheap, please", strategies=["favourite"])
    local = here.cache.tiers.local
    ((_, entry), *_) = local.items()
    entry_of_other = replace(entry, ref=MIDDLE, origin="another")
    local.put(b"x" * 32, entry_of_other)
    gone = replace(here.now[0].table, available=np.array([True, True, False]))
    here.swap(table=gone)
    assert [entry.ref for _, entry in local.items()] == [MIDDLE]
    assert here.cache.counts["local", "invalidated"] == 2


def test_after_a_policy_change_the_most_frequent_requests_are_there_again(tmp_path: Path) -> None:
    with process(tmp_path, options=ManagerOptions(warm=2, chunk=1)) as here:
        for prompt, times in ((OFTEN, 4), ("sometimes", 3), ("once", 1)):
            for _ in range(times):
                here.ask(prompt)
        favours_middle = Fixed("favourite", [0.1, 0.9, 0.2])
        here.swap(policy_version=2, strategies={"favourite": favours_middle})
        answers = {prompt: here.ask(prompt) for prompt in (OFTEN, "sometimes", "once")}
        assert {prompt: answer["cache"] for prompt, answer in answers.items()} == {
            OFTEN: "local",
            "sometimes": "local",
            "once": "miss",
        }
        assert all(answer["model"] == "middle" for answer in answers.values()), "decided by the new policy"
        assert all(answer["policy_version"] == 2 for answer in answers.values())
        assert here.ask(f"{OFTEN}, please!")["cache"] == "similar", "similar prompts find the new entries"


def test_warming_ends_where_the_policy_changes_once_more(here: Process) -> None:
    here.ask("One task")
    here.ask("Another task")
    here.manager.options = ManagerOptions(chunk=1)

    def change_again() -> None:
        here.now[0] = replace(here.now[0], policy_version=3)

    here.manager.rest = change_again
    here.swap(policy_version=2)
    assert here.cache.counts["local", "warmed"] == 1
    here.manager.rest = lambda: None
    here.manager.look()
    assert {here.ask(prompt)["cache"] for prompt in ("One task", "Another task")} == {"local"}


def test_warming_is_not_logged_as_a_decision(here: Process) -> None:
    here.ask()
    logged = len(here.log)
    here.swap(policy_version=2)
    assert len(here.log) == logged
    assert here.cache.counts["local", "warmed"] == 1


def test_a_policy_that_comes_back_finds_its_entries(here: Process) -> None:
    first = here.ask()
    here.swap(policy_version=2)
    here.swap(policy_version=1)
    assert here.ask()["cache"] == "local"
    assert here.cache.tiers.local.keys_of(first["decision_id"])


def test_new_prices_are_another_generation(here: Process) -> None:
    here.ask()
    dearer = replace(here.now[0].table, input_usd=here.now[0].table.input_usd * 2)
    here.swap(table=dearer)
    answer = here.ask()
    assert answer["cache"] == "local", "warmed under the new prices"
    assert answer["expected"]["cost_usd"] > 0


def test_an_order_to_clear_reaches_every_process(tmp_path: Path) -> None:
    with process(tmp_path) as here, process(tmp_path) as there:
        for each in (here, there):
            each.manager.look()
            each.ask()
        assert here.manager.clear() == {"local": 1}
        assert len(there.cache.tiers.local) == 1
        there.manager.look()
        here.manager.look()
        assert len(there.cache.tiers.local) == len(there.manager.patterns) == 0
        here.ask()
        here.manager.look()
        assert len(here.cache.tiers.local) == 1, "an order is obeyed once"


def test_orders_from_before_the_start_are_not_obeyed(tmp_path: Path) -> None:
    with process(tmp_path) as here:
        order_clear(here.store)
        here.ask()
        here.manager.look()
        assert len(here.cache.tiers.local) == 1


def test_a_process_starts_with_the_most_frequent_entries_of_the_log(tmp_path: Path, redis: RedisProcess) -> None:
    shared = patient_tier(redis.url)
    with process(tmp_path, shared) as here:
        for prompt in ("rare", OFTEN, "sometimes"):
            here.ask(prompt)
        often = here.ask(OFTEN)
        assert often["cache"] == "local"
        here.write_log()
        rows = here.store.recent_decisions(0.0, 10)
        assert len(rows) == 3
        _say_again(here, OFTEN, "sometimes")
        eventually(lambda: sum(1 for _ in here.cache.shared(100)) == 3)
        with process(tmp_path, shared, ManagerOptions(warm=2)) as there:
            assert there.manager.warm_at_start() == 2
            assert {there.ask(prompt)["cache"] for prompt in (OFTEN, "sometimes")} == {"local"}
            assert there.ask("rare")["cache"] == "redis"
            told = there.manager.report()
            assert told["local"]["warmed"] == 2
            assert told["redis"]["entries"] >= 3
            assert shared.settle(PATIENCE_S)
            assert there.manager.clear("redis")["redis"] >= 3
            assert not list(there.cache.shared(100))
    shared.close()


def test_entries_of_another_policy_are_not_taken_at_the_start(tmp_path: Path, redis: RedisProcess) -> None:
    shared = patient_tier(redis.url)
    with process(tmp_path, shared) as here:
        here.ask()
        eventually(lambda: sum(1 for _ in here.cache.shared(100)) == 1)
        with process(tmp_path, shared) as there:
            there.now[0] = replace(there.now[0], policy_version=7)
            there.manager.look()
            assert there.manager.warm_at_start() == 0
    shared.close()


def test_without_redis_and_with_a_dead_one_a_process_starts_cold(here: Process, tmp_path: Path) -> None:
    assert here.manager.warm_at_start() == 0
    dead = RedisTier.open("redis://127.0.0.1:9/0", time.monotonic, 0.005)
    with process(tmp_path, dead) as there:
        assert there.manager.warm_at_start() == 0
        with pytest.raises(StoreUnavailableError, match="cannot be cleared"):
            there.manager.clear()
        assert there.manager.report()["redis"]["failing"] is True
    dead.close()


async def test_care_goes_on_after_a_failure_and_ends_when_cancelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with process(tmp_path, options=ManagerOptions(look_every_s=0.001)) as here, ThreadPoolExecutor(1) as executor:
        looks: list[int] = []
        enough = threading.Event()
        real = here.manager.look

        def look() -> None:
            looks.append(1)
            if len(looks) == 1:
                raise StoreUnavailableError("away")
            if len(looks) == 2:
                raise ValueError("a defect")
            real()
            if len(looks) == 4:
                enough.set()

        here.manager.look = look  # type: ignore[method-assign]
        task = asyncio.create_task(here.manager.run(executor))
        assert await asyncio.to_thread(enough.wait, PATIENCE_S)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert "the cache is not looked after just now: away" in caplog.text
    assert "a defect" in caplog.text


def test_the_report_tells_every_tier(here: Process) -> None:
    here.ask()
    here.ask()
    here.ask("Please fix the failing test!")
    told = here.manager.report()
    assert told["hit_rate"] == pytest.approx(2 / 3, abs=1e-3)
    assert (told["local"]["entries"], told["local"]["hit"], told["local"]["stored"]) == (2, 1, 1)
    assert told["similar"]["hit"] == 1
    assert told["redis"] is None
    assert told["patterns"] == 1
    assert 0 < told["local"]["bytes"] < told["local"]["max_bytes"]


def _say_again(here: Process, *prompts: str) -> None:
    """Log hits as the teller does."""
    from monkey_coder.quantum.cache_telling import HitTeller

    listener = DecisionLog(here.log.append, time.time)
    here.log.clear()
    for _ in range(2):
        for prompt in prompts:
            here.ask(prompt)
    HitTeller(here.cache, lambda: (listener,), lambda *_: None).tell()
    here.write_log()
