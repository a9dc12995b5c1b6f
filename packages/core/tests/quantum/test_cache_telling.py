"""Whoever listens to decisions hears of hits, and metrics of what the cache did."""

from __future__ import annotations

import time
from collections import Counter

import orjson
import pytest
from builders import Fixed, ask
from caching import House, house
from deciding import Recorder
from prometheus_client import CollectorRegistry

from monkey_coder.quantum.cache_telling import MOST_AT_ONCE, HitTeller
from monkey_coder.quantum.decision_facts import DecisionFacts
from monkey_coder.quantum.decision_log import DecisionLog, find_decision
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.metrics_collector import MetricsCollector
from monkey_coder.quantum.recent_decisions import RecentDecisions
from monkey_coder.quantum.record_writing import payloads_of
from monkey_coder.storage.port import DecisionRow

SURE = Fixed("sure", [0.2, 0.8, 0.3])


class Broken:
    """A listener that fails."""

    def on_decided(self, events: object) -> None:
        raise RuntimeError("no such luck")


def teller_of(home: House, *listeners: object) -> tuple[HitTeller, Counter[tuple[str, str]]]:
    counted: Counter[tuple[str, str]] = Counter()

    def on_cache(tier: str, result: str, times: int) -> None:
        counted[tier, result] += times

    return HitTeller(home.cache, lambda: listeners, on_cache), counted


def test_a_hit_is_an_event_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with house(SURE) as home:
        recorder = Recorder()
        teller, _ = teller_of(home, Broken(), recorder)
        first, hit = home.one(ask(episode_id="d")), home.one(ask(episode_id="e"))
        assert teller.tell() == 1
        (event,) = recorder.events
        assert event.answer == hit
        assert event.reuse is not None
        assert (event.reuse.origin, event.reuse.task) == (first["decision_id"], "debugging")
        assert event.distribution.tolist() == [1.0]
        assert teller.tell() == 0
    assert "a listener failed on 1 hits" in caplog.text


def test_the_log_row_of_a_hit_refers_to_the_decision_and_is_read_with_what_that_was_made_from() -> None:
    recorder = Recorder()
    with house(SURE, listeners=[recorder]) as home:
        teller, _ = teller_of(home, recorder)
        first, hit = home.one(ask()), home.one(ask())
        teller.tell()
        payloads = {decode(payload).id: payload for payload in payloads_of(recorder.events, time.time())}

        class Log:
            def decision(self, decision_id: str) -> bytes | None:
                return payloads.get(decision_id)

        assert decode(payloads[hit["decision_id"]]).refs == ()  # no arrays of its own
        original = decode(payloads[first["decision_id"]])
        read = find_decision(hit["decision_id"], home.manager.ids, Log(), time.time())  # type: ignore[arg-type]
        assert (read.answer, read.same_as) == (hit, first["decision_id"])
        assert (read.refs, read.utility.tolist()) == (original.refs, original.utility.tolist())
        assert read.distribution.tolist() == [0.0, 1.0, 0.0]
        del payloads[first["decision_id"]]
        alone = find_decision(hit["decision_id"], home.manager.ids, Log(), time.time())  # type: ignore[arg-type]
        assert (alone.answer, alone.refs, alone.task) == (hit, (), "debugging")


def test_the_log_the_recent_decisions_and_the_metrics_take_hits_as_they_take_decisions() -> None:
    rows: list[DecisionRow] = []
    registry, recent = CollectorRegistry(), RecentDecisions()
    with house(SURE) as home:
        log = DecisionLog(lambda make: rows.append(make()), lambda: 7.0)
        teller, _ = teller_of(home, log, MetricsCollector(registry), recent)
        first, *hits = (home.one(ask()) for _ in range(4))
        home.troubles = ("store",)
        hits.append(home.one(ask()))
        assert teller.tell() == len(hits)
    assert [decode(row.payload).answer for row in rows] == hits
    assert [(row.id, row.time_s) for row in rows] == [(hit["decision_id"], 7.0) for hit in hits]
    for hit, row in zip(hits, rows, strict=True):
        facts = recent.get(hit["decision_id"])
        assert facts == DecisionFacts.of_payload(row.payload)
        assert facts is not None
        assert (facts.origin, facts.served, facts.task) == (first["decision_id"], "mid/middle", "debugging")
    decided = {"provider": "mid", "model": "middle", "collapse": first["collapse_strategy"]}
    assert registry.get_sample_value("quantum_decisions_total", decided) == len(hits)
    assert registry.get_sample_value("quantum_route_duration_seconds_count", {"cache": "local"}) == len(hits)
    assert registry.get_sample_value("quantum_degraded_total", {"reason": "store"}) == 1
    assert (
        registry.get_sample_value("quantum_strategy_results_total", {"strategy": "sure", "status": "SUCCESS"}) is None
    )


def test_a_logged_hit_is_much_smaller_than_its_answer() -> None:
    rows: list[DecisionRow] = []
    with house(*(Fixed(f"strategy {place}", [0.2, 0.8, 0.3]) for place in range(6))) as home:
        teller, _ = teller_of(home, DecisionLog(lambda make: rows.append(make()), lambda: 7.0))
        hits = [home.one(ask()) for _ in range(2)][1:]
        teller.tell()
    assert len(rows[0].payload) < 0.6 * len(orjson.dumps(hits[0]))


def test_only_the_latest_repeats_are_kept_in_mind() -> None:
    recent = RecentDecisions(size=10)
    with house(SURE) as home:
        teller, _ = teller_of(home, recent)
        ids = [home.one(ask())["decision_id"] for _ in range(40)]
        teller.tell()
    assert recent.get(ids[1]) is None
    assert recent.get(ids[-1]) is not None


def test_metrics_hear_each_count_once() -> None:
    with house(SURE) as home:
        teller, counted = teller_of(home)
        for _ in range(3):
            home.one(ask())
            teller.tell()
        assert counted == {("local", "hit"): 2, ("local", "miss"): 1, ("local", "stored"): 1}


def test_many_hits_are_told_in_several_goes() -> None:
    with house(SURE) as home:
        recorder = Recorder()
        teller, _ = teller_of(home, recorder)
        home.one(ask())
        for _ in range(MOST_AT_ONCE + 3):
            home.one(ask())
        assert teller.tell() == MOST_AT_ONCE + 3 == len(recorder.events)
