import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.evaluation.statistics import (
    Bootstrap,
    Interval,
    aiq,
    clusters,
    frontier,
    frontier_band,
    interval,
    pair_curve,
    pair_metrics,
)


def heights(cost, success, at):
    return frontier(np.array(cost, float), np.array(success, float), np.array(at, float)).tolist()


def one_aiq(cost, success, low, high):
    return aiq(np.array([cost], float), np.array([success], float), np.array([low], float), np.array([high], float))[0]


def test_the_frontier_starts_at_nothing_mixes_neighbours_and_stays_flat():
    # (2, 0.5) lies under the chord from (1, 0.6) to (4, 0.9); (5, 0.7) is past the best point.
    cost, success = [1, 2, 4, 5], [0.6, 0.5, 0.9, 0.7]
    assert heights(cost, success, [0, 0.5, 1, 2, 4, 9]) == pytest.approx([0, 0.3, 0.6, 0.7, 0.9, 0.9])


def test_a_free_point_lifts_the_start():
    assert heights([0, 2], [0.4, 0.8], [0, 1, 2]) == pytest.approx([0.4, 0.6, 0.8])


def test_aiq_by_hand():
    # From 0.5 to 1 the frontier rises from 0.3 to 0.6, then to 0.9 at 4, then stays: 0.225 + 2.25 + 0.9 over 4.5.
    assert one_aiq([1, 4], [0.6, 0.9], 0.5, 5.0) == pytest.approx((0.225 + 2.25 + 0.9) / 4.5)
    assert one_aiq([1, 4], [0.6, 0.9], 2.5, 2.5) == pytest.approx(0.75)  # no range: the height there


POINTS = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=9)


@given(POINTS, POINTS)
def test_the_frontier_is_concave_never_falls_and_only_gains_by_more_points(points, more):
    at = np.linspace(0, 12, 61)
    height = frontier(*np.array(points, dtype=np.float64).T, at)
    assert (np.diff(height) >= -1e-9).all()
    assert (np.diff(height, 2) <= 1e-7).all()
    cost, success = np.array(points, dtype=np.float64).T
    assert (frontier(cost, success, cost) >= success - 1e-12).all()
    assert (frontier(*np.array([*points, *more], dtype=np.float64).T, at) >= height - 1e-9).all()
    assert height[-1] == pytest.approx(success.max())


@given(POINTS, st.floats(0.1, 5), st.floats(0.1, 5))
def test_aiq_is_the_mean_height_between_the_cheapest_and_the_dearest(points, low, width):
    cost, success = np.array(points, dtype=np.float64).T
    middles = low + width * (np.arange(4000) + 0.5) / 4000
    assert one_aiq(cost, success, low, low + width) == pytest.approx(frontier(cost, success, middles).mean(), abs=1e-4)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        values = (rng.random(60) < 0.7).astype(float)
        drawn = Bootstrap.of(np.arange(60), rng, 400).means(values[None])[:, 0]
        each = interval(drawn)
        assert each.value == pytest.approx(values.mean())
        hits += each.low <= 0.7 <= each.high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_width_is_that_of_the_standard_error():
    values = np.arange(400) / 400
    each = interval(Bootstrap.of(np.arange(400), np.random.default_rng(0), 2000).means(values[None])[:, 0])
    assert each.high - each.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_duplicates_are_drawn_together():
    unit = np.repeat(np.arange(30), 10)
    values = np.repeat(np.random.default_rng(0).random(30), 10)
    together = interval(Bootstrap.of(unit, np.random.default_rng(0), 1000).means(values[None])[:, 0])
    apart = interval(Bootstrap.of(np.arange(300), np.random.default_rng(0), 1000).means(values[None])[:, 0])
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_units_are_prompts_or_five_and_more_repositories():
    prompts = ["a", " a ", "b", "c", "d", "e"]
    assert clusters(prompts, [None] * 6).tolist() == [0, 0, 1, 2, 3, 4]
    assert clusters(prompts, ["r", "s", "r", "s", "r", "s"]).tolist() == [0, 0, 1, 2, 3, 4]
    assert clusters(prompts, ["1", "2", "3", "4", "5", "1"]).tolist() == [0, 1, 2, 3, 4, 0]
    assert clusters(["a", "a", "b", "c", "d", "e", "f"], [None, None, *"12345"]).tolist() == [0, 0, 1, 2, 3, 4, 5]


def test_verdicts_in_the_words_of_the_rules():
    assert Interval(0.02, 0.001, 0.04).better
    assert not Interval(0.02, 0.0, 0.04).better
    assert Interval(0.0, -0.009, 0.009).not_worse
    assert not Interval(0.0, -0.01, 0.01).not_worse


def test_the_band_of_a_frontier_holds_its_middle():
    rng = np.random.default_rng(0)
    cost, success = rng.uniform(1, 2, (500, 3)), rng.uniform(0.4, 0.6, (500, 3))
    middle, low, high = frontier_band(cost, success, np.array([0.0, 1.5, 3.0]))
    assert middle == pytest.approx(frontier(cost[0], success[0], np.array([0.0, 1.5, 3.0])))
    assert (low <= high).all()


def test_apgr_and_cpt_by_hand():
    # The strong model gains on tasks 0 and 1 alone; the order sends 0 first, then 2, then 1, then 3.
    strong, weak = np.array([1, 1, 1, 0.0]), np.array([0, 0, 1, 0.0])
    metrics = pair_metrics(("s", "w"), np.array([4, 2, 3, 1.0]), strong, weak)
    assert metrics.apgr == pytest.approx((0.25 + 0.5 + 0.75 + 1.0) * 0.25)
    assert metrics.cpt_50 == pytest.approx(0.25)
    assert metrics.cpt_80 == pytest.approx(0.5 + 0.25 * 0.6)
    best = pair_metrics(("s", "w"), strong - weak, strong, weak)
    assert (best.apgr, best.cpt_50) == (pytest.approx(0.75), pytest.approx(0.25))


def test_an_order_without_information_recovers_half_the_gap():
    rng = np.random.default_rng(0)
    strong, weak = (rng.random(4000) < 0.8).astype(float), (rng.random(4000) < 0.5).astype(float)
    assert pair_metrics(("s", "w"), np.zeros(4000), strong, weak).apgr == pytest.approx(0.5)
    assert pair_metrics(("s", "w"), rng.random(4000), strong, weak).apgr == pytest.approx(0.5, abs=0.05)


def test_without_a_gap_there_is_nothing_to_recover():
    with pytest.raises(ValueError, match="no gap"):
        pair_curve(np.zeros(2), np.array([0, 1.0]), np.array([1, 0.0]))
