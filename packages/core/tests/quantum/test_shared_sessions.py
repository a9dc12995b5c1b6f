"""Sessions keep their model in every process, and no trouble of what they share is a request's trouble."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pytest
from builders import Model, SetClock, table
from redis_process import RedisProcess, patient_uses, running_redis
from servers import PATIENCE_S, eventually

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.quantum.session_affinity import NO_SESSION
from monkey_coder.quantum.shared_sessions import FRESH_S, GATHER_S, SharedSessionMemory
from monkey_coder.storage.last_uses import FILE_NAME, LastUse, LastUses, open_last_uses

NOW = 1_700_000_000.0
DAY_S = 86_400.0
MODELS = table(Model("a/one"), Model("b/two"))

digest = partial(blake2b, key=b"a secret for tests", digest_size=16)


def key_of(session: bytes) -> bytes:
    return digest(session).digest()


class Processes:
    """Memories that share what is kept in one place, with clocks that are set."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self.url = folder, url
        self.clock, self.wall = SetClock(0.0), SetClock(NOW)
        self.stack = ExitStack()

    def open(self) -> LastUses:
        if self.url is None:
            return open_last_uses(self.folder, None, self.wall, DAY_S, 1000)
        return patient_uses(self.url, self.wall, DAY_S, 1000)

    def one_more(self, open_: Callable[[], LastUses] | None = None, **options: float) -> SharedSessionMemory:
        given = {"max_age_s": DAY_S, "wait_s": PATIENCE_S} | options
        memory = SharedSessionMemory(open_ or self.open, key_of, self.clock, self.wall, **given)  # type: ignore[arg-type]
        self.stack.callback(memory.close)
        return memory

    def later(self, seconds: float = FRESH_S) -> None:
        self.clock.now += seconds
        self.wall.now += seconds

    def written(self, session: str, ref: str) -> None:
        """Wait until a use can be found by others."""
        with closing(self.open()) as uses:
            eventually(
                lambda: [use and use.value for use in uses.last_uses([key_of(session.encode())])] == [ref.encode()]
            )


@pytest.fixture(params=["sqlite", "redis"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        url = (
            stack.enter_context(running_redis(tmp_path, "--appendonly", "no")).url if request.param == "redis" else None
        )
        made = Processes(tmp_path, url)
        stack.enter_context(made.stack)
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    with made.stack:
        yield made


def ready(memory: SharedSessionMemory) -> SharedSessionMemory:
    eventually(lambda: not memory.failing)
    return memory


def test_a_session_keeps_its_model_in_another_process(processes: Processes) -> None:
    one, other = ready(processes.one_more()), ready(processes.one_more())
    one.use("s", "a/one")
    processes.written("s", "a/one")
    assert not other.settled("s")
    assert other.columns(["s", None, "t"], MODELS).tolist() == [0, NO_SESSION, NO_SESSION]
    assert (other.settled("s"), other.last("s")) == (True, "a/one")
    processes.later()
    other.use("s", "b/two")
    processes.written("s", "b/two")
    assert not one.settled("s")
    assert one.columns(["s"], MODELS).tolist() == [1]


def test_the_newest_use_wins_also_over_what_comes_late(processes: Processes) -> None:
    one, other = ready(processes.one_more()), ready(processes.one_more())
    one.use("s", "a/one")
    processes.written("s", "a/one")
    processes.later()
    other.use("s", "b/two")  # not looked up: it is its own use
    processes.later(0.5)
    assert other.columns(["s"], MODELS).tolist() == [1]
    processes.later()
    processes.written("s", "b/two")
    one.refresh(["s"])
    assert one.last("s") == "b/two"


def test_what_was_used_too_long_ago_is_forgotten_everywhere(processes: Processes) -> None:
    one, other = ready(processes.one_more()), ready(processes.one_more())
    one.use("s", "a/one")
    processes.written("s", "a/one")
    processes.later(DAY_S + 1.0)
    for memory in (one, other):
        assert memory.columns(["s"], MODELS).tolist() == [NO_SESSION]
        assert memory.last("s") is None


def test_a_restart_does_not_end_a_session(processes: Processes) -> None:
    first = ready(processes.one_more())
    first.use("s", "a/one")
    first.close()
    processes.written("s", "a/one")  # it waits a second for that, and this machine may take longer
    assert ready(processes.one_more()).columns(["s"], MODELS).tolist() == [0]


def test_session_ids_are_not_kept(alone: Processes) -> None:
    ready(alone.one_more()).use("tell-tale id", "a/one")
    alone.written("tell-tale id", "a/one")
    for file in alone.folder.iterdir():
        assert b"tell-tale" not in file.read_bytes()


class Counted(LastUses):
    """Something shared that counts what it is asked, and may be slow or broken."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.notes = 0
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def last_uses(self, keys: Sequence[bytes]) -> list[LastUse | None]:
        self.asked.append(len(keys))
        self.gate.wait(PATIENCE_S)
        if self.broken:
            raise StoreUnavailableError("broken")
        return [LastUse(NOW - 1.0, b"b/two")] * len(keys)

    def note_uses(self, uses: Mapping[bytes, LastUse]) -> None:
        if self.broken:
            raise StoreUnavailableError("broken")
        self.notes += len(uses)

    def close(self) -> None:
        self.gate.set()


def test_a_batch_is_one_look_up_and_none_for_what_is_known_or_has_no_session(alone: Processes) -> None:
    shared = Counted()
    memory = ready(alone.one_more(lambda: shared))
    del shared.asked[:]
    memory.columns([None] * 64, MODELS)
    assert shared.asked == []
    memory.use("mine", "a/one")
    batch = [*(f"s{n}" for n in range(30)), "s0", None, "mine"]
    assert memory.columns(batch, MODELS).tolist() == [1] * 31 + [NO_SESSION, 0]
    assert memory.columns(batch, MODELS).tolist() == [1] * 31 + [NO_SESSION, 0]
    assert shared.asked == [30]
    alone.later()
    memory.columns(batch, MODELS)
    assert shared.asked == [30, 31]


def test_many_uses_are_written_together(alone: Processes) -> None:
    shared = Counted()
    memory = ready(alone.one_more(lambda: shared))
    started = time.monotonic()
    for number in range(1000):
        memory.use(f"s{number % 10}", "a/one")
    eventually(lambda: shared.notes >= 10)
    assert shared.notes <= 10 * (2 + (time.monotonic() - started) / GATHER_S)


def test_a_slow_look_up_is_waited_for_once_and_for_no_longer_than_is_allowed(
    alone: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Counted()
    memory = ready(alone.one_more(lambda: shared, wait_s=0.3))
    shared.gate.clear()
    memory.use("mine", "a/one")
    alone.later()
    started = time.monotonic()
    assert memory.columns(["mine", "theirs"], MODELS).tolist() == [0, NO_SESSION]
    assert memory.failing
    assert memory.settled("theirs")
    assert memory.columns(["mine", "theirs"], MODELS).tolist() == [0, NO_SESSION]
    assert time.monotonic() - started < PATIENCE_S / 2
    assert "sessions are left to each process for a while: no answer within 300 ms" in caplog.text
    shared.gate.set()
    eventually(lambda: memory.columns(["theirs"], MODELS).tolist() == [1])


def test_what_fails_is_tried_again_and_what_was_used_meanwhile_is_written_then(alone: Processes) -> None:
    shared = Counted()
    memory = ready(alone.one_more(lambda: shared))
    shared.broken = True
    memory.use("mine", "a/one")
    eventually(lambda: memory.failing)
    assert memory.columns(["mine", "theirs"], MODELS).tolist() == [0, NO_SESSION]
    shared.broken = False
    eventually(lambda: shared.notes == 1)
    eventually(lambda: not memory.failing)


def test_what_cannot_be_opened_yet_is_opened_later(alone: Processes, caplog: pytest.LogCaptureFixture) -> None:
    file = alone.folder / FILE_NAME
    file.write_bytes(b"a shopping list" * 500)
    memory = alone.one_more()
    memory.use("s", "a/one")
    eventually(lambda: "another program" in caplog.text or "damaged" in caplog.text)
    assert memory.failing
    assert memory.columns(["s"], MODELS).tolist() == [0]
    file.rename(alone.folder / "list")
    alone.written("s", "a/one")


def test_a_server_that_stops_and_dies_costs_no_session_of_this_process(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--appendonly", "no") as server, home(tmp_path, server) as processes:
        one = ready(processes.one_more(wait_s=0.05))
        one.use("s", "a/one")
        for trouble in (signal.SIGSTOP, signal.SIGKILL):
            server.send(trouble)
            processes.later()
            eventually(lambda: processes.later() is None and one.columns(["s"], MODELS).tolist() == [0] and one.failing)
            if trouble == signal.SIGSTOP:
                server.send(signal.SIGCONT)
                ready(one)
        server.kill()
        server.start()
        eventually(lambda: not one.failing)
        one.use("s", "b/two")
        processes.written("s", "b/two")


@contextmanager
def home(folder: Path, server: RedisProcess) -> Iterator[Processes]:
    made = Processes(folder, server.url)
    with made.stack:
        yield made


def test_another_process_that_writes_for_long_keeps_nobody_from_reading(alone: Processes) -> None:
    one, other = ready(alone.one_more()), ready(alone.one_more())
    one.use("s", "a/one")
    alone.written("s", "a/one")
    with closing(sqlite3.connect(alone.folder / FILE_NAME, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        assert other.columns(["s"], MODELS).tolist() == [0]
        hog.execute("ROLLBACK")
    assert not other.failing


def test_the_memory_is_bounded(alone: Processes) -> None:
    memory = alone.one_more(most=3)
    for session in ("a", "b", "c", "a", "d"):
        memory.use(session, "a/one")
    assert [memory.last(session) for session in "abcd"] == ["a/one", None, "a/one", "a/one"]
