"""Models that are added and removed while servers run: followed by every process, safe for what refers to them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import SECRET, engine
from builders import ask as ask_engine
from colours import ColourEmbedder
from contract import problem
from servers import PATIENCE_S, eventually, serving

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.errors import CatalogError, RouterError, UnknownModelError
from monkey_coder.following import follow
from monkey_coder.live_catalog import (
    CHANGES,
    CatalogWatch,
    put_model,
    remove_model,
    restore_model,
    stored_catalog,
)
from monkey_coder.policies import PolicyWatch
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.performance_monitor import PerformanceMonitor
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_shelf import DirectoryShelf
from monkey_coder.quantum.provider_manager import CallReport
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.training_pipeline import TrainedPolicy
from monkey_coder.storage.sqlite_store import SqliteStore

ROUTE, FEEDBACK, MODELS = "/v1/quantum/route", "/v1/quantum/feedback", "/v1/quantum/models"
FIELDS: dict[str, Any] = {
    "context_window": 500_000,
    "max_output": 50_000,
    "capabilities": ["tools"],
    "quality": {"default": 0.99},
    "latency_s": 1,
    "sources": {"quality": "made up"},
    "prices": {"input_mtok": 0.01, "output_mtok": 0.01},
}
NEW = "made/up/quick"


def test_changes_are_kept_in_the_store_and_followed(store: SqliteStore) -> None:
    base = load_catalog()
    gone = base.refs[3]
    watch = CatalogWatch(store, base)
    told: list[tuple[tuple[str, ...], int]] = []
    watch.publish = lambda catalog, version: told.append((catalog.refs, version))
    watch.look()
    assert told == []
    assert put_model(store, NEW, FIELDS) == 2
    watch.look()
    watch.look()
    assert told == [((*base.refs, NEW), 2)]
    assert watch.now.get(NEW).prices.input_usd == pytest.approx(1e-8)
    assert remove_model(store, base, gone) == 3
    watch.look()
    assert gone not in watch.now.refs
    assert watch.retired == {gone}
    assert restore_model(store, gone) == 4
    assert remove_model(store, base, NEW) == 5
    watch.look()
    assert watch.now.refs == base.refs
    assert watch.now.version == base.version
    assert [version for _, version in told] == [2, 3, 5]


def test_a_replaced_model_keeps_its_place(store: SqliteStore) -> None:
    base = load_catalog()
    put_model(store, base.refs[1], FIELDS)
    changed, _ = stored_catalog(store, base)
    assert changed.catalog.refs == base.refs
    assert changed.catalog.models[1].spec.quality.default == 0.99


@pytest.mark.parametrize(
    ("ref", "wrong", "said"),
    [
        (NEW, {"context_windw": 5}, "did you mean 'context_window'"),
        (NEW, {"max_output": 1_000_000}, "larger than context_window"),
        (NEW, {"prices": {}}, "no known price"),
        (NEW, {"weight": 0}, "weight: must be greater than 0"),
        ("nameless", {}, "a model is named provider/model"),
    ],
)
def test_a_bad_description_is_refused_with_the_mend(
    store: SqliteStore, ref: str, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(CatalogError, match=said):
        put_model(store, ref, FIELDS | wrong)
    assert store.documents(CHANGES) == {}


def test_what_is_not_there_and_what_is_the_last_cannot_be_removed(store: SqliteStore) -> None:
    base = load_catalog()
    with pytest.raises(UnknownModelError, match="did you mean anthropic/claude-haiku-4-5"):
        remove_model(store, base, "anthropic/claude-haiku-45")
    for ref in base.refs[1:]:
        remove_model(store, base, ref)
    with pytest.raises(CatalogError, match="the only model that is left"):
        remove_model(store, base, base.refs[0])


def test_a_change_that_cannot_be_read_harms_no_other(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    put_model(store, NEW, FIELDS)
    assert store.put_document(CHANGES, "odd/one", b'{"action": "rename"}', 0)
    assert store.put_document(CHANGES, "old/one", b'{"action": "put", "fields": {"latency_s": 1}}', 0)
    watch = CatalogWatch(store, load_catalog())
    watch.look()
    assert watch.now.refs == (*load_catalog().refs, NEW)
    assert "odd/one cannot be read" in caplog.text
    assert "old/one: lacks" in caplog.text


def test_the_policy_and_what_was_learned_go_on_with_other_models(
    store: SqliteStore, trained_policy: TrainedPolicy, tmp_path: Path
) -> None:
    trained = trained_policy
    bundles.publish(tmp_path, PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card), {})
    base = load_catalog()
    live = LiveSnapshot(EngineSnapshot(base.table(), configured_strategies(None, None)))
    policies = PolicyWatch(DirectoryShelf(tmp_path), live)
    policies.look()
    ids = SignedIds(SECRET, time.time, os.urandom)
    following = follow(store, live, base, PerformanceMonitor(), ids.issued_at, policies.rebound)
    following.providers.on_outcomes([CallReport(base.refs[1], "timeout", lambda: 0.0, 0.0)])
    put_model(store, NEW, FIELDS)
    remove_model(store, base, base.refs[0])
    following.follower.catch_up(1.0)
    with engine(embedder=ColourEmbedder()) as manager:
        manager.snapshot = live
        answer = manager.decide([ask_engine(options={"strategies": ["dqn", "memory"]}, episode_id="e")])[0]
    assert not isinstance(answer, RouterError), answer
    statuses = {thread["strategy"]: thread["status"] for thread in answer["thread_results"]}
    assert set(statuses.values()) == {"SUCCESS"}
    assert answer["policy_version"] == 1
    assert answer["degraded"] == []
    assert live().table.refs == (*base.refs[1:], NEW)
    assert live().catalog_version == 3
    assert live().model_features.shape[0] == len(live().table)
    failures = {m.name: m.failures for provider in following.providers.report() for m in provider.models}
    assert failures == dict.fromkeys(live().table.refs, 0) | {base.refs[1]: 1}
    following.follower.publish_availability()  # as a batch may ask for it at any moment
    assert live().table.available.all()


# Real servers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Two processes that share a store."""
    folder = tmp_path_factory.mktemp("live_catalog")
    shared = {"MONKEY_CODER_STATE_DIR": str(folder / "shared"), "MONKEY_CODER_EXPLORE": "false"}
    for name in ("one", "two"):
        (folder / name).mkdir()
    with (
        serving(folder / "one", settings=shared) as one,
        serving(folder / "two", settings=shared | {"MONKEY_CODER_QUANTUM": "false"}) as two,
        httpx.Client(base_url=one.url, timeout=PATIENCE_S) as first,
        httpx.Client(base_url=two.url, timeout=PATIENCE_S) as second,
    ):
        yield first, second


def ask(client: httpx.Client, path: str = ROUTE, **task: Any) -> httpx.Response:
    body = {"request": {"prompt": "Fix the race in our cache", **task}, "quantum_config": {"timeout_ms": 1000}}
    return client.post(path, json=body)


def ref_of(answer: dict[str, Any]) -> str:
    return f"{answer['provider']}/{answer['model']}"


def test_a_model_comes_and_goes_in_every_process(pair: tuple[httpx.Client, httpx.Client]) -> None:
    first, second = pair
    before = first.get(MODELS).json()
    problem(ask(first, allowed_models=[NEW]), 422, "unknown_model")
    added = first.put(f"{MODELS}/{NEW}", json=FIELDS)
    assert (added.status_code, added.json()["catalog_version"]) == (201, 2)
    eventually(lambda: ask(first, allowed_models=[NEW]).status_code == 200)
    chosen = ask(first, session_id="s").raise_for_status().json()
    assert ref_of(chosen) == NEW  # nearly free, and said to be the best
    eventually(lambda: ask(second, allowed_models=[NEW]).status_code == 200)
    assert ref_of(ask(second, "/v1/route").raise_for_status().json()) == NEW
    override = "/v1/quantum/providers/made/override"
    assert first.post(override, json={"state": "drained"}).status_code == 200
    for client, path in ((first, ROUTE), (second, "/v1/route")):  # the second decides by Gary8D alone
        eventually(lambda client=client, path=path: ref_of(ask(client, path).json()) != NEW)
    assert first.post(override, json={"state": "auto"}).status_code == 200
    eventually(lambda: ref_of(ask(second, "/v1/route").json()) == NEW)
    after = second.get(MODELS).json()
    assert (after["models"][-1]["ref"], after["catalog_version"]) == (NEW, 2)
    assert after["version"] != before["version"]
    assert first.put(f"{MODELS}/{NEW}", json=FIELDS).status_code == 200
    report = {"decision_id": chosen["decision_id"], "model": NEW, "success": True, "latency_ms": 900.0}
    assert first.post(FEEDBACK, json=report).status_code == 202

    removed = second.delete(f"{MODELS}/{NEW}")
    assert (removed.status_code, removed.json()["catalog_version"]) == (200, 4)
    eventually(lambda: ask(first, allowed_models=[NEW]).status_code == 422)
    again = ask(first, session_id="s").raise_for_status().json()
    assert ref_of(again) != NEW
    eventually(lambda: ref_of(ask(second, "/v1/route").raise_for_status().json()) != NEW)
    assert first.post(FEEDBACK, json=report | {"outcome_id": "late"}).status_code == 202
    for path in ("", "/explain"):
        url = f"/v1/quantum/decisions/{chosen['decision_id']}{path}"
        eventually(lambda url=url: first.get(url).status_code == 200)
        assert NEW in first.get(url).text
    assert first.get(MODELS).json()["version"] == before["version"]
    assert first.get("/v1/quantum/providers").json()["providers"][-1]["name"] != "made"


def test_calls_are_spread_over_deployments_that_come_at_run_time(pair: tuple[httpx.Client, httpx.Client]) -> None:
    first, _ = pair
    for place, weight in (("here", 1), ("there", 3)):
        fields = FIELDS | {"deployment_of": "quick", "weight": weight}
        assert first.put(f"{MODELS}/{place}/quick", json=fields).json()["served"]
    bypass = {"cache": "bypass", "timeout_ms": 1000}
    requests = [{"request": {"prompt": f"Fix test {n}"}, "quantum_config": bypass} for n in range(200)]
    results = first.post(f"{ROUTE}/batch", json={"requests": requests}).raise_for_status().json()["results"]
    went = [result["decision"]["provider"] for result in results]
    assert set(went) == {"here", "there"}
    assert went.count("there") == pytest.approx(150, abs=40)
    assert {result["decision"]["propensity"] for result in results} == {0.25, 0.75}
    assert first.post("/v1/quantum/providers/there/override", json={"state": "drained"}).status_code == 200
    eventually(lambda: ask(first).json()["provider"] == "here")
    for place in ("here", "there"):
        first.delete(f"{MODELS}/{place}/quick").raise_for_status()


def test_what_is_wrong_is_refused_over_http(pair: tuple[httpx.Client, httpx.Client]) -> None:
    first, _ = pair
    said = problem(first.put(f"{MODELS}/{NEW}", json=FIELDS | {"latency": 3}), 422, "invalid_catalog")
    assert "latency_s" in said["detail"]
    problem(first.put(f"{MODELS}/nameless", json=FIELDS), 422, "invalid_catalog")
    problem(first.delete(f"{MODELS}/no/such"), 422, "unknown_model")
