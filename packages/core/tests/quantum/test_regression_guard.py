"""Going back from a policy that does worse live, and hardly ever from one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from monkey_coder.quantum.regression_guard import STAKES, GuardOptions, RegressionGuard
from monkey_coder.quantum.transition_log import CountedOutcome


def words(version: int | None, rewards, task: str = "debugging", *, cached: bool = False) -> list[CountedOutcome]:
    return [
        CountedOutcome("a decision", "made/model", task, version, False, cached, float(each), float(each), 0.0)
        for each in rewards
    ]


def draws(rng: np.random.Generator, chance: float, count: int) -> np.ndarray:
    return (rng.random(count) < chance).astype(float)


def rolled_back_after(seed: int, before: float, now: float, most: int, options: GuardOptions | None = None) -> float:
    """Outcomes under the new policy until it is sent back, looked at after every ten; infinite if it is not."""
    rng = np.random.default_rng(seed)
    guard = RegressionGuard(2, 1, options)
    guard.observe(words(1, draws(rng, before, 4_000)))
    for seen in range(10, most + 10, 10):
        guard.observe(words(2, draws(rng, now, 10)))
        if guard.report().roll_back:
            return seen
    return np.inf


def test_a_policy_that_is_ten_points_worse_is_sent_back() -> None:
    taken = np.array([rolled_back_after(seed, 0.7, 0.6, 1_500) for seed in range(40)])
    assert np.median(taken) <= 450
    assert (taken <= 1_000).mean() >= 0.9


def test_one_that_fails_half_the_time_more_is_sent_back_at_once() -> None:
    assert max(rolled_back_after(seed, 0.9, 0.4, 200) for seed in range(20)) <= 80


def test_an_equal_policy_stays_however_often_one_looks() -> None:
    # At an error rate of 5% at most 5 of 100 runs may end so on average; more than 11 would be one in 200 by chance.
    options = GuardOptions(error_rate=0.05, tolerance=0.0)
    taken = [rolled_back_after(seed, 0.7, 0.7, 600, options) for seed in range(100)]
    assert np.isfinite(taken).sum() <= 11


def test_by_default_an_equal_policy_practically_always_stays() -> None:
    assert np.isinf([rolled_back_after(seed, 0.6, 0.6, 600) for seed in range(60)]).sum() >= 58


def test_a_better_policy_stays_and_its_gain_is_told() -> None:
    rng = np.random.default_rng(0)
    guard = RegressionGuard(2, None)
    guard.observe([*words(None, draws(rng, 0.5, 4_000)), *words(2, draws(rng, 0.8, 400))])
    told = guard.report()
    assert not told.roll_back
    assert told.loss == pytest.approx(-0.3, abs=0.08)
    assert "engine without a policy" in told.reason
    assert told.evidence < 0.1


def test_like_is_compared_with_like() -> None:
    """Traffic turns to harder tasks, at which both policies are as good as before: no reason to go back."""
    rng = np.random.default_rng(1)
    guard = RegressionGuard(2, 1)
    guard.observe([*words(1, draws(rng, 0.9, 3_000)), *words(1, draws(rng, 0.3, 3_000), "security")])
    guard.observe([*words(2, draws(rng, 0.3, 900), "security"), *words(2, draws(rng, 0.9, 100))])
    assert not guard.report().roll_back
    assert guard.report().compared == 1_000


def test_without_anything_to_compare_with_nothing_is_said() -> None:
    guard = RegressionGuard(2, 1)
    guard.observe(words(2, np.zeros(50)))
    told = guard.report()
    assert (told.compared, told.unmatched, told.roll_back, told.evidence) == (0, 50, False, pytest.approx(1.0))


def test_other_policies_and_caches_play_no_part() -> None:
    guard = RegressionGuard(2, 1)
    guard.observe(words(1, np.ones(500)))
    guard.observe([*words(3, np.zeros(300)), *words(None, np.zeros(300)), *words(2, np.zeros(300), cached=True)])
    assert guard.report().compared == 0


def test_one_absurd_report_decides_nothing() -> None:
    rng = np.random.default_rng(3)
    guard = RegressionGuard(2, 1)
    guard.observe(words(1, draws(rng, 0.6, 2_000)))
    guard.observe(words(2, [-1e12]))
    told = guard.report()
    assert told.evidence < 2.0
    assert told.loss <= 2.0


def test_bulks_of_any_size_come_to_the_same() -> None:
    rng = np.random.default_rng(4)
    rows = [*words(1, draws(rng, 0.7, 2_000)), *words(2, draws(rng, 0.6, 200))]
    whole, single = RegressionGuard(2, 1), RegressionGuard(2, 1)
    whole.observe(rows)
    for row in rows:
        single.observe([row])
    assert whole.report() == single.report()


def test_once_worse_it_stays_so() -> None:
    guard = RegressionGuard(2, 1)
    guard.observe(words(1, np.ones(4_000)))
    guard.observe(words(2, np.zeros(60)))
    assert guard.report().roll_back
    guard.observe(words(2, np.full(2_000, 1.0)))
    told = guard.report()
    assert told.roll_back
    assert "chance of at most 0.01" in told.reason


def test_no_comparison_can_take_the_whole_capital() -> None:
    assert (1.0 + STAKES * (-2.0 - 0.2) > 0.0).all()


@pytest.mark.parametrize(
    "options",
    [{"error_rate": 0.0}, {"error_rate": 1.0}, {"tolerance": -0.1}, {"per_outcome": 0}, {"most_before": 1}],
)
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        GuardOptions(**options)
