"""Keeping spend at a target: the price of a USD at which the last tasks would have cost what they should.

Buying success under a budget has one right price of money, the dual variable of the budget (bandits with knapsacks:
Badanidiyuru et al. 2013; pacing by dual variables: Balseiro & Gur 2019). Instead of groping for it with small steps,
the pacer keeps what was expected of every model for the last tasks, and looks for the price at which the best choices
there would have cost the target. What outcomes really cost goes to an account; its balance moves the target a little,
so that errors of the expectations are made up for. Where the choices that pay would not spend the target, what is
left over buys exploration: optimism about models with few outcomes grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.models import Preferences
from monkey_coder.ports import BoolArray, FloatArray
from monkey_coder.quantum.reward import MOST_WEIGHT

Float64 = NDArray[np.float64]

_HALVINGS: Final = 24
_DOUBLINGS: Final = 40
_USUAL_RATIO: Final = Preferences().cost / Preferences().quality


@dataclass(frozen=True, slots=True)
class PacingOptions:
    """How closely spend is kept at its target.

    Attributes:
        window: Latest tasks whose expectations are looked at.
        horizon: Tasks in which a balance is to be used up.
        most_balance: Tasks' targets that the account holds at most, and owes at most.
        least_share: The target is lowered to this part of itself at most.
        most_share: And raised to this many times itself at most.
        most_optimism: Highest factor on optimism.
    """

    window: int = 500
    horizon: float = 150.0
    most_balance: float = 1_000.0
    least_share: float = 0.5
    most_share: float = 2.0
    most_optimism: float = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Where pacing stands.

    Attributes:
        target_usd: USD a task.
        cost_weight: Lambda in success per USD, for requests with the usual ratio of cost to quality.
        optimism: Factor on optimism, at least 1.
        balance_usd: What may still be spent; below 0 what was spent too much.
        spent_usd: Mean of the tasks in the window; 0 before the first.
    """

    target_usd: float
    cost_weight: float
    optimism: float
    balance_usd: float
    spent_usd: float


@dataclass(frozen=True, eq=False, slots=True)
class Prospect:
    """What was expected of the models for one attempt at a task; M models.

    Attributes:
        value: (M,) utility in successes, without what the cost takes off.
        optimism: (M,) added to it when the engine may explore.
        cost_usd: (M,) expected cost.
        candidates: (M,) which models could be chosen.
    """

    value: FloatArray
    optimism: FloatArray
    cost_usd: FloatArray
    candidates: BoolArray


class BudgetPacer:
    """Keeps account of what is spent, and says at what price the next tasks should be bought. For one thread.

    Args:
        target_usd: USD a task, above 0.
        options: How closely it is kept.
    """

    def __init__(self, target_usd: float, options: PacingOptions | None = None) -> None:
        if not target_usd > 0.0:
            raise ValueError(f"the target is {target_usd} USD a task; it must be above 0")
        self.options = options or PacingOptions()
        self._target = target_usd
        self._balance = 0.0
        self._forget(0)
        self._paid: deque[float] = deque(maxlen=self.options.window)

    def _forget(self, models: int) -> None:
        """Begin a new window, for another number of models."""
        self._value, self._optimism, self._cost = np.zeros((3, self.options.window, models))
        self._opens = np.zeros(self.options.window)
        self._seen = 0

    def observe(self, prospect: Prospect, paid_usd: float, *, opens: bool) -> None:
        """Take in an attempt that was reported on.

        Args:
            prospect: What was expected of it.
            paid_usd: What it cost.
            opens: Whether it was the first at its task; further ones have no target of their own.
        """
        if self._value.shape[1] != len(prospect.value):
            self._forget(len(prospect.value))  # the catalog has changed
        row = self._seen % self.options.window
        self._value[row] = np.where(prospect.candidates, prospect.value, -np.inf)
        self._optimism[row], self._cost[row], self._opens[row] = prospect.optimism, prospect.cost_usd, opens
        self._seen += 1
        most = self.options.most_balance * self._target
        self._balance = float(np.clip(self._balance + (self._target if opens else 0.0) - paid_usd, -most, most))
        if opens or not self._paid:
            self._paid.append(paid_usd)
        else:
            self._paid[-1] += paid_usd

    def pace(self) -> Pace:
        """Where pacing stands; before the first outcome, money is free."""
        options, target = self.options, self._target
        count = min(self._seen, options.window)
        if not count:
            return Pace(target, 0.0, 1.0, 0.0, 0.0)
        share = 1.0 + self._balance / (options.horizon * target)
        aim = target * float(np.clip(share, options.least_share, options.most_share))
        aim *= max(1.0, float(self._opens[:count].sum())) / count  # a task may take several attempts
        value, optimism, cost = self._value[:count], self._optimism[:count], self._cost[:count]
        weight = price_for(value + optimism, cost, aim)
        factor = 1.0 if weight > 0.0 else optimism_for(value, optimism, cost, aim, options.most_optimism)
        return Pace(target, weight, factor, self._balance, float(np.mean(self._paid)))


def spend(value: Float64, cost_usd: Float64, price: float) -> float:
    """Mean cost of the best choices at a price.

    Args:
        value: (N, M) in successes; minus infinity for models that cannot be chosen.
        cost_usd: (N, M).
        price: Successes per USD.
    """
    best = np.argmax(value - price * cost_usd, axis=1)
    return float(cost_usd[np.arange(len(best)), best].mean())


def price_for(value: Float64, cost_usd: Float64, target_usd: float) -> float:
    """The lowest price of a USD at which the best choices cost no more than a target, on average.

    Args:
        value: (N, M) in successes; minus infinity for models that cannot be chosen.
        cost_usd: (N, M).
        target_usd: Above 0.

    Returns:
        Successes per USD; 0 where the target is kept at any price, and where even the cheapest choices cost more, the
        price at which these are made.
    """
    if spend(value, cost_usd, 0.0) <= target_usd:
        return 0.0
    low, high = 0.0, 1.0 / target_usd
    least = spend(np.where(np.isfinite(value), 0.0, value), cost_usd, 1.0)
    for _ in range(_DOUBLINGS):
        paid = spend(value, cost_usd, high)
        if paid <= target_usd or paid <= least:
            break
        low, high = high, 4.0 * high
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        paid = spend(value, cost_usd, middle)
        if paid <= target_usd or paid <= least:
            high = middle
        else:
            low = middle
    return high


def optimism_for(value: Float64, optimism: Float64, cost_usd: Float64, target_usd: float, most: float) -> float:
    """The highest factor on optimism, 1 to `most`, at which the best choices cost no more than a target, on average.

    Args:
        value: (N, M) in successes; minus infinity for models that cannot be chosen.
        optimism: (N, M) in successes.
        cost_usd: (N, M).
        target_usd: Above 0.
        most: At least 1.
    """
    low, high = 1.0, most
    if spend(value + high * optimism, cost_usd, 0.0) <= target_usd:
        return high
    for _ in range(12):
        middle = 0.5 * (low + high)
        if spend(value + middle * optimism, cost_usd, 0.0) <= target_usd:
            low = middle
        else:
            high = middle
    return low


def paced_weights(preferences: Sequence[Preferences], cost_weight: FloatArray, pace: Pace | None) -> FloatArray:
    """The cost weights that requests are decided with.

    A request that states weights is decided at the pacer's price, more or less of it as its own ratio of cost to
    quality is above or below the usual one. One that states `value_usd` never pays more for a success than that.

    Args:
        preferences: B, as stated.
        cost_weight: (B,) lambda by the preferences alone.
        pace: Where pacing stands; None: there is none.
    """
    if pace is None:
        return cost_weight
    paced = [
        max(float(own), pace.cost_weight)
        if stated.value_usd is not None
        else min(pace.cost_weight * min(stated.cost / stated.quality / _USUAL_RATIO, MOST_WEIGHT), MOST_WEIGHT)
        for stated, own in zip(preferences, cost_weight, strict=True)
    ]
    return np.array(paced, np.float32)
