"""Redis in trouble: refused, foreign, stopped, swapped for an empty one; and what operators are told."""

from __future__ import annotations

import signal
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis_process import patient_store, running_redis
from servers import eventually

from monkey_coder.errors import SettingsError, StoreFormatError, StoreUnavailableError
from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import START, Appended, DecisionRow, OutcomeRow, Retention
from monkey_coder.storage.redis_store import RedisStore

REPORT = OutcomeRow("d", "a/one", 1.0, b"good")


@pytest.fixture
def own_server(tmp_path):
    with running_redis(tmp_path) as server:
        yield server


def open_it(server, **options) -> RedisStore:
    return patient_store(server.url, **options)


def test_with_an_address_the_store_is_redis(redis_server, tmp_path) -> None:
    with closing(open_store(tmp_path / "var", redis_server.url, time.time)) as store:
        assert isinstance(store, RedisStore)
    assert not (tmp_path / "var").exists()


def test_a_server_that_is_not_there_is_an_error(own_server) -> None:
    own_server.kill()
    with pytest.raises(StoreUnavailableError, match="see that it runs and can be reached"):
        open_it(own_server)


def test_a_malformed_address_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        RedisStore.open("http://localhost", time.time)


def test_an_unknown_option_of_the_address_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)'soket_timeout'.*MONKEY_CODER_REDIS_URL"):
        open_store(tmp_path, "redis://localhost/0?soket_timeout=1", time.time)


def test_a_malformed_namespace_is_refused(redis_server) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        open_it(redis_server, namespace="my {deployment}")


def test_another_schema_is_refused_and_both_are_named(redis_server) -> None:
    with redis_server.client() as client:
        client.set("of-the-future:schema", 9)
    with pytest.raises(
        StoreFormatError, match="'of-the-future:schema' speaks of schema 9, this program reads schema 1"
    ):
        open_it(redis_server, namespace="of-the-future")


def test_foreign_values_under_our_keys_are_named(redis_server) -> None:
    with closing(open_it(redis_server, namespace="foreign")) as store, redis_server.client() as client:
        client.set("foreign:1:{outcomes}:stream", "a letter to my aunt")
        client.set("foreign:1:{decisions}:times", "another")
        for use in (
            lambda: store.append_outcomes([REPORT]),
            lambda: store.read_outcomes(START, 1),
            lambda: store.append_decisions([DecisionRow("d", 1.0, b"")]),
        ):
            with pytest.raises(StoreFormatError, match="something foreign"):
                use()


def test_every_key_begins_with_the_namespace(redis_server) -> None:
    with closing(open_it(redis_server, namespace="mine")) as store, redis_server.client() as client:
        store.append_decisions([DecisionRow("d", time.time(), b"x")])
        store.append_outcomes([REPORT])
        store.put_policy(b"", b"")
        store.put_document("kind", "name", b"", 0)
        store.put_document("kind", "name", b"", 1, keep=1)
        store.acquire_lease("learner", "me", 5.0)
        keys = [key.decode() for key in client.keys("*mine*")]
        families = ("decision:", "{decisions}", "{outcomes}", "{policies}", "{documents}", "{leases}")
        assert all(any(key.startswith(f"mine:1:{family}") for key in keys) for family in families)
        assert all(key == "mine:schema" or key.startswith("mine:1:") for key in keys)
        client.delete(*keys)


@pytest.mark.parametrize("fixture", ["redis_server", "redis_cluster"])
def test_a_closed_store_leaves_no_connection_behind(fixture, request) -> None:
    server = request.getfixturevalue(fixture)
    with server.client() as client:

        def ports() -> set[str]:
            return {other["addr"] for other in client.client_list()}

        before = ports()
        store = open_it(server, namespace="closing")
        store.append_outcomes([REPORT])
        opened = ports() - before
        store.close()
        assert opened
        eventually(lambda: not opened & ports())  # the server notices a little later


def test_payloads_of_decisions_end_by_themselves(redis_server) -> None:
    short = Retention(max_decision_age_s=0.2)
    with (
        closing(open_it(redis_server, namespace="short", retention=short)) as forgetful,
        closing(open_it(redis_server, namespace="short")) as store,
    ):
        now = time.time()
        forgetful.append_decisions([DecisionRow("d", now, b"x"), DecisionRow("e", now, b"y")])
        store.append_decisions([DecisionRow("f", now, b"z")])
        eventually(lambda: store.decision("e") is None)
        assert store.decision("d") is None
        assert [row.id for row in store.decisions((0.0, ""), 1)] == ["f"]
        assert [row.id for row in store.recent_decisions(0.0, 10)] == ["f"]


def test_a_stopped_server_is_an_error_after_the_time_to_answer_and_serves_on_later(own_server) -> None:
    hasty = Redis(port=own_server.port, socket_timeout=0.2, retry=None)
    with closing(patient_store(own_server.url)) as patient, closing(hasty):
        stores: list[RedisStore] = []

        def opened() -> bool:
            with suppress(StoreUnavailableError):  # this machine may be too busy for so little time
                stores.append(RedisStore(hasty, time.time))
            return bool(stores)

        eventually(opened)
        own_server.send(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailableError):
                stores[0].append_outcomes([REPORT])
        finally:
            own_server.send(signal.SIGCONT)
        own_server.await_answer()

        def appended() -> bool:
            with suppress(StoreUnavailableError):  # it may be slow for a moment, now that it has caught up
                return stores[0].append_outcomes([REPORT])[0] in (Appended.NEW, Appended.DUPLICATE)
            return False

        eventually(appended)
        assert [outcome.row for outcome in patient.read_outcomes(START, 10)] == [REPORT]


def test_after_a_restart_the_same_store_goes_on(own_server) -> None:
    with closing(open_it(own_server)) as store:
        store.append_outcomes([REPORT])
        own_server.kill()
        with pytest.raises(StoreUnavailableError):
            store.ping()
        own_server.start()
        assert store.append_outcomes([REPORT]) == [Appended.DUPLICATE]


def test_an_empty_server_in_its_place_is_a_fresh_start(own_server) -> None:
    with closing(open_it(own_server)) as store:
        store.append_outcomes([REPORT])
        end = store.read_outcomes(START, 1)[-1].position
        with own_server.client() as client:
            client.flushall()
            client.script_flush()
        assert store.append_outcomes([REPORT]) == [Appended.NEW]
        assert [outcome.row for outcome in store.read_outcomes(end, 10)] == [REPORT]


def test_a_full_server_is_an_error_and_keeps_what_it_has(own_server) -> None:
    with closing(open_it(own_server)) as store, own_server.client() as client:
        store.append_outcomes([REPORT])
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="refused"):
            store.append_outcomes([OutcomeRow("e", "a/one", 1.0, b"")])
        with pytest.raises(StoreUnavailableError, match="refused"):
            store.append_decisions([DecisionRow("d", 1.0, b"")])
        assert [outcome.row for outcome in store.read_outcomes(START, 10)] == [REPORT]
        client.config_set("maxmemory", 0)
        assert store.append_outcomes([OutcomeRow("e", "a/one", 1.0, b"")]) == [Appended.NEW]


def test_operators_are_told_what_makes_redis_forget(own_server) -> None:
    with closing(open_it(own_server)) as store, own_server.client() as client:
        assert list(store.warnings()) == []
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
        first, second = store.warnings()
        assert "appendfsync everysec" in first
        assert "set it to always" in first
        assert "maxmemory-policy allkeys-lru" in second
        client.config_set("appendonly", "no")
        assert "appendonly no" in store.warnings()[0]


def test_a_server_that_hides_its_configuration_is_told_of(own_server) -> None:
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "router", "on", "nopass", "~*", "+@all", "-config")
    url = own_server.url.replace("redis://", "redis://router:any@")
    with closing(RedisStore.open(url, time.time)) as store:
        assert "does not let its configuration be read" in store.warnings()[0]


def test_what_is_no_bytes_is_refused(redis_server) -> None:
    with closing(open_it(redis_server, namespace="bytes")) as store:
        with pytest.raises(ValueError, match="cannot be stored"):
            store.append_decisions([DecisionRow("fine", 1.0, b""), DecisionRow("d", 1.0, None)])
        assert store.decision("fine") is None
