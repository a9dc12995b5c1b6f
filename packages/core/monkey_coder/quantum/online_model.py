"""Learning P(success) and cost of every model from single outcomes, while requests are being served.

For a request read as ``x`` (`context_map`), a model's success is ``prior + (shared + own) x + level``:

* ``prior`` is the catalog's P(success) of the model for the task type; nothing is lost on what it got right.
* ``shared`` and ``own`` are Bayesian linear regressions with Gaussian priors around 0. Every outcome of any model
  teaches ``shared``, how requests differ for all of them; so a model added today starts from its prior and that. They
  are solved in turn (Gauss-Seidel), which leads to the joint most probable weights. Evidence fades slowly (geometric
  forgetting), the priors never do.
* ``level`` is what the model's last few outcomes fall short of that, beyond what chance explains. It drops within some
  ten outcomes when a model breaks, and fades with everybody's outcomes: so a model that failed is tried again.

An attempt that follows failures has lower chances (`setback`); the regressions learn what they would have been without.

The logarithm of the cost over the catalog's estimate is learned by the same regressions, without a level.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import SETBACK_LOGITS, FloatArray, IntArray
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.model_evidence import COST_BOUND, Evidence, OnlineOptions
from monkey_coder.quantum.setback import Setback

Float64 = NDArray[np.float64]

_OTHERS: Final = 4
"""Models that take turns: so many are solved with each change of the shared weights although they have little new."""
_LEAST_BULK: Final = 64
_MOST_BULK: Final = 512
_BULK_SHARE: Final = 8
"""Weights are solved anew after so many outcomes at the latest, and after that share of all so far in between: the more
there are, the less each of them moves."""


@dataclass(slots=True)  # not frozen, which would make it slow to build: there are thousands a second
class Lesson:
    """One outcome, ready to be learned from; not to be changed.

    Attributes:
        ref: The model that answered.
        context: (d,) the request as `ContextMap` reads it.
        prior: The catalog's P(success) of the model for the task type.
        worth: Outcomes that the prior is worth.
        score: What came of it, 0..1; None where nothing was said about quality.
        cost_usd: What it cost; None where that was not said.
        expected_usd: The catalog's estimate of that.
        reporter: Whose word it is.
        given: P(success) of the models that failed at the task before, summed; 0 at the first attempt.
        further: Whether it corrects an outcome that was told before; of no effect where that is not remembered.
    """

    ref: str
    context: FloatArray
    prior: float
    worth: float
    score: float | None = None
    cost_usd: float | None = None
    expected_usd: float = 0.0
    reporter: str = "anonymous"
    further: bool = False
    given: float = 0.0


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
        setback_logits: How much a failure lowers the chances of all models.
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
    setback_logits: float = SETBACK_LOGITS

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
            self.setback_logits,
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


@dataclass(slots=True)
class _Taken:
    """A learned outcome, as far as it can be corrected; `wanted` and `log_cost` are what the regressions were given."""

    known: Evidence
    context: FloatArray
    weight: float
    count: int
    score: float | None
    wanted: float
    log_cost: float
    paid: float


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
        self._known: dict[str, Evidence] = {}
        self._taken: OrderedDict[str, _Taken | None] = OrderedDict()  # None: of which nothing was learned
        self._reporters: set[str] = set()
        self._step = 0
        self._pending = 0
        self._solves = 0
        self._setback = Setback()

    def learn(self, identity: str, lesson: Lesson) -> None:
        """Learn from an outcome; a further one of the same identity corrects score and cost of the earlier one.

        Args:
            identity: What tells outcomes apart.
            lesson: The outcome.
        """
        self.learn_all([(identity, lesson)])

    def learn_all(self, told: Sequence[tuple[str, Lesson]]) -> None:
        """Learn from outcomes in order, each with its identity; many at once are learned in less time."""
        at = 0
        while at < len(told):
            bulk = min(max(self._step // _BULK_SHARE, _LEAST_BULK), _MOST_BULK)
            lot = told[at : at + max(1, bulk - self._pending)]
            at += len(lot)
            for (identity, lesson), (expected, log_cost) in zip(lot, self._expected(lot), strict=True):
                self._take(identity, lesson, expected, log_cost)
            if self._pending >= bulk:
                self._solve()

    def _expected(self, told: Sequence[tuple[str, Lesson]]) -> list[list[float]]:
        """Success over the prior, and log cost, that the weights expect of each outcome."""
        columns: dict[str, int] = {}
        of_each = [columns.setdefault(lesson.ref, len(columns)) for _, lesson in told]
        weights = [self._known[ref].weights if ref in self._known else 0.0 for ref in columns]
        outputs = np.concatenate([self._shared + own for own in weights], axis=1)
        learned = np.array([lesson.context for _, lesson in told]) @ outputs
        expected: list[list[float]] = learned.reshape(len(told), -1, 2)[np.arange(len(told)), of_each].tolist()
        return expected

    def _take(self, identity: str, lesson: Lesson, expected: float, log_cost: float) -> None:
        """Take in one outcome of which the weights expected so much."""
        earlier = self._taken.get(identity)
        if earlier is not None:
            self._correct(earlier, lesson, expected)
            return
        if lesson.further and identity not in self._taken:
            return
        if lesson.score is None and lesson.cost_usd is None:
            self._remember(identity, None)
            return
        known = self._of(lesson)
        self._step += 1
        known.fade_to(self._step)
        known.seen += 1.0
        self._reporters.add(lesson.reporter)
        weight = known.weigh(lesson.reporter, alone=len(self._reporters) < 2)
        wanted = expected
        if lesson.score is not None:
            surplus = self._surplus(lesson, lesson.prior + expected, weight, lesson.score)
            wanted = known.move_level(surplus, expected, weight)
        paid = foreseen = 0.0
        if lesson.cost_usd is not None and lesson.expected_usd > 0.0:
            paid, foreseen = lesson.cost_usd, lesson.expected_usd
            log_cost = _log_ratio(paid, foreseen)
        known.add(lesson.context, weight, (wanted, log_cost), (paid, foreseen))
        self._pending += 1
        self._remember(
            identity, _Taken(known, lesson.context, weight, known.count, lesson.score, wanted, log_cost, paid)
        )

    def _surplus(self, lesson: Lesson, expected: float, weight: float, score: float) -> float:
        """By how much a score is above the prior; what failures before it took off the chances is put back."""
        if lesson.given <= 0.0:
            return score - lesson.prior
        chance = min(max(expected, 0.0), 1.0)
        self._setback.learn(chance, lesson.given, score, weight)
        return score - lesson.prior + chance - self._setback.after(chance, lesson.given)

    def _remember(self, identity: str, taken: _Taken | None) -> None:
        self._taken[identity] = taken
        if len(self._taken) > self.options.remembered:
            self._taken.popitem(last=False)

    def estimate(self, base: ModelTable) -> LiveEstimate | None:
        """What is known now; None before the first outcome.

        Args:
            base: The models with the priors of the catalog.
        """
        if not self._known:
            return None
        self._solve()
        known = [self._known.get(ref) for ref in base.refs]
        for each in self._known.values():
            each.fade_to(self._step)
        weights = np.stack([self._shared + (each.weights if each else 0.0) for each in known], axis=2)
        seen = np.array([each.seen if each else 0.0 for each in known])
        return LiveEstimate(
            contexts=self.contexts,
            refs=base.refs,
            prior=base.success,
            weights=weights.reshape(self._size, -1).astype(np.float32),
            others=self._shared.astype(np.float32),
            level=np.array([each.level if each else 0.0 for each in known], np.float32),
            cost_factor=np.array([each.calibration if each else 1.0 for each in known], np.float32),
            seen=seen.astype(np.float32),
            optimism=optimism(seen, base, self.options),
            setback_logits=self._setback.logits,
        )

    def frozen(self) -> OnlineModel:
        """A copy that learns nothing of what this one learns from here on, corrections of earlier outcomes included."""
        return deepcopy(self, {id(self._taken): OrderedDict(), id(self.contexts): self.contexts})

    def fade(self, outcomes: int) -> None:
        """Let what is recent fade as by so many outcomes of models that it does not know."""
        self._step += outcomes

    def _of(self, lesson: Lesson) -> Evidence:
        known = self._known.get(lesson.ref)
        worth = min(max(lesson.worth, 1.0), self.options.prior_cap)
        if known is None:
            self._known[lesson.ref] = known = Evidence.none(self.options, self._size, worth, self._step)
        known.worth = worth
        return known

    def _correct(self, earlier: _Taken, lesson: Lesson, expected: float) -> None:
        """Put a later word on an outcome in the place of the earlier one; what it does not speak of stays."""
        known, success, cost = earlier.known, 0.0, 0.0
        known.fade_to(self._step)
        if lesson.score is not None and lesson.score != earlier.score:
            if earlier.score is None:  # the first word on its quality
                surplus = self._surplus(lesson, lesson.prior + expected, earlier.weight, lesson.score)
                success = known.move_level(surplus, expected, earlier.weight) - earlier.wanted
            else:
                success = lesson.score - earlier.score
                known.correct_level(earlier.weight * success, known.count - earlier.count)
            earlier.score, earlier.wanted = lesson.score, earlier.wanted + success
        paid = foreseen = 0.0
        if lesson.cost_usd is not None and lesson.cost_usd != earlier.paid and lesson.expected_usd > 0.0:
            log_cost = _log_ratio(lesson.cost_usd, lesson.expected_usd)
            cost = log_cost - earlier.log_cost
            if not earlier.paid:  # of a changed cost the calibration hears by later outcomes
                paid, foreseen = lesson.cost_usd, lesson.expected_usd
            earlier.log_cost, earlier.paid = log_cost, lesson.cost_usd
        if success or cost or paid:
            change = earlier.weight * success, earlier.weight * cost
            known.correct(earlier.context, earlier.count, change, (paid, foreseen))
            self._pending += 1

    def _solve(self) -> None:
        """Take in what is pending, and find the weights anew."""
        touched = [known for known in self._known.values() if known.pending]
        self._pending = 0
        if touched:
            folded = [known.fold() for known in touched]
            self._solve_all()
            for known, added in zip(touched, folded, strict=True):
                known.calibrate(added, self._shared)

    def _solve_all(self) -> None:
        """Find the shared weights anew, and those of the models that they have moved on from most."""
        options, everyone = self.options, self._known.values()
        worth = float(np.mean([known.worth for known in everyone]))
        prior = np.full(self._size, options.shared_ridge * worth**2)
        prior[-1] = worth**2
        gram = np.diag(prior)
        for known in everyone:
            gram += known.gram
        moment = sum(known.moment - known.gram @ known.weights for known in everyone)
        self._shared = np.asarray(np.linalg.solve(gram, moment), np.float64)
        others = sorted((known for known in everyone if not known.moved), key=lambda known: known.solved)
        self._solves += 1
        for known in [*(known for known in everyone if known.moved), *others[:_OTHERS]]:
            known.solved, known.unsolved = self._solves, 0
            prior = np.full(self._size, options.ridge * known.worth)
            prior[self.contexts.tasks] = options.task_ridge * known.worth
            prior[-1] = known.worth + 1.0
            own = np.linalg.solve(np.diag(prior) + known.gram, known.moment - known.gram @ self._shared)
            known.weights = np.asarray(own, np.float64)


def optimism(seen: Float64, base: ModelTable, options: OnlineOptions) -> FloatArray:
    """(M,) successes that each model is given beyond its estimate when the engine may explore.

    Args:
        seen: (M,) outcomes that have not faded.
        base: The models with the priors of the catalog.
        options: How much that is.
    """
    prior = np.clip(base.evidence.mean(axis=0), 1.0, options.prior_cap) - 1.0
    bonus = np.sqrt(options.optimism_worth / (seen + prior + options.optimism_worth))
    return np.asarray(options.optimism * (bonus - bonus.min()), np.float32)


def _log_ratio(paid: float, foreseen: float) -> float:
    """Logarithm of what a call cost over what was foreseen, within what is believed of one call."""
    return min(max(math.log(max(paid / foreseen, 1e-12)), -2.0 * COST_BOUND), 2.0 * COST_BOUND)
