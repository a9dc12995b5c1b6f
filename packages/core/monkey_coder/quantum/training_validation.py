"""What following a strategy is worth on held-out tasks, exactly: in expectation over the verifier's errors.

Since rejections are all that a router sees, a deterministic strategy makes the same attempts at a task for as long as
they are rejected. That list of models is its *plan*, and the value of a plan has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.episode_simulation import GOOD_ENOUGH, World
from monkey_coder.quantum.routing_value import observation

NOTHING: Final = -1
"""Stands in a plan where no further attempt is made."""

_CHUNK: Final = 512

Observed = dict[str, NDArray[Any]]
Network = Callable[[Observed], FloatArray]
"""Gives (B, M) values of observations; -inf for models that may not be chosen."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tasks (n) that wait for their next attempt, all after the same number of rejections.

    Attributes:
        places: (n,) which of the tasks asked about.
        rejected: (n, M) models whose answers were rejected.
        last: (n,) the last of them; `NOTHING` before the first attempt.
        left: Attempts left, the next one included.
    """

    places: IntArray
    rejected: BoolArray
    last: IntArray
    left: int


Decide = Callable[[Waiting], tuple[FloatArray, FloatArray]]
"""Returns (n, M) values of trying each model, and (n,) of making no further attempt."""


@dataclass(frozen=True, eq=False)
class Expectations:
    """What one attempt of each model does on each task (R, M), in expectation over verdicts, and over scores not known.

    Attributes:
        accepted: Expected score of an answer that is accepted, times the probability that it is.
        rejected: Expected score of an answer that is rejected, times the probability that it is.
        passes_on: Probability that the answer is rejected.
        cost: USD.
    """

    accepted: NDArray[np.float64]
    rejected: NDArray[np.float64]
    passes_on: NDArray[np.float64]
    cost: NDArray[np.float64]

    @classmethod
    def of(cls, world: World, success: FloatArray) -> Expectations:
        """Build it; where there is no outcome, a model succeeds with the probability `success` (R, M)."""
        known = ~np.isnan(world.scores)
        scores = np.where(known, world.scores, 1.0)
        good = np.where(known, scores >= GOOD_ENOUGH, success).astype(np.float64)
        bad_score = np.where(known, scores, 0.0)
        right, wrong = 1.0 - world.noise, world.noise
        return cls(
            accepted=good * right * scores + (1.0 - good) * wrong * bad_score,
            rejected=good * wrong * scores + (1.0 - good) * right * bad_score,
            passes_on=good * wrong + (1.0 - good) * right,
            cost=world.paid,
        )


@dataclass(frozen=True, eq=False)
class Worth:
    """What plans (B) come to, in expectation.

    Attributes:
        success: (B,) score of the answer kept: the first accepted one, else the last.
        cost: (B,) USD of all attempts.
        attempts: (B,) how many are made.
    """

    success: NDArray[np.float64]
    cost: NDArray[np.float64]
    attempts: NDArray[np.float64]


def plans(count: int, models: int, attempts: int, decide: Decide) -> NDArray[np.int64]:
    """Ask a strategy about tasks (B) again and again, as if every answer were rejected.

    Args:
        count: Tasks, B.
        models: How many there are, M.
        attempts: Most attempts, K.
        decide: The strategy. It stops, though not before the first attempt, where no model is worth more than that.

    Returns:
        (B, K) the models tried, first to last, padded with `NOTHING`.
    """
    tried = np.full((count, attempts), NOTHING, dtype=np.int64)
    rejected = np.zeros((count, models), dtype=np.bool_)
    waiting = np.arange(count)
    for step in range(min(attempts, models)):
        last = tried[:, step - 1] if step else np.full(count, NOTHING)
        going = []
        for start in range(0, len(waiting), _CHUNK):
            some = waiting[start : start + _CHUNK]
            values, stop = decide(Waiting(some, rejected[some], last[some], attempts - step))
            values = np.where(rejected[some], -np.inf, values)
            best = values.argmax(axis=1)
            on = np.ones(len(some), dtype=np.bool_) if step == 0 else values[np.arange(len(some)), best] > stop
            tried[some[on], step] = best[on]
            rejected[some[on], best[on]] = True
            going.append(some[on])
        waiting = np.concatenate(going) if going else waiting[:0]
    return tried


def worth(tried: NDArray[np.int64], rows: IntArray, expected: Expectations) -> Worth:
    """Value plans.

    Args:
        tried: (B, K) as from `plans`.
        rows: (B,) the task of each plan.
        expected: What attempts do.
    """
    reach = np.ones(len(tried))
    success, cost, attempts = (np.zeros(len(tried)) for _ in range(3))
    steps = tried.shape[1]
    for step in range(steps):
        made = tried[:, step] != NOTHING
        model = np.where(made, tried[:, step], 0)
        final = made if step + 1 == steps else made & (tried[:, step + 1] == NOTHING)
        share = np.where(made, reach, 0.0)
        success += share * (expected.accepted[rows, model] + np.where(final, expected.rejected[rows, model], 0.0))
        cost += share * expected.cost[rows, model]
        attempts += share
        reach = share * expected.passes_on[rows, model]
    return Worth(success, cost, attempts)


def follow_network(
    world: World, rows: IntArray, weight: NDArray[np.float64], network: Network | None, attempts: int | None = None
) -> NDArray[np.int64]:
    """Plans (B, K) of a value network on tasks `rows` (B,) at cost weights (B,); without a network of the lookahead.

    Args:
        world: The tasks and what is believed of them.
        rows: (B,) tasks.
        weight: (B,) cost weights.
        network: The network.
        attempts: Most attempts; None: as the world has it.
    """
    price = world.per_usd(weight)[:, None] * world.expected_cost[rows]

    def decide(waiting: Waiting) -> tuple[FloatArray, FloatArray]:
        places, left = waiting.places, np.full(len(waiting.places), waiting.left, dtype=np.int64)
        look = world.look(rows[places], waiting.rejected, price[places], left)
        values = look.value if network is None else network(observation(look, ~waiting.rejected, left))
        # The answer that is kept is the last one, and it was rejected.
        return values, look.success[np.arange(len(places)), waiting.last]

    return plans(len(rows), world.scores.shape[1], attempts or world.attempts, decide)


def follow_order(utility: FloatArray, attempts: int) -> NDArray[np.int64]:
    """Plans (B, K) of a strategy that says nothing new after a rejection: models in the order of their (B, M) utility.

    It stops where no model is worth its price.
    """

    def decide(waiting: Waiting) -> tuple[FloatArray, FloatArray]:
        return utility[waiting.places], np.zeros(len(waiting.places), np.float32)

    return plans(len(utility), utility.shape[1], attempts, decide)


def grid(rows: int, weights: tuple[float, ...]) -> tuple[IntArray, NDArray[np.float64]]:
    """Every task at every cost weight: (rows * weights,) tasks, and (rows * weights,) weights; tasks change slowly."""
    return np.repeat(np.arange(rows), len(weights)), np.tile(np.array(weights, dtype=np.float64), rows)
