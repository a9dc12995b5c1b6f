"""The best that anybody could do who knew the world but not the luck: the yardstick of regret."""

from __future__ import annotations

from itertools import permutations
from typing import Final

import numpy as np

from monkey_coder.simulation.tasks import Ints, Tasks
from monkey_coder.simulation.traffic import CLASSES
from monkey_coder.simulation.world import KINDS, LUCK_SD, Conditions, Floats, World, levels

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
LUCK: Final = _NODES * LUCK_SD
"""Points at which the luck of a task is summed over, with `LUCK_SHARES`."""
LUCK_SHARES: Final = _WEIGHTS / _WEIGHTS.sum()


class Oracle:
    """Knows skills, prices and outages of the hour, and of each task its class and level; plans all attempts.

    Args:
        world: What it knows.
        attempts: The most that a caller makes who verifies.
    """

    def __init__(self, world: World, attempts: int) -> None:
        self._world, self._attempts = world, attempts
        self._plans: dict[tuple[bytes, int], Ints] = {}

    def orders(self, tasks: Tasks) -> Ints:
        """(N, attempts) which model to try first, second, ...; -1 where nothing is left to try."""
        orders = np.full((len(tasks), self._attempts), -1, dtype=np.int64)
        for hour in np.unique(tasks.hour).tolist():
            conditions = self._world.at(hour)
            for attempts in (1, self._attempts):
                rows = (tasks.hour == hour) & (tasks.verified == (attempts > 1))
                plan = self._plan(conditions, attempts)
                orders[rows, : plan.shape[2]] = plan[tasks.kind[rows], tasks.level[rows]]
        return orders

    def favourite(self, hour: int) -> int:
        """The model that is tried first most often."""
        shares = np.array([kind.share for kind in CLASSES])
        first = self._plan(self._world.at(hour), self._attempts)[:, :, 0]
        weight = np.broadcast_to(shares[:, None], first.shape)
        return int(np.bincount(first.ravel(), weights=weight.ravel(), minlength=len(KINDS)).argmax())

    def _plan(self, conditions: Conditions, attempts: int) -> Ints:
        key = (conditions.key, attempts)
        if key not in self._plans:
            self._plans[key] = best_orders(conditions, attempts)
        return self._plans[key]


def best_orders(conditions: Conditions, attempts: int) -> Ints:
    """(C, levels, attempts) the order of attempts of greatest expected utility, for a caller who ends with a success.

    Every order is tried. Failures of one task go together: the luck of the task is summed over.
    """
    offered = np.flatnonzero(conditions.present & ~conditions.down)
    length = min(attempts, len(offered))
    orders = np.array(list(permutations(offered.tolist(), length)), dtype=np.int64).reshape(-1, length)
    cost = expected_cost(conditions)
    steps = levels()
    best = np.empty((len(CLASSES), len(steps), length), dtype=np.int64)
    for row, kind in enumerate(CLASSES):
        for level, logits in enumerate(steps):
            logit = conditions.skill[row][:, None] + logits + LUCK  # (M, points)
            chance = 1.0 / (1.0 + np.exp(-logit))
            value = np.zeros((len(orders), len(LUCK)))
            still_open = np.ones_like(value)
            for place in range(length):
                tried = orders[:, place]
                value += still_open * (chance[tried] - (cost[row, tried] / kind.value_usd)[:, None])
                still_open = still_open * (1.0 - chance[tried])
            best[row, level] = orders[(value @ LUCK_SHARES).argmax()]
    return best


def expected_cost(conditions: Conditions) -> Floats:
    """(C, M) USD that an attempt costs on average."""
    tokens = np.array([(kind.input_tokens, kind.output_tokens) for kind in CLASSES], np.float64)
    verbosity = np.array([kind.verbosity for kind in KINDS])
    return np.asarray(
        tokens[:, :1] * conditions.prices[:, 0] + tokens[:, 1:] * verbosity * conditions.prices[:, 1], np.float64
    )
