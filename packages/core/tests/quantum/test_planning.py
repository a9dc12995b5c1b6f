"""Beam search over orders of attempts, held against trying every order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from monkey_coder.quantum.planning import best_orders

EVERYTHING = 10_000


def value_of(order, profile, weights, cost, noise, passed, failed):
    """Expected score of the answer kept at the end less all prices, world by world."""
    alive, earned = weights.astype(float), 0.0
    for place, model in enumerate(order):
        chance = profile[:, model]
        right, wrong = passed[model], failed[model]
        score = chance * right + (1 - chance) * wrong
        kept = chance * (1 - noise) * right + (1 - chance) * noise * wrong
        last = place + 1 == len(order)
        earned += float(alive @ (score if last else kept)) - float(alive.sum()) * cost[model]
        alive = alive * (1 - (chance * (1 - noise) + (1 - chance) * noise))
    return earned


def world(seed, rows=3, particles=5, models=4):
    rng = np.random.default_rng(seed)
    profile = rng.uniform(0.05, 0.95, (rows, particles, models)).astype(np.float32)
    weights = rng.dirichlet(np.ones(particles), rows).astype(np.float32)
    cost = rng.uniform(0.0, 0.3, (rows, models)).astype(np.float32)
    return profile, weights, cost


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_keeps_everything_finds_the_best_order_from_each_model(seed, attempts, noise) -> None:
    profile, weights, cost = world(seed)
    passed, failed = np.full(4, 0.9, np.float32), np.full(4, 0.1, np.float32)
    open_models = np.ones((3, 4), np.bool_)
    open_models[1, 2] = False
    found = best_orders(
        profile,
        weights,
        open_models=open_models,
        cost=cost,
        attempts_left=np.full(3, attempts),
        noise=noise,
        passed_score=passed,
        failed_score=failed,
        beam=EVERYTHING,
    )
    for row in range(3):
        able = np.flatnonzero(open_models[row])
        for first in able:
            orders = [
                order for length in range(1, attempts + 1) for order in permutations(able, length) if order[0] == first
            ]
            best = max(
                value_of(order, profile[row], weights[row], cost[row], noise, passed, failed) for order in orders
            )
            assert found[row, first] == pytest.approx(best, abs=1e-5)


def test_requests_with_fewer_attempts_left_are_not_planned_further() -> None:
    profile, weights, cost = world(7)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    shared = {"open_models": np.ones((3, 4), np.bool_), "cost": cost, "noise": 0.0}
    scores = {"passed_score": ones, "failed_score": zeros, "beam": EVERYTHING}
    mixed = best_orders(profile, weights, attempts_left=np.array([1, 2, 3]), **shared, **scores)
    for row, attempts in enumerate((1, 2, 3)):
        alone = best_orders(profile, weights, attempts_left=np.full(3, attempts), **shared, **scores)
        assert mixed[row] == pytest.approx(alone[row], abs=1e-6)


def test_a_narrow_beam_never_promises_more_than_the_best_order() -> None:
    profile, weights, cost = world(3, rows=8, models=6)
    arguments = {
        "open_models": np.ones((8, 6), np.bool_),
        "cost": cost,
        "attempts_left": np.full(8, 4),
        "noise": 0.05,
        "passed_score": np.ones(6, np.float32),
        "failed_score": np.zeros(6, np.float32),
    }
    narrow = best_orders(profile, weights, **arguments, beam=2)
    whole = best_orders(profile, weights, **arguments, beam=EVERYTHING)
    assert (narrow <= whole + 1e-5).all()
