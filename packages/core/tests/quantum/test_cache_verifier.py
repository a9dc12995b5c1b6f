"""Some hits are decided again; those that do not stand any more are told of, and put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from builders import Fixed, ask, chosen
from caching import House, house

from monkey_coder.models import RouteRequest
from monkey_coder.ports import RouteBatch, Scores
from monkey_coder.quantum.cache_verifier import MOST_AT_ONCE, CacheVerifier, plain
from monkey_coder.quantum.session_affinity import SessionMemory


@dataclass
class Changing:
    """A strategy that changes its mind without anybody noticing."""

    utility: list[float] = field(default_factory=lambda: [0.2, 0.8, 0.3])
    name: str = "changing"

    def score(self, batch: RouteBatch) -> Scores:
        return Fixed(self.name, self.utility).score(batch)


def verifier_of(home: House) -> CacheVerifier:
    def quietly(requests: Sequence[RouteRequest]) -> list[Any]:
        alone = replace(home.manager, listeners=(home.notes,), sessions=SessionMemory())
        return alone.decide([plain(request) for request in requests])

    return CacheVerifier(home.cache, quietly, home.notes)


def test_hits_that_still_stand_are_left_alone() -> None:
    with house(Changing(), check_rate=1.0) as home:
        verifier = verifier_of(home)
        assert (verifier.check(), verifier.disagreement) == (0, None)
        home.route(ask(), *[ask()] * 3)
        home.one(ask())
        assert verifier.check() > 0
        assert verifier.disagreement == 0.0
        assert home.one(ask())["cache"] == "local"


def test_hits_that_would_be_decided_otherwise_are_counted_and_repaired() -> None:
    mind = Changing()
    with house(mind, check_rate=1.0, epsilon=1.0) as home:
        home.change(epsilon={})
        home.one(ask())
        mind.utility = [0.2, 0.3, 0.8]
        assert chosen(home.one(ask())) == "mid/middle"
        home.change(epsilon={"debugging": 1.0})  # checking never explores
        verifier = verifier_of(home)
        assert verifier.check() == 1
        assert verifier.disagreement == 1.0
        assert home.cache.counts["local", "disagreed"] == 1
        repaired = home.one(ask())
        assert (repaired["cache"], chosen(repaired)) == ("local", "big/dear")


def test_what_cannot_be_decided_again_is_dropped() -> None:
    mind = Changing()
    with house(mind, check_rate=1.0) as home:
        home.one(ask())
        home.one(ask())
        verifier = CacheVerifier(home.cache, lambda requests: [Unheard() for _ in requests], home.notes)
        assert verifier.check() == 1
        assert len(home.cache.tiers.local) == 0


class Unheard(dict):  # type: ignore[type-arg]
    """An answer that no event was told of, as the heuristic gives when the engine breaks."""

    def __init__(self) -> None:
        super().__init__(decision_id="none", provider="tiny", model="cheap")


def test_checks_are_a_sample_and_bounded() -> None:
    with house(Changing(), check_rate=0.05) as home:
        home.one(ask())
        for _ in range(400):
            home.one(ask())
        waiting = len(home.cache.unchecked)
        assert 5 <= waiting <= 40
        assert verifier_of(home).check() == min(MOST_AT_ONCE, waiting)


def test_hits_of_sessions_are_not_checked() -> None:
    with house(Changing(), check_rate=1.0) as home:
        home.one(ask(session_id="a"))
        assert home.one(ask(session_id="b"))["cache"] == "local"
        assert len(home.cache.unchecked) == 0
