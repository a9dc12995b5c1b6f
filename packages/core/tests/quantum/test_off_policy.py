"""Estimates of policies from logs, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.quantum.off_policy import (
    BanditLog,
    Estimates,
    difference_of,
    effective_size,
    importance_weights,
    support,
    value_of,
)


@dataclass(frozen=True)
class Shop:
    """Contexts (G) between which M actions differ in their chance; `logs` draws decisions by a logging policy."""

    chance: np.ndarray
    logging: np.ndarray
    target: np.ndarray

    @classmethod
    def make(cls, seed: int, contexts: int = 3, actions: int = 4, least: float = 0.05) -> Shop:
        rng = np.random.default_rng(seed)
        logging = rng.dirichlet(np.ones(actions), contexts)
        logging = least + (1.0 - actions * least) * logging
        return cls(
            rng.uniform(0.05, 0.95, (contexts, actions)), logging, rng.dirichlet(np.full(actions, 0.3), contexts)
        )

    @property
    def truth(self) -> float:
        return float((self.target * self.chance).sum(axis=1).mean())

    def log(self, count: int, rng: np.random.Generator) -> tuple[BanditLog, np.ndarray]:
        context = rng.integers(0, len(self.chance), count)
        share = self.logging[context]
        action = (share.cumsum(axis=1) < rng.random(count)[:, None]).sum(axis=1).clip(max=share.shape[1] - 1)
        rows = np.arange(count)
        reward = (rng.random(count) < self.chance[context, action]).astype(float)
        return BanditLog(action, share[rows, action], reward, rows), context


def means(told: Estimates) -> list[float]:
    return [told.inverse_propensity.mean, told.self_normalised.mean, told.doubly_robust.mean]


def repeated(shop: Shop, runs: int, count: int, q_hat: np.ndarray, clip: float = 1e9) -> np.ndarray:
    """(runs, 3) the three estimates on fresh logs."""
    found = []
    for run in range(runs):
        log, context = shop.log(count, np.random.default_rng(1000 + run))
        rng = np.random.default_rng(0)
        found.append(means(value_of(log, shop.target[context], q_hat[context], rng, clip=clip, resamples=1)))
    return np.array(found)


@pytest.mark.parametrize("seed", range(4))
def test_the_estimates_are_right_on_average_whatever_the_model_says(seed: int) -> None:
    shop = Shop.make(seed)
    for q_hat in (shop.chance, np.full_like(shop.chance, 3.0), 1.0 - shop.chance):
        found = repeated(shop, 400, 200, q_hat)
        doubt = found.std(axis=0) / 20.0
        assert np.abs(found[:, [0, 2]].mean(axis=0) - shop.truth)[0] < 4.0 * doubt[0]
        assert np.abs(found[:, [0, 2]].mean(axis=0) - shop.truth)[1] < 4.0 * doubt[2]
        assert abs(found[:, 1].mean() - shop.truth) < 4.0 * doubt[1] + 0.02  # biased by something like 1/n


@pytest.mark.parametrize("seed", range(4))
def test_a_good_model_lowers_the_variance(seed: int) -> None:
    shop = Shop.make(seed)
    found = repeated(shop, 300, 200, shop.chance)
    assert found[:, 2].std() < found[:, 0].std()
    careless = repeated(shop, 300, 200, np.full_like(shop.chance, 3.0))
    assert careless[:, 2].std() > found[:, 2].std()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    shop = Shop.make(7)
    inside = np.zeros(3)
    runs = 250
    for run in range(runs):
        log, context = shop.log(400, np.random.default_rng(run))
        told = value_of(
            log, shop.target[context], shop.chance[context], np.random.default_rng(run), clip=1e9, resamples=300
        )
        ways = (told.inverse_propensity, told.self_normalised, told.doubly_robust)
        inside += [one.low <= shop.truth <= one.high for one in ways]
    # 90% wanted; the standard error of 250 runs is 1.9 points.
    assert (inside / runs > 0.84).all()
    assert (inside / runs < 0.96).all()


def test_differences_hold_the_truth_about_as_often_as_they_say_also_in_clusters() -> None:
    shop = Shop.make(11)
    always = np.tile(np.eye(4)[0], (3, 1))
    truth = shop.truth - float(shop.chance[:, 0].mean())
    runs, inside = 250, 0
    for run in range(runs):
        log, context = shop.log(300, np.random.default_rng(run))
        # Every decision is there three times: only the clusters are independent.
        thrice = BanditLog(*(np.repeat(part, 3) for part in (log.action, log.propensity, log.reward, log.cluster)))
        seen = np.repeat(context, 3)
        told = difference_of(
            thrice,
            shop.target[seen],
            always[seen],
            shop.chance[seen],
            np.random.default_rng(run),
            clip=1e9,
            resamples=300,
        )
        inside += told.doubly_robust.low <= truth <= told.doubly_robust.high
    assert 0.84 < inside / runs < 0.96


def test_a_policy_differs_from_itself_by_exactly_nothing() -> None:
    shop = Shop.make(1)
    log, context = shop.log(50, np.random.default_rng(0))
    target, q_hat = shop.target[context], shop.chance[context]
    told = difference_of(log, target, target, q_hat, np.random.default_rng(0)).doubly_robust
    assert (told.mean, told.low, told.high) == (0.0, 0.0, 0.0)


def test_the_logged_policy_is_worth_what_was_logged() -> None:
    shop = Shop.make(2)
    log, context = shop.log(80, np.random.default_rng(3))
    logging = shop.logging[context]
    told = value_of(log, logging, shop.chance[context], np.random.default_rng(0))
    assert means(told)[:2] == pytest.approx([log.reward.mean()] * 2)
    assert effective_size(importance_weights(log, logging)) == pytest.approx(80)
    assert support(log, logging, logging).unchecked == 0.0


def test_clipping_costs_a_bias_that_the_support_tells_of() -> None:
    chance, logging = np.array([[0.2, 0.9]]), np.array([[0.99, 0.01]])
    shop = Shop(chance, logging, np.array([[0.0, 1.0]]))
    blind = np.array([[0.2, 0.5]])
    free, cut = repeated(shop, 300, 300, blind), repeated(shop, 300, 300, blind, clip=20.0)
    assert free[:, 2].mean() == pytest.approx(0.9, abs=0.04)
    assert cut[:, 2].mean() == pytest.approx(0.5 + 0.4 * 20.0 * 0.01, abs=0.02)
    assert cut[:, 2].std() < free[:, 2].std()
    log, context = shop.log(1000, np.random.default_rng(0))
    told = support(log, shop.target[context], shop.logging[context], clip=20.0)
    assert told.unchecked == pytest.approx(0.8)
    assert told.clipped == pytest.approx(float((log.action == 1).mean()))
    assert told.effective_size == pytest.approx(float((log.action == 1).sum()))


def test_what_was_never_tried_is_all_unchecked() -> None:
    log = BanditLog(np.zeros(5, np.int64), np.ones(5), np.ones(5), np.arange(5))
    other = np.tile([0.0, 1.0], (5, 1))
    told = support(log, other, 1.0 - other)
    assert (told.effective_size, told.unchecked) == (0.0, 1.0)
    assert np.isnan(value_of(log, other, np.zeros((5, 2)), np.random.default_rng(0)).self_normalised.mean)


weights = st.lists(st.floats(0.0, 50.0), min_size=1, max_size=30)


@given(weights)
def test_the_effective_size_never_exceeds_the_size(values: list[float]) -> None:
    weight = np.array(values)
    assert 0.0 <= effective_size(weight) <= len(weight) + 1e-9
    if weight.max() > 1e-3:
        assert effective_size(weight) >= 1.0 - 1e-9
        assert effective_size(3.0 * weight) == pytest.approx(effective_size(weight))


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(1.0, 30.0))
def test_estimates_stay_within_their_bounds(seed: int, count: int, clip: float) -> None:
    shop = Shop.make(seed)
    log, context = shop.log(count, np.random.default_rng(seed))
    target = shop.target[context]
    told = value_of(log, target, shop.chance[context], np.random.default_rng(seed), clip=clip, resamples=20, level=0.8)
    assert importance_weights(log, target, clip).max() <= clip
    if not np.isnan(told.self_normalised.mean):
        assert log.reward.min() - 1e-9 <= told.self_normalised.mean <= log.reward.max() + 1e-9
    assert told.inverse_propensity.mean <= clip
    for one in (told.inverse_propensity, told.doubly_robust):
        assert one.low <= one.high
    again = value_of(log, target, shop.chance[context], np.random.default_rng(seed), clip=clip, resamples=20, level=0.8)
    assert again.doubly_robust == told.doubly_robust


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.array([0.0, 1.0])}, "propensities"),
        ({"propensity": np.array([1.1, 1.0])}, "propensities"),
        ({"reward": np.array([np.nan, 1.0])}, "finite"),
        ({"reward": np.ones(3)}, "reward has shape"),
    ],
)
def test_logs_that_cannot_be_weighed_are_refused(change: dict, message: str) -> None:
    parts = {"action": np.array([0, 1]), "propensity": np.ones(2), "reward": np.ones(2), "cluster": np.arange(2)}
    with pytest.raises(ValueError, match=message):
        BanditLog(**(parts | change))


def test_an_empty_log_and_senseless_options_are_refused() -> None:
    nothing = np.zeros(0)
    with pytest.raises(ValueError, match="empty"):
        BanditLog(nothing.astype(np.int64), nothing, nothing, nothing.astype(np.int64))
    log = BanditLog(np.array([0]), np.ones(1), np.ones(1), np.array([0]))
    with pytest.raises(ValueError, match="clip"):
        importance_weights(log, np.ones((1, 1)), 0.5)
    with pytest.raises(ValueError, match="level"):
        value_of(log, np.ones((1, 1)), np.ones((1, 1)), np.random.default_rng(0), level=1.0)
