"""From opinions to one decision: what each collapse promises, and what none may depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.quantum.collapse_strategies import (
    COLLAPSES,
    NEAR,
    Ballots,
    Ranking,
    best_first,
    best_score,
    combined,
    consensus,
    first_success,
    mean_utility,
    nearness,
    weighted,
)

NAMES = ("ann", "ben", "cat", "dan")
every_collapse = pytest.mark.parametrize("collapse", COLLAPSES.values(), ids=COLLAPSES)


def ballots_of(
    utility,
    confidence=None,
    reliability=None,
    voting=None,
    arrival=None,
    candidates=None,
    cost_usd=None,
) -> Ballots:
    """One request: `utility` is (S, M), the rest (S,) or (M,)."""
    utility = np.array(utility, dtype=np.float32)[:, None, :]
    voters, _, models = utility.shape

    def each(values, otherwise, dtype) -> np.ndarray:
        return np.array([otherwise] * voters if values is None else values, dtype=dtype)

    return Ballots(
        strategies=NAMES[:voters],
        utility=utility,
        confidence=each(confidence, 0.5, np.float32)[:, None],
        reliability=each(reliability, 1.0, np.float32)[:, None],
        voting=each(voting, True, np.bool_)[:, None],
        arrival=np.arange(voters) if arrival is None else np.array(arrival),
        candidates=np.ones((1, models), dtype=np.bool_) if candidates is None else np.array([candidates]),
        cost_usd=np.zeros((1, models), dtype=np.float32) if cost_usd is None else np.array([cost_usd], np.float32),
    )


@st.composite
def elections(draw) -> Ballots:
    """One to four strategies, one to three requests, one to five models; somebody votes, something is a candidate."""
    voters, rows, models = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    voting, candidates = rng.random((voters, rows)) < 0.7, rng.random((rows, models)) < 0.7
    voting[rng.integers(voters), :] = True
    candidates[:, rng.integers(models)] = True
    # Coarse binary fractions, so that ties happen, and sums are exact in any order.
    return Ballots(
        strategies=NAMES[:voters],
        utility=rng.integers(-8, 9, (voters, rows, models)).astype(np.float32) / 8,
        confidence=rng.choice(np.float32([0.0, 0.25, 0.5, 1.0]), (voters, rows)),
        reliability=rng.choice(np.float32([0.0, 0.25, 0.5, 1.0]), (voters, rows)),
        voting=voting,
        arrival=rng.permutation(voters),
        candidates=candidates,
        cost_usd=rng.choice(np.float32([0.0, 0.5, 1.0]), (rows, models)),
    )


def same(one: Ranking, other: Ranking, candidates: np.ndarray) -> None:
    """Equal in all that means something: the order of models that are no candidates does not."""
    for count, order, other_order in zip(candidates.sum(axis=1), one.order, other.order, strict=True):
        assert order[:count].tolist() == other_order[:count].tolist()
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-6)
    np.testing.assert_array_equal(one.support, other.support)
    np.testing.assert_array_equal(one.voters, other.voters)


def test_every_name_of_the_contract_has_a_collapse() -> None:
    assert set(COLLAPSES) == set(COLLAPSE_NAMES)


@every_collapse
@settings(max_examples=60)
@given(ballots=elections())
def test_a_ranking_holds_every_model_once_and_candidates_first(collapse, ballots: Ballots) -> None:
    ranking = collapse(ballots)
    for row, order in enumerate(ranking.order):
        count = ballots.candidates[row].sum()
        assert sorted(order) == list(range(ballots.candidates.shape[1]))
        assert ballots.candidates[row, order[:count]].all()
    assert ((ranking.confidence >= 0.0) & (ranking.confidence <= 1.0 + 1e-6)).all()
    np.testing.assert_array_equal(ranking.voters, ballots.voting.sum(axis=0))
    assert (ranking.support <= ranking.voters).all()
    np.testing.assert_array_equal(ranking.majority, 2 * ranking.support > ranking.voters)


@every_collapse
@settings(max_examples=60)
@given(ballots=elections())
def test_the_decider_voted(collapse, ballots: Ballots) -> None:
    assert ballots.voting[collapse(ballots).decider, np.arange(len(ballots.candidates))].all()


@every_collapse
@settings(max_examples=60)
@given(ballots=elections(), seed=st.integers(0, 99))
def test_what_the_silent_and_the_ineligible_hold_changes_nothing(collapse, ballots: Ballots, seed) -> None:
    nonsense = np.array([np.nan, 1e30, -5.0], dtype=np.float32)
    utility = ballots.utility.copy()
    ignored = ~(ballots.voting[:, :, None] & ballots.candidates[None])
    utility[ignored] = np.random.default_rng(seed).choice(nonsense, ignored.sum())
    confidence = np.where(ballots.voting, ballots.confidence, np.float32(0.77))
    same(collapse(ballots), collapse(replace(ballots, utility=utility, confidence=confidence)), ballots.candidates)


@every_collapse
@settings(max_examples=60)
@given(ballots=elections(), data=st.data())
def test_the_order_in_which_strategies_are_listed_does_not_matter(collapse, ballots: Ballots, data) -> None:
    if collapse is best_score:  # between equally sure strategies only their order can decide
        sure = (np.arange(len(ballots.strategies), dtype=np.float32) + 1) / 8
        ballots = replace(
            ballots,
            confidence=np.repeat(sure[:, None], len(ballots.candidates), axis=1),
            reliability=np.ones_like(ballots.reliability),
        )
    shuffled = list(data.draw(st.permutations(range(len(ballots.strategies)))))
    listed = replace(
        ballots,
        strategies=tuple(ballots.strategies[s] for s in shuffled),
        utility=ballots.utility[shuffled],
        confidence=ballots.confidence[shuffled],
        reliability=ballots.reliability[shuffled],
        voting=ballots.voting[shuffled],
        arrival=ballots.arrival[shuffled],
    )
    same(collapse(ballots), collapse(listed), ballots.candidates)


@every_collapse
@settings(max_examples=40)
@given(ballots=elections())
def test_a_request_is_decided_the_same_alone_and_in_a_batch(collapse, ballots: Ballots) -> None:
    together = collapse(ballots)
    for row in range(len(ballots.candidates)):
        alone = collapse(ballots.take([row]))
        np.testing.assert_array_equal(alone.order[0], together.order[row])
        assert alone.confidence[0] == pytest.approx(together.confidence[row], abs=1e-6)
        assert alone.decider[0] == together.decider[row]


@every_collapse
@settings(max_examples=40)
@given(ballots=elections())
def test_what_all_put_first_wins(collapse, ballots: Ballots) -> None:
    leader = np.argmax(ballots.candidates, axis=1)
    utility = ballots.utility.copy()
    utility[:, np.arange(len(leader)), leader] = 2.0
    ranking = collapse(replace(ballots, utility=utility))
    np.testing.assert_array_equal(ranking.order[:, 0], leader)
    np.testing.assert_array_equal(ranking.support, ranking.voters)
    assert ranking.majority.all()


@every_collapse
def test_ties_go_to_the_cheaper_and_then_to_the_catalog(collapse) -> None:
    even = [[0.5, 0.5, 0.5]] * 3
    assert collapse(ballots_of(even, cost_usd=[3.0, 1.0, 1.0])).order.tolist() == [[1, 2, 0]]


@every_collapse
def test_strategies_that_weigh_nothing_are_heard_when_there_is_no_other(collapse) -> None:
    ranking = collapse(ballots_of([[0.1, 0.9], [0.2, 0.8]], confidence=[0.0, 0.0]))
    assert ranking.order[0, 0] == 1
    assert ranking.voters[0] == 2


def test_best_score_follows_the_most_confident_after_its_calibration() -> None:
    opinions = [[0.9, 0.1], [0.1, 0.9]]
    assert best_score(ballots_of(opinions, confidence=[0.8, 0.6])).order[0, 0] == 0
    unreliable = best_score(ballots_of(opinions, confidence=[0.8, 0.6], reliability=[0.5, 1.0]))
    assert unreliable.order[0, 0] == 1
    assert unreliable.decider[0] == 1
    assert unreliable.confidence[0] == pytest.approx(0.6)


def test_first_success_follows_the_first_to_answer() -> None:
    ranking = first_success(ballots_of([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], arrival=[2, 0, 1]))
    assert (ranking.order[0, 0], ranking.decider[0]) == (1, 1)
    abstained = ballots_of([[0.9, 0.1], [0.1, 0.9]], arrival=[1, 0], voting=[True, False])
    assert first_success(abstained).order[0, 0] == 0


def test_first_success_prefers_a_vote_whose_arrival_nobody_noted_to_no_vote() -> None:
    # An answer that comes in just as the time is up has no rank: it counts as the last, yet before silence.
    ranking = first_success(ballots_of([[0.9, 0.1], [0.1, 0.9]], arrival=[2, 2], voting=[False, True]))
    assert (ranking.order[0, 0], ranking.decider[0]) == (1, 1)


def test_weighted_is_the_mean_by_confidence_and_reliability() -> None:
    ballots = ballots_of([[1.0, 0.0, 0.6], [0.0, 1.0, 0.6]], confidence=[0.9, 0.3], reliability=[1.0, 1.0])
    assert weighted(ballots).utility[0] == pytest.approx([0.75, 0.25, 0.6])
    assert weighted(ballots).order.tolist() == [[0, 2, 1]]
    distrusted = replace(ballots, reliability=np.float32([[0.1], [1.0]]))
    assert mean_utility(distrusted)[0] == pytest.approx([0.09 / 0.39, 0.3 / 0.39, 0.6])
    assert weighted(distrusted).order[0, 0] == 1


def test_consensus_follows_the_majority_against_the_mean() -> None:
    loud = ballots_of([[0.51, 0.5], [0.51, 0.5], [0.0, 1.0]])
    assert weighted(loud).order[0, 0] == 1
    ranking = consensus(loud)
    assert ranking.order[0, 0] == 0
    assert ranking.majority[0]
    assert ranking.support[0] == 2


def test_consensus_without_a_majority_takes_the_best_of_the_tied() -> None:
    # Models 0 and 1 have a vote each; 2 has the best mean, but nobody's vote.
    ranking = consensus(ballots_of([[0.9, 0.3, 0.8], [0.1, 0.9, 0.8]]))
    assert weighted(ballots_of([[0.9, 0.3, 0.8], [0.1, 0.9, 0.8]])).order[0, 0] == 2
    assert ranking.order[0, 0] == 1
    assert not ranking.majority[0]


def test_combined_takes_the_best_mean_rank_whatever_the_distances() -> None:
    # Weighted ranks: model 0 first, first and last, (0 + 0 + 0.8) / 1.4; model 1 second, second and first, 1 / 1.4.
    opinions = [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [-90.0, 0.9, 0.0]]
    ballots = ballots_of(opinions, confidence=[0.5, 0.5, 0.4])
    assert weighted(ballots).order[0, 0] == 1
    assert combined(ballots).order[0, 0] == 0


def test_combined_breaks_equal_ranks_by_utility() -> None:
    ranking = combined(ballots_of([[0.9, 0.8], [0.1, 0.9]]))
    assert ranking.order[0, 0] == 1


def test_confidence_falls_when_the_winner_is_far_from_what_strategies_wanted() -> None:
    agreed = weighted(ballots_of([[0.9, 0.1], [0.9, 0.1]]))
    torn = weighted(ballots_of([[0.9, 0.1], [0.1, 0.85]]))
    assert agreed.confidence[0] == pytest.approx(0.5)
    assert torn.confidence[0] < 0.3


def test_nearness_is_one_at_home_and_1_over_e_at_the_regret_named() -> None:
    ballots = ballots_of([[0.9, 0.9 - NEAR]])
    assert nearness(np.array([0]), np.array([[0]]), ballots)[0, 0] == pytest.approx(1.0)
    assert nearness(np.array([1]), np.array([[0]]), ballots)[0, 0] == pytest.approx(np.exp(-1.0), rel=1e-4)


def test_best_first_sorts_by_utility_cost_and_catalog_and_leaves_others_out() -> None:
    ballots = ballots_of([[0.0] * 5], candidates=[True, True, True, False, True], cost_usd=[2.0, 1.0, 1.0, 0.0, 9.0])
    order = best_first(np.array([[0.5, 0.5, 0.5, 0.9, 0.7]]), ballots)
    assert order.tolist() == [[4, 1, 2, 0, 3]]
