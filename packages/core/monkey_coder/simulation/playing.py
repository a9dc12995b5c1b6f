"""What comes of tasks: a caller follows a router's choices until an answer is good, or the attempts are used up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from monkey_coder.simulation.tasks import Ints, Tasks
from monkey_coder.simulation.world import KINDS, Bools, Floats


@dataclass
class Played:
    """How N tasks ended, or stand.

    Attributes:
        solved: (N,) whether one of the answers was good.
        spent_usd: (N,) on all attempts.
        ended: (N,) whether there will be no further attempt.
        calls: (N,) attempts so far, those without an answer included.
        unanswered: (N,) attempts that got no answer.
    """

    solved: Bools
    spent_usd: Floats
    ended: Bools
    calls: Ints
    unanswered: Ints

    @classmethod
    def fresh(cls, count: int) -> Played:
        """Nothing was tried yet."""
        nothing = np.zeros(count, np.bool_)
        none = np.zeros(count, np.int64)
        return cls(nothing.copy(), np.zeros(count), nothing.copy(), none.copy(), none.copy())

    def utility(self, tasks: Tasks) -> Floats:
        """(N,) in successes: what was spent counts by what a solution is worth."""
        return np.asarray(self.solved - self.spent_usd / tasks.value_usd, np.float64)

    def attempt(self, tasks: Tasks, rows: Ints, models: Ints, most: int, retries: Bools) -> Bools:
        """Let models answer; returns (rows,) whether they did.

        Args:
            tasks: All of them.
            rows: Which are tried.
            models: Which model tries each.
            most: Calls that a caller makes at most.
            retries: (N,) whether the caller comes back when an answer is not good. Without an answer, everybody does.
        """
        answered = ~tasks.down[rows, models]
        good = answered & tasks.success[rows, models]
        self.solved[rows] |= good
        self.spent_usd[rows] += np.where(answered, tasks.cost_usd[rows, models], 0.0)
        self.calls[rows] += 1
        self.unanswered[rows] += ~answered
        self.ended[rows] |= good | (answered & ~retries[rows]) | (self.calls[rows] >= most)
        return answered


def play_orders(tasks: Tasks, orders: Ints, most: int, retries: Bools | None = None) -> Played:
    """Play fixed orders of models.

    Args:
        tasks: The tasks.
        orders: (N, any number) models in turn; -1 where there is no further one.
        most: Calls that a caller makes at most.
        retries: (N,) as in `Played.attempt`; None: whoever verifies does.
    """
    played = Played.fresh(len(tasks))
    retries = tasks.verified if retries is None else retries
    for place in range(min(most, orders.shape[1])):
        rows = np.flatnonzero(~played.ended & (orders[:, place] >= 0))
        played.attempt(tasks, rows, orders[rows, place], most, retries)
    return played


def best_single(days: list[Tasks], offered: Bools, most: int) -> Ints:
    """(most,) the best model for everything, looking back over all days, and those that stand in when it is down.

    Args:
        days: All tasks.
        offered: (M,) models that were there from the beginning.
        most: Calls that a caller makes at most.
    """
    worth = np.full(len(KINDS), -np.inf)
    for model in np.flatnonzero(offered).tolist():
        worth[model] = sum(
            float((tasks.success[:, model] - tasks.cost_usd[:, model] / tasks.value_usd).sum()) for tasks in days
        )
    return np.argsort(-worth, kind="stable")[:most]


def best_ladder(days: list[Tasks], offered: Bools, most: int) -> Ints:
    """(most,) the best fixed order of models for everything, looking back over all days.

    Args:
        days: All tasks.
        offered: (M,) models that were there from the beginning.
        most: Calls that a caller makes at most.
    """
    candidates = list(permutations(np.flatnonzero(offered).tolist(), most))
    worth = [
        sum(float(play_orders(tasks, np.tile(order, (len(tasks), 1)), most).utility(tasks).sum()) for tasks in days)
        for order in candidates
    ]
    return np.array(candidates[int(np.argmax(worth))], np.int64)
