"""What outcomes of one model add up to: sums for the regressions, the recent level, the calibration of its costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray

Float64 = NDArray[np.float64]

COST_BOUND: Final = 3.0
"""Costs are not believed to be off by more than e to this."""
_CALIBRATION_FADE: Final = 0.995
_NEW_PART: Final = 32
"""Weights are solved at once when the new outcomes are one of so many."""


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """How fast it learns and forgets. Precisions count in outcomes.

    Attributes:
        ridge: Precision of a model's own weights where its prior is worth one outcome; rises with that worth.
        task_ridge: The same of what it can do at one type of task beyond others, for models have specialities.
        shared_ridge: Precision of the shared weights where priors are worth one outcome; rises with the square of it.
        fade: Factor on a model's evidence with each of its outcomes.
        prior_cap: The most outcomes that a catalog prior is worth.
        level_fade: Factor on the evidence of a model's level with each of its outcomes.
        silent_fade: Factor on the same with each outcome of any model.
        level_worth: Outcomes that "no deviation" is worth.
        level_chance: Standard deviations of a level that chance explains.
        seen_fade: Factor on the count of a model's outcomes, by which optimism goes, with each outcome of any model.
        optimism: Successes that a model without outcomes is given beyond its estimate when the engine may explore,
            once others have outcomes.
        optimism_worth: Outcomes at which that has fallen to 0.7, where its prior is worth one; surer ones need less.
        share: The most that one reporter is worth in the estimate of a model once there are two; at least one half.
        remembered: Latest outcomes that can still be corrected.
    """

    ridge: float = 100.0
    task_ridge: float = 20.0
    shared_ridge: float = 30.0
    fade: float = 0.9995
    prior_cap: float = 10.0
    level_fade: float = 0.97
    silent_fade: float = 0.998
    level_worth: float = 10.0
    level_chance: float = 1.0
    seen_fade: float = 0.9995
    optimism: float = 0.2
    optimism_worth: float = 4.0
    share: float = 0.5
    remembered: int = 20_000


@dataclass(frozen=True, slots=True)
class Folded:
    """Outcomes that were added to the sums; N of them, corrections last.

    Attributes:
        count: How many are no corrections.
        context: (N, d) requests.
        paid: (N,) USD that they cost.
        foreseen: (N,) the catalog's estimates of that.
    """

    count: int
    context: Float64
    paid: Float64
    foreseen: Float64


@dataclass(slots=True, eq=False)
class Evidence:
    """What outcomes of one model add up to; d entries of a request, 2 outputs: success over the prior, log cost.

    Attributes:
        options: How fast it fades.
        gram: (d, d) discounted sum of the outer products of requests.
        moment: (d, 2) discounted sum of requests times outputs.
        weights: (d, 2) its own weights, as they were solved last.
        worth: Outcomes that the prior is worth.
        step: Outcomes of all models up to which it has faded.
        seen: Outcomes that have not faded.
        count: All its outcomes.
        solved: When its weights were solved last.
        unsolved: Outcomes and corrections since then.
    """

    options: OnlineOptions
    gram: Float64
    moment: Float64
    weights: Float64
    worth: float
    step: int
    seen: float = 0.0
    count: int = 0
    solved: int = 0
    unsolved: int = 0
    _variance: float = 0.05
    _level_sum: float = 0.0
    _level_weight: float = 0.0
    _paid: float = 0.0
    _foreseen: float = 0.0
    _reporters: dict[str, float] = field(default_factory=dict)
    _pending: list[tuple[FloatArray, float, float, float, float, float]] = field(default_factory=list)
    _corrected: list[tuple[FloatArray, int, float, float, float, float]] = field(default_factory=list)

    @classmethod
    def none(cls, options: OnlineOptions, size: int, worth: float, step: int) -> Evidence:
        """Before the first outcome; `size` is d."""
        moment, weights = np.zeros((2, size, 2))
        return cls(options, np.zeros((size, size)), moment, weights, worth, step)

    @property
    def pending(self) -> bool:
        """Whether there is something to fold."""
        return bool(self._pending or self._corrected)

    @property
    def moved(self) -> bool:
        """Whether so many of its outcomes are new that its weights should be solved at once."""
        return self.unsolved > 0 and self.unsolved * _NEW_PART >= self.count

    @property
    def calibration(self) -> float:
        """What the model really cost over what was foreseen, as far as outcomes tell."""
        return min(max(self._paid / self._foreseen, 0.1), 10.0) if self._foreseen > 0.0 else 1.0

    @property
    def level(self) -> float:
        """By how much the last outcomes fell short, beyond what chance explains; at most 0."""
        worth = self._level_weight + self.options.level_worth
        deviation = self._level_sum / worth
        chance = self.options.level_chance * math.sqrt(self._variance * self._level_weight) / worth
        return min(deviation + chance, 0.0)

    def fade_to(self, step: int) -> None:
        """Let the outcomes of others since the last look fade what fades with them."""
        if step != self.step:
            factor = self.options.silent_fade ** (step - self.step)
            self._level_sum *= factor
            self._level_weight *= factor
            self.seen *= self.options.seen_fade ** (step - self.step)
            self.step = step

    def move_level(self, surplus: float, expected: float, weight: float) -> float:
        """Move the level by one score over the prior; returns what of it the regressions shall explain."""
        level, fade = self.level, self.options.level_fade
        residual = surplus - expected
        self._level_sum = fade * self._level_sum + weight * residual
        self._level_weight = fade * self._level_weight + weight
        self._variance += 0.02 * ((residual - level) ** 2 - self._variance)
        return surplus - level

    def correct_level(self, change: float, since: int) -> None:
        """Correct a score that moved the level so many outcomes ago; `change` is weighted."""
        self._level_sum += self.options.level_fade**since * change

    def weigh(self, reporter: str, *, alone: bool) -> float:
        """How much a reporter's next word counts: once there are two, no one outweighs the prior and all others.

        Args:
            reporter: Whose word it is.
            alone: Whether there is no other reporter, of any model.
        """
        fade, share = self.options.fade, self.options.share
        for name in self._reporters:
            self._reporters[name] *= fade
        own = self._reporters.get(reporter, 0.0) + 1.0
        self._reporters[reporter] = own
        if alone or share >= 1.0:
            return 1.0
        others = self.worth + sum(self._reporters.values()) - own
        return min(1.0, share / (1.0 - share) * others / own)

    def add(self, context: FloatArray, weight: float, outputs: tuple[float, float], costs: tuple[float, float]) -> None:
        """Take in one outcome; it counts once it is folded.

        Args:
            context: (d,) the request.
            weight: How much it counts.
            outputs: Success over the prior, and log cost.
            costs: USD paid and foreseen; 0 where that was not said.
        """
        self._pending.append((context, weight, *outputs, *costs))
        self.count += 1
        self.unsolved += 1

    def correct(
        self, context: FloatArray, count: int, changes: tuple[float, float], costs: tuple[float, float]
    ) -> None:
        """Take in a correction.

        Args:
            context: (d,) the request.
            count: What `count` was after the outcome.
            changes: Of success and log cost, weighted.
            costs: Changes of USD paid and foreseen.
        """
        self._corrected.append((context, count, *changes, *costs))
        self.unsolved += 1

    def fold(self) -> Folded:
        """Add what is pending to the sums."""
        rows = np.array([row[1:] for row in self._pending]).reshape(-1, 5)
        changes = np.array([row[1:] for row in self._corrected]).reshape(-1, 5)
        context = np.array([row[0] for row in (*self._pending, *self._corrected)], np.float64)
        count, fade = len(rows), self.options.fade
        fresh, old = context[:count], context[count:]
        weighted = fresh * (rows[:, 0] * fade ** np.arange(count - 1, -1, -1))[:, None]
        self.gram = fade**count * self.gram + weighted.T @ fresh
        self.moment = fade**count * self.moment + weighted.T @ rows[:, 1:3]
        left = self.count - changes[:, 0]
        self.moment += (old * (fade**left)[:, None]).T @ changes[:, 1:3]
        since = _CALIBRATION_FADE ** np.maximum(left - count, 0.0)[:, None]
        costs = np.concatenate([rows[:, 3:], since * changes[:, 3:]])
        self._pending.clear()
        self._corrected.clear()
        return Folded(count, context, costs[:, 0], costs[:, 1])

    def calibrate(self, folded: Folded, shared: Float64) -> None:
        """Compare what was paid with what the weights, own and shared (d, 2), make of the estimates."""
        logs = np.clip(folded.context @ (shared[:, 1] + self.weights[:, 1]), -COST_BOUND, COST_BOUND)
        faded = _CALIBRATION_FADE**folded.count
        self._paid = faded * self._paid + float(folded.paid.sum())
        self._foreseen = faded * self._foreseen + float((folded.foreseen * np.exp(logs)).sum())
