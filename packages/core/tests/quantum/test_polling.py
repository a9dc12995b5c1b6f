"""What the strategies expect together: who counts, how much, and what stands where nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import Fixed, route_batch

from monkey_coder.ports import FloatArray, RouteBatch
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.polling import Polled
from monkey_coder.quantum.thread_manager import ThreadOutcome

BATCH = route_batch([[0.5, 0.6], [0.5, 0.6]], evidence=20.0)


def polled(*strategies: Fixed, batch: RouteBatch = BATCH, **more) -> Polled:
    outcomes = [ThreadOutcome(each.name, "SUCCESS", each.score(batch), arrival=n) for n, each in enumerate(strategies)]
    return poll(outcomes, batch, **more)


def poll(outcomes: Sequence[ThreadOutcome], batch: RouteBatch = BATCH, asked=None, bonus=None, trusted=None) -> Polled:
    nothing: FloatArray = np.zeros(batch.candidates.shape, np.float32)
    return Polled.of(batch, outcomes, asked, nothing if bonus is None else bonus, trusted or {})


def test_who_abstains_fails_or_was_not_asked_does_not_vote() -> None:
    here = Fixed("here", [0.1, 0.2]).score(BATCH)
    outcomes = [
        ThreadOutcome("here", "SUCCESS", here, arrival=0),
        ThreadOutcome("abstains", "SUCCESS", replace(here, abstains=np.array([True, False])), arrival=1),
        ThreadOutcome("failed", "FAILED"),
        ThreadOutcome("asked by one", "SUCCESS", here, arrival=2),
    ]
    everybody = np.array([True, True])
    asked = dict.fromkeys(("here", "abstains", "failed"), everybody) | {"asked by one": np.array([True, False])}
    assert poll(outcomes, asked=asked).ballots.voting.tolist() == [
        [True, True],
        [False, True],
        [False, False],
        [True, False],
    ]
    assert poll(outcomes).ballots.voting[3].all()


def test_the_bonus_counts_for_every_strategy_and_is_kept() -> None:
    bonus = np.float32([[0.0, 0.0], [0.25, -2.0]])
    told = polled(Fixed("one", [0.5, 0.75]), Fixed("other", [0.0, 0.0]), bonus=bonus)
    np.testing.assert_array_equal(told.ballots.utility[:, 1], [[0.75, -1.25], [0.25, -2.0]])
    np.testing.assert_array_equal(told.ballots.utility[:, 0], [[0.5, 0.75], [0.0, 0.0]])
    np.testing.assert_array_equal(told.bonus, bonus)


def test_reliability_is_one_unless_it_is_known() -> None:
    ballots = polled(Fixed("known", [0.1, 0.2]), Fixed("new", [0.1, 0.2]), trusted={"known": 0.5}).ballots
    assert ballots.reliability.tolist() == [[0.5, 0.5], [1.0, 1.0]]


def test_where_no_strategy_expects_anything_the_priors_stand() -> None:
    expected = polled(Fixed("one", [0.1, 0.2])).estimates
    low, high = wilson(BATCH.success, BATCH.evidence)
    np.testing.assert_array_equal(expected.success, BATCH.success)
    np.testing.assert_array_equal(expected.low, low)
    np.testing.assert_array_equal(expected.high, high)


def test_what_strategies_expect_is_weighted_as_their_votes_are() -> None:
    sure = Fixed("sure", [0.1, 0.2], confidence=0.75, success=[0.8, 0.4], evidence=30.0)
    unsure = Fixed("unsure", [0.1, 0.2], confidence=0.25, success=[0.4, 0.8], evidence=10.0)
    silent = Fixed("silent", [0.1, 0.2], abstains=True, success=[0.0, 0.0], evidence=1e6)
    expected = polled(sure, unsure, silent).estimates
    assert expected.success[0] == pytest.approx([0.7, 0.5])
    assert expected.low[0] == pytest.approx(wilson(np.array([0.7, 0.5]), np.array([25.0, 25.0]))[0])


def test_some_of_the_requests_are_told_the_same() -> None:
    told = polled(Fixed("one", [0.1, 0.2], success=[0.3, 0.4], evidence=5.0), bonus=np.float32([[0, 0], [1, 0]]))
    some = told.take([1])
    assert some.rows == [1]
    np.testing.assert_array_equal(some.ballots.utility[:, 0], told.ballots.utility[:, 1])
    np.testing.assert_array_equal(some.estimates.low[0], told.estimates.low[1])
    np.testing.assert_array_equal(some.bonus[0], told.bonus[1])
