"""Training the value network: what is kept, what is refused, and how a person steers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from monkey_coder.errors import TrainingDivergedError
from monkey_coder.quantum.episode_simulation import World
from monkey_coder.quantum.particles import Particles
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.routing_value import observation
from monkey_coder.quantum.training_monitor import Overrides
from monkey_coder.quantum.training_options import PRESETS, WEIGHT_GRID, TrainOptions, preset
from monkey_coder.quantum.training_validation import Expectations, follow_network, grid, worth
from monkey_coder.quantum.value_training import ValueTraining, train_value

MODELS = 4
REFS = tuple(f"made/{place}" for place in range(MODELS))
FEATURES = np.random.default_rng(1).normal(size=(MODELS, 3)).astype(np.float32)


def world(rows: int, seed: int, attempts: int = 4) -> World:
    rng = np.random.default_rng(seed)
    profile = rng.beta(0.5, 0.5, (rows, 8, MODELS)).clip(0.02, 0.98).astype(np.float32)
    weights = np.full((rows, 8), 1 / 8, np.float32)
    ones, zeros = np.ones(MODELS, np.float32), np.zeros(MODELS, np.float32)
    particles = Particles(profile, weights, profile.mean(axis=1), ones, zeros)
    fate = rng.integers(0, 8, rows)
    scores = (rng.random((rows, MODELS)) < profile[np.arange(rows), fate]).astype(float)
    cost = np.tile([0.05, 0.1, 0.3, 1.0], (rows, 1))
    return World(particles, scores, cost, cost.astype(np.float32), 1.0, attempts, 0.1)


def options(**changes: object) -> TrainOptions:
    small = preset("balanced")
    small = replace(small, steps=24, round_states=16, check_steps=8, dqn=replace(small.dqn, batch_size=32))
    return replace(small, **changes)


class Hand:
    """Somebody who wishes one thing, and counts how often he is asked."""

    def __init__(self, wishes: Overrides) -> None:
        self.wishes, self.asked = wishes, 0

    def wait(self) -> Overrides:
        self.asked += 1
        return self.wishes


def run(how: TrainOptions, hand: Hand | None = None, attempts: int = 4) -> ValueTraining:
    held = world(120, 1, attempts)
    expected = Expectations.of(held, held.particles.success)
    rng = np.random.default_rng(0)
    return train_value(world(80, 0, attempts), held, expected, REFS, FEATURES, how, rng, lambda *_: None, hand)


def utility(held: World, network: Policy | None) -> float:
    """Mean utility of following a network, or the lookahead alone."""
    rows, weight = grid(len(held), WEIGHT_GRID)
    valued = None
    if network is not None:
        valued = partial(network.q_values, models=network.encode_models(REFS, FEATURES))
    value = worth(follow_network(held, rows, weight, valued), rows, Expectations.of(held, held.particles.success))
    return float((value.success - weight * value.cost).mean())


@pytest.mark.parametrize("rate", [2e-3, 2e-2])
def test_the_network_is_never_worse_than_the_lookahead_on_the_tasks_that_choose(rate: float) -> None:
    how = options()
    dqn = replace(how.dqn, learning_rate=rate, learning_rate_end=None, learning_rate_steps=None)
    result = run(replace(how, dqn=dqn))
    held = world(120, 1)
    assert result.lookahead == pytest.approx(utility(held, None), abs=1e-6)
    assert utility(held, result.network) >= result.lookahead - 1e-6


def test_a_network_that_was_not_chosen_adds_nothing_at_all() -> None:
    held = world(30, 1)
    expected = Expectations.of(held, held.particles.success)
    result = train_value(
        world(80, 0), held, expected, REFS, FEATURES, options(), np.random.default_rng(0), lambda *_: None
    )
    assert result.agent.steps == 24
    assert result.chosen_step == 0  # so few tasks vouch for nothing
    rows = np.arange(30)
    left, nobody = np.full(30, 4), np.zeros((30, MODELS), dtype=np.bool_)
    seen = observation(held.look(rows, nobody, held.expected_cost, left), ~nobody, left)
    q = result.network.q_values(seen, result.network.encode_models(REFS, FEATURES))
    assert np.array_equal(q, seen["base"])


def test_every_step_asks_and_every_check_is_told() -> None:
    hand = Hand(Overrides())
    told: list[tuple[str, int, int]] = []
    held = world(40, 1)
    result = train_value(
        world(40, 0),
        held,
        Expectations.of(held, held.particles.success),
        REFS,
        FEATURES,
        options(),
        np.random.default_rng(0),
        lambda what, done, steps, note: told.append((what, done, steps)),
        hand,
    )
    assert hand.asked == 24
    assert [done for _, done, _ in told] == [0, 8, 16, 24]
    assert [point.step for point in result.points] == [8, 16, 24]
    assert all(point.loss > 0.0 for point in result.points)


def test_a_run_is_stopped_by_hand_before_its_first_step() -> None:
    result = run(options(), Hand(Overrides(stopped=True)))
    assert result.agent.steps == 0
    assert "by hand" in result.verdict.reason


def test_the_learning_rate_of_a_person_is_obeyed() -> None:
    ours, theirs = (run(options(), Hand(Overrides(learning_rate=rate))) for rate in (1e-9, 1e-2))
    fresh = run(options(steps=0))

    def moved(result: ValueTraining) -> float:
        pairs = zip(result.agent.online.parameters(), fresh.agent.online.parameters(), strict=True)
        return max(float((one - other).detach().abs().max()) for one, other in pairs)

    assert moved(ours) < 1e-5 < moved(theirs)


def test_a_run_that_leaves_all_bounds_is_an_error() -> None:
    how = options(steps=200, check_steps=4)
    wild = replace(
        how.dqn,
        learning_rate=100.0,
        learning_rate_end=None,
        learning_rate_steps=None,
        gradient_clip=None,
        huber_delta=None,
    )
    with pytest.raises(TrainingDivergedError, match=r"step \d+"):
        run(replace(how, dqn=wild))


def test_it_ends_early_when_nothing_gets_better() -> None:
    how = options(steps=400, check_steps=2)
    result = run(replace(how, monitor=replace(how.monitor, patience=2, min_improvement=10.0)))
    assert result.agent.steps == 6
    assert result.verdict.status == "converged"


@pytest.mark.parametrize("attempts", [1, 2])
def test_where_the_lookahead_is_exact_nothing_is_trained(attempts: int) -> None:
    result = run(options(), attempts=attempts)
    assert result.agent.steps == 0
    assert result.chosen_step == 0


def test_prioritised_presets_train_as_well() -> None:
    fast = PRESETS["fast_online"]
    how = replace(fast, steps=8, check_steps=8, round_states=16, dqn=replace(fast.dqn, batch_size=32))
    assert run(how).agent.steps == 8


@pytest.mark.parametrize(
    "changes",
    [{"attempts": 0}, {"noise": 0.5}, {"validation_share": 0.0}, {"outcome_share": 1.5}, {"steps": -1}, {"actions": 0}],
)
def test_options_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(preset("balanced"), **changes)


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="small_data, balanced, fast_online"):
        preset("huge")
    assert preset("small_data", attempts=2, noise=0.2, seed=7).dqn.seed == 7
