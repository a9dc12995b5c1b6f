"""Cached decisions live long where little could turn them, and where little is learned that might."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import Fixed, SetClock, ask
from caching import NOW, House, house
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.cache_lifetimes import CALM_S, LESSONS, SHORTEST_S, LearningPace, Lifetimes

SURE = Fixed("sure", [0.2, 0.8, 0.3])


def life(home: House, request: Any) -> float:
    home.one(request)
    (_, made) = home.cache.tiers.local.items()[-1]
    return made.expires_at - made.made_at


def test_what_strategies_agree_on_lives_longer() -> None:
    lifetimes = Lifetimes(shortest_s=10.0, longest_s=1000.0, jitter=0.0)
    with house(SURE, Fixed("too", [0.1, 0.9, 0.2]), lifetimes=lifetimes) as home:
        agreed = life(home, ask())
    with house(SURE, Fixed("other", [0.1, 0.2, 0.6], confidence=0.3), lifetimes=lifetimes) as home:
        torn = life(home, ask())
    with house(Fixed("even", [0.5, 0.5, 0.5]), lifetimes=lifetimes) as home:
        even = life(home, ask())
    assert 10.0 <= even < torn < agreed <= 1000.0
    assert even == pytest.approx(10.0)


def test_what_many_outcomes_confirm_lives_longer() -> None:
    lives = []
    for evidence in (5.0, 500.0):
        lifetimes = Lifetimes(shortest_s=10.0, longest_s=1000.0, jitter=0.0)
        with house(replace(SURE, success=[0.5, 0.8, 0.5], evidence=evidence), lifetimes=lifetimes) as home:
            lives.append(life(home, ask()))
    assert lives[0] < lives[1]


def test_entries_that_were_made_together_do_not_expire_together() -> None:
    with house(SURE, lifetimes=Lifetimes(100.0, 100.0, 0.2)) as home:
        home.route(*(ask(f"prompt {number}") for number in range(50)))
        ends = [made.expires_at - NOW for _, made in home.cache.tiers.local.items()]
        assert 80.0 <= min(ends) < 90.0 < 110.0 < max(ends) <= 120.0


def test_lifetimes_make_sense_or_are_refused() -> None:
    for shortest, longest, jitter in ((0.0, 1.0, 0.1), (2.0, 1.0, 0.1), (1.0, 2.0, 1.0)):
        with pytest.raises(ValueError, match="shortest_s"):
            Lifetimes(shortest, longest, jitter)


def paced(per_s: float, seconds: int, longest_s: float = 7_200.0) -> LearningPace:
    """After so many outcomes in each of so many seconds."""
    clock = SetClock(50.0)
    pace = LearningPace(clock, longest_s)
    for _ in range(seconds):
        clock.now += 1.0
        pace.note(round(per_s))
    return pace


@pytest.mark.parametrize("per_s", [5, 50, 200])
@pytest.mark.parametrize("seconds", [10, 300, 3_000])
def test_the_least_steady_decisions_live_for_as_many_outcomes_whatever_the_traffic(per_s: float, seconds: int) -> None:
    pace = paced(per_s, seconds)
    assert pace.per_s() == pytest.approx(per_s, rel=0.02)
    assert pace.lifetimes().shortest_s * per_s == pytest.approx(LESSONS, rel=0.02)


def test_where_nothing_is_learned_decisions_live_long_and_where_very_much_is_not_for_no_time() -> None:
    assert paced(0, 1_000).lifetimes().shortest_s == CALM_S
    assert paced(100_000, 100).lifetimes().shortest_s == SHORTEST_S


def test_what_was_learned_long_ago_shortens_no_life() -> None:
    clock = SetClock(0.0)
    pace = LearningPace(clock)
    pace.note(1_000_000)
    assert pace.lifetimes().shortest_s == SHORTEST_S
    clock.now += 86_400.0
    assert pace.lifetimes().shortest_s == CALM_S


@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.integers(0, 10**6)), max_size=20), st.floats(0.1, 86_400.0))
def test_lifetimes_make_sense_and_keep_the_limit(told: list[tuple[float, int]], longest: float) -> None:
    clock = SetClock(0.0)
    pace = LearningPace(clock, longest)
    for seconds, outcomes in told:
        clock.now += seconds
        pace.note(outcomes)
    lifetimes = pace.lifetimes()
    assert 0.0 < lifetimes.shortest_s <= lifetimes.longest_s == longest
    drawn = lifetimes.drawn(np.linspace(0.0, 1.0, 50), np.random.default_rng(0))
    assert max(drawn) <= 1.2 * longest
