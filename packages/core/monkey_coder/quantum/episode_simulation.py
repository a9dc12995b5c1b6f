"""Simulated episodes over recorded outcomes, as transitions for the replay buffer.

An episode draws a task and a cost weight, and plays the agent epsilon-greedily until it has come to a state that is
worth learning about. There every promising model becomes a transition, since the belief or the record tells what each
would have done (full information): its reward is the expected score of an accepted answer less its price, and the
chance that the episode goes on takes the place of the discount. A share of the tasks takes both from the recorded
outcome, the rest from the belief (Sutton's Dyna, 1990: planning with a learned model of the world).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.dqn_agent import DQNAgent
from monkey_coder.quantum.experience_buffer import Arrays, ArraySpec, Schema, Transitions
from monkey_coder.quantum.particles import STATE_FEATURES, LookAhead, Particles, after, look_ahead
from monkey_coder.quantum.routing_value import EXACT_UP_TO, PAIRS, observation

GOOD_ENOUGH: Final = 0.5
"""Score from which on a perfect verifier accepts an answer."""

_FREE_SHARE: Final = 0.1
_WEIGHT_EXPONENTS: Final = (-2.2, 1.6)
"""Cost weights are 0 in one task of ten, else ten to a power drawn from here: it covers the weights callers use."""

_TIE_BREAK: Final = 0.05
"""Mean of the noise by which models of nearly equal value take turns in becoming transitions."""


@dataclass(frozen=True, eq=False)
class World:
    """Tasks (R) on which episodes can be simulated, with M models.

    Attributes:
        particles: What is believed of each task before any attempt, by parts that have not seen its outcomes.
        scores: (R, M) recorded scores 0..1; NaN where there is none.
        paid: (R, M) USD that each attempt costs.
        expected_cost: (R, M) USD that the router expects.
        cost_ref: USD to which cost weights relate; 0 without costs.
        attempts: Attempts of an episode, K.
        noise: Probability that a verdict is wrong.
    """

    particles: Particles
    scores: NDArray[np.float64]
    paid: NDArray[np.float64]
    expected_cost: FloatArray
    cost_ref: float
    attempts: int
    noise: float

    def __len__(self) -> int:
        return len(self.scores)

    def per_usd(self, weight: NDArray[np.floating]) -> FloatArray:
        """Lambda, success per USD, for cost weights."""
        scale = 1.0 / self.cost_ref if self.cost_ref > 0.0 else 0.0
        return np.asarray(weight * scale, dtype=np.float32)

    def look(
        self, rows: IntArray, rejected: BoolArray, weighted_cost: FloatArray, attempts_left: IntArray
    ) -> LookAhead:
        """Look ahead from states (B): tasks `rows` (B,), on which models (B, M) were rejected."""
        return look_ahead(
            after(self.particles.take(rows), rejected, self.noise),
            open_models=~rejected,
            rejected=rejected,
            weighted_cost=weighted_cost,
            attempts_left=attempts_left,
            noise=self.noise,
            planned=self.attempts,
        )

    def take(self, rows: IntArray) -> World:
        """The same world with some of the tasks."""
        return World(
            self.particles.take(rows),
            self.scores[rows],
            self.paid[rows],
            self.expected_cost[rows],
            self.cost_ref,
            self.attempts,
            self.noise,
        )


@dataclass(frozen=True, eq=False)
class Visits:
    """States (B) that simulated episodes have come to.

    Attributes:
        rows: (B,) the task.
        weight: (B,) cost weight w.
        rejected: (B, M) what was tried so far, all of it rejected.
        recorded: (B,) whether the task's recorded outcome decides.
    """

    rows: IntArray
    weight: NDArray[np.float64]
    rejected: BoolArray
    recorded: BoolArray


def schema(models: int) -> Schema:
    """Arrays of an observation with so many models, for the replay buffer."""
    return {
        "state": ArraySpec((STATE_FEATURES,)),
        "candidates": ArraySpec((models,), "bool"),
        "pairs": ArraySpec((models, PAIRS)),
        "base": ArraySpec((models,)),
        "gain": ArraySpec((models,)),
        "stop": ArraySpec(()),
    }


def accepted(scores: NDArray[np.floating], noise: float) -> NDArray[np.float64]:
    """Probability that the verifier accepts answers of these true scores; NaN stays NaN."""
    chance = np.where(scores >= GOOD_ENOUGH, 1.0 - noise, noise)
    return np.where(np.isnan(scores), np.nan, chance)


def visit(
    world: World, agent: DQNAgent, count: int, outcome_share: float, rng: np.random.Generator, epsilon: float
) -> Visits:
    """Play episodes up to states from which at least three attempts are left: nearer the end nothing is to be learned.

    Args:
        world: At least 3 attempts.
        agent: Plays, epsilon-greedily.
        count: Episodes, B.
        outcome_share: Share of episodes that end where the record says that an answer would be accepted; the others
            go on, as they would on a task of the same look where it failed.
        rng: Source of randomness.
        epsilon: Share of random choices.
    """
    models = world.scores.shape[1]
    deepest = min(world.attempts, models) - EXACT_UP_TO
    chances = np.array([2.0, *[1.0] * (deepest - 1)])
    rows = rng.integers(0, len(world), count)
    weight = np.where(rng.random(count) < _FREE_SHARE, 0.0, 10.0 ** rng.uniform(*_WEIGHT_EXPONENTS, count))
    recorded = rng.random(count) < outcome_share
    depth = rng.choice(deepest, count, p=chances / chances.sum())
    rejected = np.zeros((count, models), dtype=np.bool_)
    chance = accepted(world.scores, world.noise)
    per_usd = world.per_usd(weight)
    for step in range(deepest - 1):
        going = np.flatnonzero(depth > step)
        if not going.size:
            break
        left = np.full(len(going), world.attempts - step, dtype=np.int64)
        price = per_usd[going, None] * world.expected_cost[rows[going]]
        look = world.look(rows[going], rejected[going], price, left)
        action = agent.explore(observation(look, ~rejected[going], left), rng, epsilon).action
        done = recorded[going] & (rng.random(len(going)) < chance[rows[going], action])
        depth[going[done]] = step
        rejected[going[~done], action[~done]] = True
    return Visits(rows, weight, rejected, recorded)


def transitions(world: World, visits: Visits, actions: int, rng: np.random.Generator) -> Transitions:
    """Turn every promising model of every visited state into one transition.

    Args:
        world: Where the visits were made.
        visits: The states (B).
        actions: Models of each state, the most promising first.
        rng: Breaks ties.
    """
    rows, rejected = visits.rows, visits.rejected
    count, models = rejected.shape
    left = (world.attempts - rejected.sum(axis=1)).astype(np.int64)
    price = world.per_usd(visits.weight)[:, None] * world.expected_cost[rows]
    look = world.look(rows, rejected, price, left)
    order = np.where(rejected, np.inf, -look.value - rng.exponential(_TIE_BREAK, rejected.shape))
    picked = np.argsort(order, axis=1, kind="stable")[:, : min(actions, models)]
    state, action = np.repeat(np.arange(count), picked.shape[1]), picked.ravel()
    free = ~rejected[state, action]
    state, action = state[free], action[free]

    then = rejected[state]
    then[np.arange(len(action)), action] = True
    next_left, next_rows = left[state] - 1, rows[state]
    next_look = world.look(next_rows, then, price[state], next_left)
    after_it = observation(next_look, ~then, next_left)
    after_it["stop"] = look.stopping[state, action]
    now = observation(look, ~rejected, left)

    goes_on = look.rejection[state, action].astype(np.float64)
    reward = look.kept[state, action] - price[state, action].astype(np.float64)
    score = world.scores[next_rows, action]
    by_record = visits.recorded[state] & ~np.isnan(score)
    accept = accepted(score, world.noise)
    paid = world.per_usd(visits.weight)[state] * world.paid[next_rows, action]
    reward = np.where(by_record, accept * score - paid, reward)
    goes_on = np.where(by_record, 1.0 - accept, goes_on)
    return Transitions(
        observation=_rows(now, state),
        action=action,
        reward=reward.astype(np.float32),
        next_observation=after_it,
        terminated=goes_on <= 0.0,
        truncated=np.zeros(len(action), dtype=np.bool_),
        discount=goes_on.astype(np.float32),
        # Errors count relative to the size of what is at stake, or dear models would drown the rest.
        weight=(1.0 / np.square(1.0 + price[state, action])).astype(np.float32),
    )


def _rows(arrays: Arrays, rows: IntArray) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}
