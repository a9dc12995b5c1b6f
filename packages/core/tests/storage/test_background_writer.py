"""The writer costs the request path next to nothing, loses no outcome silently, and never raises."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from redis_process import patient_store, running_redis
from servers import PATIENCE_S, eventually

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.storage.background_writer import BackgroundWriter
from monkey_coder.storage.port import START, Appended, DecisionRow, OutcomeRow, Retention
from monkey_coder.storage.sqlite_store import SqliteStore

NOW = time.time()
"""Of the decisions: the writer removes those of long ago, when it has been at work for some seconds."""


def decision(number: int) -> DecisionRow:
    return DecisionRow(f"d{number:06}", NOW + number, b"payload")


def report(number: int) -> OutcomeRow:
    return OutcomeRow(f"d{number}", "a/one", 1.0, b"payload")


def ids_in(store) -> list[str]:
    return [row.id for row in store.decisions((0.0, ""), 1_000_000)]


class Writing:
    """A writer with its store, and the errors it told of."""

    def __init__(self, store, **options) -> None:
        self.store = store
        self.errors: list[Exception] = []
        self.writer = BackgroundWriter(store, self.errors.append, time.time, **options)

    def __enter__(self) -> Writing:
        return self

    def stored(self, row: OutcomeRow) -> Appended | Exception:
        (result,) = self.writer.put_outcomes([row]).result(PATIENCE_S)
        return result

    def __exit__(self, *_: object) -> None:
        self.writer.close(timeout_s=1.0)
        self.store.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def own_server(tmp_path):
    with running_redis(tmp_path) as server:
        yield server


def on_file(path, *, retention=None, **options) -> Writing:
    return Writing(SqliteStore(path, time.time, retention), **options)


def on_redis(server, **options) -> Writing:
    return Writing(patient_store(server.url), **options)


def test_a_decision_is_readable_soon_without_another_word(store) -> None:
    with Writing(store) as it:
        it.writer.put(decision(1))
        eventually(lambda: it.store.decision("d000001") == b"payload")
        eventually(lambda: it.writer.waiting == 0)
        assert it.errors == []


def test_an_outcome_is_durable_when_its_future_is_done(store) -> None:
    with Writing(store) as it:
        assert it.stored(report(1)) == Appended.NEW
        assert it.stored(report(1)) == Appended.DUPLICATE
        assert [outcome.row for outcome in it.store.read_outcomes(START, 10)] == [report(1)]


def test_many_rows_at_once_are_taken_and_all_of_them_written(path) -> None:
    rows = [decision(number) for number in range(20_000)]
    with on_file(path) as it:
        for row in rows:
            it.writer.put(row)
        it.writer.close(PATIENCE_S)
        assert len(ids_in(it.store)) == len(rows)


def test_rows_may_be_made_in_the_thread_of_the_writer(path) -> None:
    made_in: list[str] = []

    def make() -> DecisionRow:
        made_in.append(threading.current_thread().name)
        return decision(1)

    with on_file(path) as it:
        it.writer.put(make)
        eventually(lambda: ids_in(it.store) == ["d000001"])
    assert made_in == ["store-writer"]


def test_closing_writes_what_waits(path) -> None:
    with on_file(path, flush_every_s=60.0) as it:
        for number in range(5_000):
            it.writer.put(decision(number))
        futures = [it.writer.put_outcomes([report(number)]) for number in range(100)]
        it.writer.close(PATIENCE_S)
        assert len(ids_in(it.store)) == 5_000
        assert [future.result(0) for future in futures] == [[Appended.NEW]] * 100
        assert it.writer.dropped == 0


def test_after_closing_decisions_are_counted_and_outcomes_refused(path) -> None:
    with on_file(path) as it:
        it.writer.close()
        it.writer.put(decision(1))
        assert (it.writer.dropped, it.writer.waiting) == (1, 0)
        assert isinstance(it.stored(report(1)), StoreUnavailableError)
        it.writer.close()


class Noting(SqliteStore):
    """Notes how many decisions come at once, and keeps none: they are too large for a test."""

    def __init__(self, path) -> None:
        super().__init__(path, time.time)
        self.lots: list[int] = []

    def append_decisions(self, rows) -> None:
        self.lots.append(len(rows))


def test_large_rows_are_written_a_few_at_a_time_and_one_lot_after_the_other(path) -> None:
    payload = bytes(12 * 1024 * 1024)
    store = Noting(path)
    with Writing(store, flush_every_s=0.5) as writing:
        for number in range(20):
            writing.writer.put(DecisionRow(f"d{number}", float(number), payload))
        eventually(lambda: sum(store.lots) == 20)
        eventually(lambda: writing.writer.waiting == 0)
        assert max(store.lots) <= 3  # the third goes past 32 MB


def test_how_many_may_wait_can_be_changed(path) -> None:
    with on_file(path, flush_every_s=10 * PATIENCE_S) as writing:
        writing.writer.max_decisions = 3
        for number in range(10):
            writing.writer.put(decision(number))
        assert writing.writer.dropped == 7
        writing.writer.close()
        assert ids_in(writing.store) == ["d000007", "d000008", "d000009"]


def test_many_threads_put_at_once(path) -> None:
    with on_file(path) as it:

        def work(start: int) -> None:
            for number in range(start, start + 500):
                it.writer.put(decision(number))
                futures.append(it.writer.put_outcomes([report(number)]))

        futures: list = []
        threads = [threading.Thread(target=work, args=[1_000 * number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {result for future in futures for result in future.result(PATIENCE_S)} == {Appended.NEW}
        it.writer.close(PATIENCE_S)
        assert len(ids_in(it.store)) == 2_000
        assert len(it.store.read_outcomes(START, 10_000)) == 2_000


def test_during_an_outage_the_oldest_decisions_go_and_the_newest_are_written_later(own_server) -> None:
    with on_redis(own_server, max_decisions=100, flush_every_s=0.02) as it:
        own_server.kill()
        it.writer.put(decision(0))
        eventually(lambda: it.errors)  # from now on that one waits to be written, and the others for it
        for number in range(1, 1_000):
            it.writer.put(decision(number))
        assert all(isinstance(error, StoreUnavailableError) for error in it.errors)
        assert it.writer.dropped + it.writer.waiting == 1_000
        own_server.start()
        eventually(lambda: it.writer.waiting == 0)
        kept = ids_in(it.store)
        assert kept[-100:] == [f"d{number:06}" for number in range(900, 1_000)]
        assert len(kept) == 1_000 - it.writer.dropped


def test_during_an_outage_outcomes_fail_at_once_and_are_taken_again_after_it(own_server) -> None:
    with on_redis(own_server) as it:
        own_server.kill()
        assert isinstance(it.stored(report(1)), StoreUnavailableError)
        own_server.start()
        assert it.stored(report(1)) == Appended.NEW


def test_closing_during_an_outage_gives_up_in_time_and_counts(own_server) -> None:
    with on_redis(own_server, flush_every_s=0.02) as it:
        own_server.kill()
        for number in range(10):
            it.writer.put(decision(number))
        it.writer.close(timeout_s=0.3)
        assert (it.writer.dropped, it.writer.waiting) == (10, 0)


def test_too_many_waiting_outcomes_are_refused_and_never_dropped(own_server) -> None:
    with on_redis(own_server, max_outcomes=5) as it, own_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", int(1e3 * PATIENCE_S), "WRITE")
        futures = [it.writer.put_outcomes([report(number)]) for number in range(50)]
        client.execute_command("CLIENT", "UNPAUSE")
        results = [future.result(PATIENCE_S)[0] for future in futures]
        refused = [result for result in results if isinstance(result, StoreUnavailableError)]
        assert refused
        assert all("faster than they can be stored" in str(error) for error in refused)
        assert len(it.store.read_outcomes(START, 100)) == len(results) - len(refused)


def test_an_impossible_row_takes_no_other_with_it(store) -> None:
    def fails() -> DecisionRow:
        raise RuntimeError("cannot be encoded")

    with Writing(store, flush_every_s=0.1) as it:
        for row in (decision(1), DecisionRow("\ud800", 2.0, b""), fails, DecisionRow("nan", float("nan"), b"")):
            it.writer.put(row)
        it.writer.put(decision(2))
        rows = [report(1), OutcomeRow("\ud800", "a/one", 1.0, b"")]
        fine, impossible = it.writer.put_outcomes(rows).result(PATIENCE_S)
        assert fine == Appended.NEW
        assert isinstance(impossible, ValueError)
        eventually(lambda: it.writer.waiting == 0)
        assert ids_in(it.store) == ["d000001", "d000002"]
        assert it.writer.dropped == 3
        assert len(it.errors) == 4


def test_a_listener_that_fails_does_not_end_the_writing(path, caplog) -> None:
    def fail(error: Exception) -> None:
        raise RuntimeError("no pager")

    with closing(SqliteStore(path, time.time)) as store:
        writer = BackgroundWriter(store, fail, time.time, flush_every_s=0.02)
        writer.put(DecisionRow("\ud800", 1.0, b""))
        eventually(lambda: writer.dropped == 1)
        writer.put(decision(1))
        writer.close(PATIENCE_S)
        assert ids_in(store) == ["d000001"]
    assert "error listener" in caplog.text


def test_the_store_is_kept_within_its_bounds(path) -> None:
    retention = Retention(max_decisions=50, max_decision_age_s=1e12, max_outcomes=10)
    with on_file(path, retention=retention, flush_every_s=0.02, trim_every_s=0.05) as it:
        for number in range(5_000):
            it.writer.put(decision(number))
        it.writer.put_outcomes([report(1)])
        eventually(lambda: it.writer.waiting == 0)
        eventually(lambda: len(ids_in(it.store)) == 50)
        assert ids_in(it.store)[-1] == "d004999"
        assert it.errors == []


def test_a_store_that_was_closed_too_early_is_told_of(path) -> None:
    with on_file(path, flush_every_s=0.02, trim_every_s=0.02) as it:
        it.store.close()
        it.writer.put(decision(1))
        eventually(lambda: len(it.errors) >= 2)
        assert {type(error) for error in it.errors} == {StoreUnavailableError}
        assert it.writer.waiting == 1
        assert "closed" in str(it.stored(report(1)))
