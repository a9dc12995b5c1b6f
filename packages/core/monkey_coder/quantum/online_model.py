"""Learning P(success) and cost of every model from single outcomes, while requests are being served.

For a request read as ``x`` (`context_map`), a model's success is ``prior + (shared + own) x + level``:

* ``prior`` is the catalog's P(success) of the model for the task type; nothing is lost on what it got right.
* ``shared`` and ``own`` are Bayesian linear regressions with Gaussian priors around 0. Every outcome of any model
  teaches ``shared``, how requests differ for all of them; so a model added today starts from its prior and that. They
  are solved in turn (Gauss-Seidel), which leads to the joint most probable weights. Evidence fades slowly (geometric
  forgetting), the priors never do.
* ``level`` is what the model's last few outcomes fall short of that, beyond what chance explains. It drops within some
  ten outcomes when a model breaks, and fades with everybody's outcomes: so a model that failed is tried again.

The logarithm of the cost over the catalog's estimate is learned by the same regressions, without a level.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.context_map import ContextMap

Float64 = NDArray[np.float64]

COST_BOUND: Final = 3.0
"""Costs are not believed to be off by more than e to this."""
_CALIBRATION_FADE: Final = 0.995
_OTHERS: Final = 4
"""Models without new outcomes whose weights follow a change of the shared ones at once; the others take turns."""
_BULK: Final = 64
"""Outcomes after which weights are solved anew at the latest."""


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """How fast it learns and forgets. Precisions count in outcomes.

    Attributes:
        ridge: Precision of a model's own weights where its prior is worth one outcome; rises with that worth.
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
    remembered: int = 5_000


@dataclass(frozen=True, slots=True)
class Lesson:
    """One outcome, ready to be learned from.

    Attributes:
        ref: The model that answered.
        context: (d,) the request as `ContextMap` reads it.
        prior: The catalog's P(success) of the model for the task type.
        worth: Outcomes that the prior is worth.
        score: What came of it, 0..1; None where nothing was said about quality.
        cost_usd: What it cost; None where that was not said.
        expected_usd: The catalog's estimate of that.
        reporter: Whose word it is.
    """

    ref: str
    context: FloatArray
    prior: float
    worth: float
    score: float | None = None
    cost_usd: float | None = None
    expected_usd: float = 0.0
    reporter: str = "anonymous"


@dataclass(frozen=True, eq=False)
class LiveEstimate:
    """What was learned so far, for M models; immutable, and safe to use from any thread.

    Attributes:
        contexts: Reads requests.
        refs: M model refs.
        prior: (T, M) P(success) of the catalog for each task type.
        weights: (d, 2 M) of success, then of log cost.
        others: (d, 2) the same of a model that is not among `refs`.
        level: (M,) by how much each model fell short lately, at most 0.
        cost_factor: (M,) calibration of the costs.
        seen: (M,) outcomes that have not faded.
        optimism: (M,) successes that each model is given beyond its estimate when the engine may explore; 0 for the one
            with most outcomes.
    """

    contexts: ContextMap
    refs: tuple[str, ...]
    prior: FloatArray
    weights: FloatArray
    others: FloatArray
    level: FloatArray
    cost_factor: FloatArray
    seen: FloatArray
    optimism: FloatArray

    def of(self, table: ModelTable) -> LiveEstimate:
        """The same for the models of another table; those without outcomes get what all models have in common."""
        refs = table.refs
        if refs is self.refs or refs == self.refs:
            return self
        count, place = len(self.refs), {ref: column for column, ref in enumerate(self.refs)}
        at = np.array([place.get(ref, -1) for ref in refs], np.int64)
        known = at >= 0

        def pick(values: FloatArray, otherwise: FloatArray | float) -> FloatArray:
            return np.where(known, values[..., at], np.float32(otherwise)).astype(np.float32)

        outputs = zip((self.weights[:, :count], self.weights[:, count:]), self.others.T[:, :, None], strict=True)
        return LiveEstimate(
            self.contexts,
            refs,
            pick(self.prior, table.success),
            np.concatenate([pick(weights, others) for weights, others in outputs], axis=1),
            self.others,
            pick(self.level, 0.0),
            pick(self.cost_factor, 1.0),
            pick(self.seen, 0.0),
            pick(self.optimism, float(self.optimism.max(initial=0.0))),
        )

    def with_optimism(self, factor: float) -> LiveEstimate:
        """The same with so many times the optimism."""
        return replace(self, optimism=np.float32(factor) * self.optimism)

    def expect(
        self, state: FloatArray, task: IntArray, cost_usd: NDArray[np.floating]
    ) -> tuple[FloatArray, FloatArray]:
        """What each model will do.

        Args:
            state: (B, S) encoded requests.
            task: (B,) index of their task types.
            cost_usd: (B, M) the catalog's estimate of an attempt's cost.

        Returns:
            (B, M) P(success), and (B, M) expected cost in USD.
        """
        count = len(self.refs)
        learned = self.contexts.read(state) @ self.weights
        success = np.clip(self.prior[task] + learned[:, :count] + self.level, 0.0, 1.0)
        factor = np.exp(np.clip(learned[:, count:], -COST_BOUND, COST_BOUND)) * self.cost_factor
        return success.astype(np.float32), (cost_usd * factor).astype(np.float32)


@dataclass(slots=True, eq=False)
class _Known:
    """What outcomes of one model add up to; d entries of a request, 2 outputs."""

    gram: Float64
    moment: Float64
    weights: Float64
    worth: float
    variance: float = 0.05
    seen: float = 0.0
    level_sum: float = 0.0
    level_weight: float = 0.0
    step: int = 0
    paid: float = 0.0
    foreseen: float = 0.0
    count: int = 0
    solved: int = 0
    reporters: dict[str, float] = field(default_factory=dict)
    pending: list[tuple[FloatArray, float, float, float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A learned outcome, as far as it can be corrected."""

    ref: str
    context: FloatArray
    score: float
    weight: float
    count: int


class OnlineModel:
    """Learns from outcomes one at a time. For one thread at a time; what it publishes is for all of them.

    Args:
        contexts: Reads requests.
        options: How fast it learns.
    """

    def __init__(self, contexts: ContextMap, options: OnlineOptions | None = None) -> None:
        self.options = options or OnlineOptions()
        self.contexts = contexts
        self._size = contexts.size
        self._shared: Float64 = np.zeros((self._size, 2))
        self._known: dict[str, _Known] = {}
        self._taken: OrderedDict[str, _Taken] = OrderedDict()
        self._reporters: set[str] = set()
        self._step = 0
        self._pending = 0
        self._solves = 0

    def learn(self, identity: str, lesson: Lesson) -> None:
        """Learn from an outcome; a further one of the same identity corrects the score of the earlier one.

        Args:
            identity: What tells outcomes apart.
            lesson: The outcome.
        """
        earlier = self._taken.get(identity)
        if earlier is not None:
            self._correct(identity, earlier, lesson.score)
            return
        if lesson.score is None and lesson.cost_usd is None:
            return
        known = self._of(lesson)
        expected, log_cost = lesson.context @ (self._shared + known.weights)
        self._step += 1
        self._fade(known)
        known.seen += 1.0
        weight = self._weight(known, lesson.reporter)
        wanted = float(expected)
        if lesson.score is not None:
            wanted = self._level(known, lesson.score - lesson.prior, float(expected), weight)
        paid = foreseen = 0.0
        if lesson.cost_usd is not None and lesson.expected_usd > 0.0:
            paid, foreseen = lesson.cost_usd, lesson.expected_usd
            log_cost = np.log(np.clip(paid / foreseen, np.exp(-2.0 * COST_BOUND), np.exp(2.0 * COST_BOUND)))
        known.pending.append((lesson.context, weight, wanted, float(log_cost), paid, foreseen))
        known.count += 1
        self._pending += 1
        if lesson.score is not None:
            self._taken[identity] = _Taken(lesson.ref, lesson.context, lesson.score, weight, known.count)
            if len(self._taken) > self.options.remembered:
                self._taken.popitem(last=False)
        if self._pending >= _BULK:
            self._solve()

    def estimate(self, base: ModelTable) -> LiveEstimate | None:
        """What is known now; None before the first outcome.

        Args:
            base: The models with the priors of the catalog.
        """
        if not self._known:
            return None
        self._solve()
        options = self.options
        known = [self._known.get(ref) for ref in base.refs]
        for each in self._known.values():
            self._fade(each)
        weights = np.stack([self._shared + (each.weights if each else 0.0) for each in known], axis=2)
        seen = np.array([each.seen if each else 0.0 for each in known])
        prior = np.clip(base.evidence.mean(axis=0), 1.0, options.prior_cap) - 1.0
        bonus = np.sqrt(options.optimism_worth / (seen + prior + options.optimism_worth))
        return LiveEstimate(
            contexts=self.contexts,
            refs=base.refs,
            prior=base.success,
            weights=weights.reshape(self._size, -1).astype(np.float32),
            others=self._shared.astype(np.float32),
            level=np.array([self._level_of(each) if each else 0.0 for each in known], np.float32),
            cost_factor=np.array([_calibration(each) if each else 1.0 for each in known], np.float32),
            seen=seen.astype(np.float32),
            optimism=(options.optimism * (bonus - bonus.min())).astype(np.float32),
        )

    def _of(self, lesson: Lesson) -> _Known:
        known = self._known.get(lesson.ref)
        worth = float(np.clip(lesson.worth, 1.0, self.options.prior_cap))
        if known is None:
            gram, moment, weights = np.zeros((self._size, self._size)), *np.zeros((2, self._size, 2))
            self._known[lesson.ref] = known = _Known(gram, moment, weights, worth, step=self._step)
        known.worth = worth
        return known

    def _fade(self, known: _Known) -> None:
        """Let the outcomes of others since the last look fade what fades with them."""
        steps = self._step - known.step
        if steps:
            factor = self.options.silent_fade**steps
            known.level_sum *= factor
            known.level_weight *= factor
            known.seen *= self.options.seen_fade**steps
            known.step = self._step

    def _level_of(self, known: _Known) -> float:
        worth = known.level_weight + self.options.level_worth
        deviation = known.level_sum / worth
        chance = self.options.level_chance * float(np.sqrt(known.variance * known.level_weight)) / worth
        return min(deviation + chance, 0.0)

    def _level(self, known: _Known, surplus: float, expected: float, weight: float) -> float:
        """Move the level by one score over the prior; returns what of it the regressions shall explain."""
        level = self._level_of(known)
        residual = surplus - expected
        fade = self.options.level_fade
        known.level_sum = fade * known.level_sum + weight * residual
        known.level_weight = fade * known.level_weight + weight
        known.variance += 0.02 * ((residual - level) ** 2 - known.variance)
        return surplus - level

    def _weight(self, known: _Known, reporter: str) -> float:
        """How much a reporter's word counts: once there are two, no one outweighs the prior and all others."""
        self._reporters.add(reporter)
        fade, share = self.options.fade, self.options.share
        for name in known.reporters:
            known.reporters[name] *= fade
        own = known.reporters.get(reporter, 0.0) + 1.0
        known.reporters[reporter] = own
        if len(self._reporters) < 2 or share >= 1.0:
            return 1.0
        others = known.worth + sum(known.reporters.values()) - own
        return min(1.0, share / (1.0 - share) * others / own)

    def _correct(self, identity: str, earlier: _Taken, score: float | None) -> None:
        if score is None or score == earlier.score:
            return
        self._solve()
        known = self._known[earlier.ref]
        self._fade(known)
        steps = known.count - earlier.count
        change = earlier.weight * (score - earlier.score)
        known.moment[:, 0] += self.options.fade**steps * change * earlier.context
        known.level_sum += self.options.level_fade**steps * change
        self._taken[identity] = replace(earlier, score=score)
        self._solve_for([known])

    def _solve(self) -> None:
        """Take in what is pending, and find the weights anew."""
        touched = [known for known in self._known.values() if known.pending]
        self._pending = 0
        if not touched:
            return
        taken = []
        for known in touched:
            context = np.array([row[0] for row in known.pending], np.float64)
            rows = np.array([row[1:] for row in known.pending])
            weight = rows[:, 0] * self.options.fade ** np.arange(len(rows) - 1, -1, -1)
            faded = self.options.fade ** len(rows)
            weighted = context * weight[:, None]
            known.gram = faded * known.gram + weighted.T @ context
            known.moment = faded * known.moment + weighted.T @ rows[:, 1:3]
            known.pending.clear()
            taken.append((known, context, rows[:, 3], rows[:, 4]))
        self._solve_for(touched)
        for known, context, paid, expected in taken:
            logs = np.clip(context @ (self._shared[:, 1] + known.weights[:, 1]), -COST_BOUND, COST_BOUND)
            faded = _CALIBRATION_FADE ** len(paid)
            known.paid = faded * known.paid + float(paid.sum())
            known.foreseen = faded * known.foreseen + float((expected * np.exp(logs)).sum())

    def _solve_for(self, touched: Sequence[_Known]) -> None:
        options, everyone = self.options, self._known.values()
        worth = float(np.mean([known.worth for known in everyone]))
        prior = np.full(self._size, options.shared_ridge * worth**2)
        prior[-1] = worth**2
        gram = np.diag(prior) + sum(known.gram for known in everyone)
        moment = sum(known.moment - known.gram @ known.weights for known in everyone)
        self._shared = np.asarray(np.linalg.solve(gram, moment), np.float64)
        others = sorted((known for known in everyone if known not in touched), key=lambda known: known.solved)
        self._solves += 1
        for known in (*touched, *others[:_OTHERS]):
            known.solved = self._solves
            prior = np.full(self._size, options.ridge * known.worth)
            prior[-1] = known.worth + 1.0
            own = np.linalg.solve(np.diag(prior) + known.gram, known.moment - known.gram @ self._shared)
            known.weights = np.asarray(own, np.float64)


def _calibration(known: _Known) -> float:
    """What a model really cost over what was foreseen, as far as outcomes tell."""
    return float(np.clip(known.paid / known.foreseen, 0.1, 10.0)) if known.foreseen > 0.0 else 1.0
