"""The cache gives a decision again exactly as long as the engine would still make it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from builders import CHEAP, DEAR, MIDDLE, Failing, Fixed, ask, chosen, in_contract, table
from caching import NOW, house, told

from monkey_coder.errors import RouterError
from monkey_coder.ports import RouteBatch, Scores
from monkey_coder.quantum.cache_lifetimes import Lifetimes

SURE = Fixed("sure", [0.2, 0.8, 0.3])
MODEL = "mid/middle"
"""What it decides for."""
BODY = orjson.dumps({"request": {"prompt": "Fix the failing test"}, "quantum_config": {"timeout_ms": 1000}})


@dataclass(frozen=True)
class Prefers:
    """A strategy that has one favourite in any catalog."""

    ref: str
    name: str = "prefers"

    def score(self, batch: RouteBatch) -> Scores:
        return Fixed(self.name, [0.8 if ref == self.ref else 0.2 for ref in batch.table.refs]).score(batch)


def cache_of(answers: Iterable[Any]) -> list[str]:
    return [answer["cache"] for answer in answers]


def test_the_second_time_the_decision_is_given_again() -> None:
    with house(SURE) as home:
        first, second = home.one(ask()), home.one(ask())
        assert cache_of([first, second]) == ["miss", "local"]
        assert home.decided == 1
        own = {"decision_id", "episode_id", "cache", "execution_time_ms"}
        assert {k: v for k, v in first.items() if k not in own} == {k: v for k, v in second.items() if k not in own}
        assert first["decision_id"] != second["decision_id"]
        for answer in (first, second):
            in_contract(answer)


def test_the_same_bytes_are_recalled_without_being_read() -> None:
    with house(SURE) as home:
        assert home.cache.recall(BODY) is None
        asked = home.cache.ask(ask())
        home.cache.decide([asked])
        assert told(home.cache.find(asked, BODY))["cache"] == "local"
        again = told(home.cache.recall(BODY))
        assert (chosen(again), again["cache"]) == ("mid/middle", "local")
        home.cache.clear()
        assert home.cache.recall(BODY) is None


def test_an_episode_keeps_its_name_and_a_hit_without_one_begins_its_own() -> None:
    with house(SURE) as home:
        home.route(ask(episode_id="one"), ask())
        two, fresh = home.one(ask(episode_id="two")), home.one(ask())
        assert cache_of([two, fresh]) == ["local", "local"]
        assert two["episode_id"] == "two"
        assert fresh["episode_id"] == fresh["decision_id"]


def test_bypass_and_refresh_do_what_they_say() -> None:
    with house(SURE) as home:
        bypass, refresh = ask(options={"cache": "bypass"}), ask(options={"cache": "refresh"})
        assert cache_of([home.one(r) for r in (bypass, ask(), bypass, ask(), refresh, ask())]) == [
            *("bypass", "miss", "bypass", "local", "miss", "local")
        ]
        assert home.decided == 4
        stored = [made for _, made in home.cache.tiers.local.items()]
        assert [made.origin for made in stored] == [home.one(refresh)["decision_id"]] or len(stored) == 1


def test_switched_off_nothing_is_cached() -> None:
    with house(SURE) as home:
        home.cache.on = False
        assert cache_of([home.one(ask()), home.one(ask())]) == ["bypass", "bypass"]
        assert len(home.cache.tiers.local) == 0


def test_equal_requests_of_one_batch_are_decided_once() -> None:
    with house(SURE) as home:
        asked = [home.cache.ask(ask()) for _ in range(5)]
        answers = [told(reply) for reply in home.cache.decide(asked)]
        assert sorted(cache_of(answers)) == ["local"] * 4 + ["miss"]
        assert home.decided == 1
        assert len({answer["decision_id"] for answer in answers}) == 5


def test_who_waited_while_it_was_decided_gets_it_from_there() -> None:
    with house(SURE) as home:
        early, late = home.cache.ask(ask()), home.cache.ask(ask())
        home.cache.decide([early])
        assert told(home.cache.decide([late])[0])["cache"] == "local"
        assert home.decided == 1


def test_what_must_not_be_given_again_is_decided_for_everybody() -> None:
    with house(SURE, Failing()) as home:
        answers = [told(reply) for reply in home.cache.decide([home.cache.ask(ask()) for _ in range(3)])]
        assert cache_of(answers) == ["miss"] * 3
        assert home.decided == 3
        assert all(answer["degraded"] == ["strategy"] for answer in answers)


def test_explored_answers_are_not_given_again() -> None:
    with house(SURE, epsilon=1.0) as home:
        answers = [home.one(ask()) for _ in range(3)]
        assert all(answer["explored"] for answer in answers)
        assert cache_of(answers) == ["miss"] * 3


def test_hits_do_not_explore_and_say_that_they_are_certain() -> None:
    with house(SURE, epsilon=0.5, seed=3) as home:
        answers = [home.one(ask()) for _ in range(40)]
        first_kept = cache_of(answers).index("local")
        assert all(answer["cache"] == "local" for answer in answers[first_kept:])
        assert {(a["propensity"], a["explored"]) for a in answers[first_kept:]} == {(1.0, False)}
        assert answers[first_kept - 1]["propensity"] == pytest.approx(0.5)


def test_errors_are_not_cached() -> None:
    with house(SURE) as home:
        request = ask(preferences={"max_cost_usd": 0.0})
        for _ in range(2):
            assert isinstance(home.one(request), RouterError)
        assert home.decided == 2


def test_the_heuristic_is_not_cached() -> None:
    with house(Fixed("silent", [0.0], abstains=True)) as home:
        assert cache_of([home.one(ask()), home.one(ask())]) == ["bypass", "bypass"]  # as the stand-in answers
        assert home.decided == 2


def test_calls_that_are_spread_over_deployments_are_decided_each() -> None:
    twins = replace(table(), deployment_of=(None, "mid/middle", "mid/middle"))
    with house(SURE, models=twins) as home:
        assert cache_of([home.one(ask()), home.one(ask())]) == ["miss", "miss"]


@pytest.mark.parametrize(
    "changed",
    [
        (CHEAP, replace(MIDDLE, available=False), DEAR),
        (CHEAP, replace(MIDDLE, success=0.7), DEAR),
        (CHEAP, replace(MIDDLE, context_window=2), DEAR),
        (CHEAP, replace(MIDDLE, input_usd=1.0), DEAR),
        (CHEAP, DEAR),
    ],
    ids=["unavailable", "learned", "smaller", "dearer", "gone"],
)
def test_a_hit_does_not_survive_what_it_rests_on(changed: Sequence[Any]) -> None:
    with house(Prefers("mid/middle")) as home:
        home.one(ask())
        home.change(table=table(*changed))
        assert home.one(ask())["cache"] == "miss"


def test_a_hit_survives_what_does_not_concern_it() -> None:
    with house(SURE) as home:
        first = home.one(ask())
        home.change(table=table(CHEAP, MIDDLE, replace(DEAR, available=False)), reliability={"sure": 0.5})
        second = home.one(ask())
        assert (second["cache"], chosen(second)) == ("local", chosen(first))
        assert [each["model"] for each in second["excluded"]] == ["big/dear"]
        home.change(table=table())  # it is back, and was not compared when the answer was fitted
        assert home.one(ask())["cache"] == "miss"


def test_a_new_policy_leaves_nothing_of_the_old() -> None:
    with house(SURE) as home:
        home.one(ask())
        home.change(policy_version=7)
        assert home.one(ask())["cache"] == "miss"


def test_entries_end_and_none_is_given_after_its_end() -> None:
    with house(SURE) as home:
        home.one(ask())
        home.wall.now = NOW + 99.0
        assert home.one(ask())["cache"] == "local"
        home.wall.now = NOW + 100.0
        assert home.one(ask())["cache"] == "miss"


def test_sessions_hit_only_where_their_last_model_is_the_same() -> None:
    with house(SURE) as home:
        first = home.one(ask(session_id="a"))
        assert home.one(ask(session_id="b"))["cache"] == "local"  # a new session, like the first one was
        assert home.manager.sessions.last("b") == chosen(first)
        assert home.one(ask(session_id="a"))["cache"] == "miss"  # now with a last model
        assert home.one(ask(session_id="b"))["cache"] == "local"


def test_a_session_that_moved_on_while_it_waited_spoils_nothing() -> None:
    with house(SURE) as home:
        asked = home.cache.ask(ask(session_id="a"))
        home.manager.sessions.use("a", "big/dear")
        home.cache.decide([asked])
        assert home.one(ask(session_id="b"))["cache"] == "miss"  # what was made is not for new sessions
        home.manager.sessions.use("c", "big/dear")
        assert home.one(ask(session_id="c"))["cache"] == "local"  # but for sessions that used the same


def test_troubles_are_told_by_hits_and_misses_alike() -> None:
    with house(SURE) as home:
        home.troubles = ("store",)
        assert [home.one(ask())["degraded"] for _ in range(2)] == [["store"], ["store"]]
        home.troubles = ()
        assert home.one(ask())["degraded"] == []


def test_the_stock_can_be_looked_after() -> None:
    with house(SURE, lifetimes=Lifetimes(10.0, 40.0, 0.0)) as home:
        answers = home.route(ask("a"), ask("b"), ask("c"))
        cache = home.cache
        assert cache.forget(answers[0]["decision_id"], MODEL) == 1
        assert cache.forget("unknown", MODEL) == 0
        assert home.one(ask("a"))["cache"] == "miss"
        (_, before) = cache.tiers.local.items()[0]
        until = before.expires_at
        assert cache.confirm(before.origin, MODEL)
        assert (before.confirmed, before.expires_at) == (1, min(NOW + 2 * (until - NOW), NOW + 40.0))
        assert not cache.confirm(before.origin, "big/dear")
        home.wall.now = before.expires_at
        assert not cache.confirm(before.origin, MODEL)
        home.wall.now = NOW
        assert cache.invalidate(lambda made: made.ref == "mid/middle") == 2
        assert cache_of(home.route(ask("a"), ask("b"))) == ["miss", "miss"]
        assert cache.clear() == 2
        assert list(cache.shared(10)) == []


def test_what_is_counted_adds_up() -> None:
    with house(SURE) as home:
        for _ in range(3):
            home.one(ask())
        home.change(table=table(CHEAP, replace(MIDDLE, available=False), DEAR))
        home.one(ask())
        counts = home.cache.counts
        assert [counts["local", name] for name in ("hit", "miss", "stored", "rejected")] == [2, 2, 2, 1]


def test_the_requests_of_entries_are_remembered_for_whoever_warms_the_cache() -> None:
    with house(SURE) as home:
        kept: list[tuple[bytes, Any]] = []
        home.cache.remember = lambda digest, request: kept.append((digest, request))
        home.route(ask("a"), ask("b", session_id="s"), ask("c", options={"cache": "bypass"}))
        assert kept == [(home.cache.ask(ask("a")).digest, ask("a"))]
