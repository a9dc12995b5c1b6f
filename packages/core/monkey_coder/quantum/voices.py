"""What the outcomes of several reporters teach together, so that none of them is worth more than its share.

Each reporter has an online model of its own. With one reporter, that model is what is known. With several, what is
expected of a model is a mean of what was known before there were two, and of what each reporter's outcomes say,
weighted by how many outcomes of that model are behind each; the most that one may weigh is its share. So a reporter
moves a model by no more than that, and one on which it has reported nothing, not at all: not even by being the second.
The price: how requests differ for all models is learned by each reporter alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.model_evidence import COST_BOUND, OnlineOptions
from monkey_coder.quantum.online_model import Lesson, LiveEstimate, OnlineModel, optimism

MOST_VOICES: Final = 16
"""Reporters that are listened to at once; beyond them, whoever was silent longest is forgotten."""

_BEFORE: Final = ""
"""Stands for no reporter: what was known before there were two."""


@dataclass(frozen=True, eq=False)
class MixedEstimate:
    """What R reporters taught of M models; immutable, and safe to use from any thread.

    Attributes:
        voices: R estimates, all for the same models; the last is what was known before there were two reporters.
        prior: (T, M) P(success) of the catalog for each task type.
        weight: (T, R, M) what each of them weighs; the prior has what is left of 1, for models that came later.
        optimism: (M,) successes that each model is given beyond its estimate when the engine may explore.
        learned: (d, 2 R M) weights of success of all reporters, then of log cost.
        level: (R, M) recent deviation of each model's success, as each reporter has it.
        log_factor: (R, M) calibration of the costs, as a logarithm.
    """

    voices: tuple[LiveEstimate, ...]
    prior: FloatArray
    weight: FloatArray
    optimism: FloatArray
    learned: FloatArray
    level: FloatArray
    log_factor: FloatArray

    @classmethod
    def mix(
        cls, voices: tuple[LiveEstimate, ...], prior: FloatArray, weight: FloatArray, optimism: FloatArray
    ) -> MixedEstimate:
        """Lay out what the voices say, so that one product asks them all; the arguments are the attributes."""
        size, reporters, models = len(voices[0].weights), len(voices), prior.shape[1]
        stacked = np.stack([voice.weights.reshape(size, 2, models) for voice in voices], axis=2)
        return cls(
            voices,
            prior,
            weight,
            optimism,
            learned=stacked.reshape(size, 2 * reporters * models),
            level=np.stack([voice.level for voice in voices]),
            log_factor=np.log(np.stack([voice.cost_factor for voice in voices])),
        )

    @property
    def setback_logits(self) -> float:
        """How much a failure lowers the chances of all models: the median of all voices."""
        return float(np.median([voice.setback_logits for voice in self.voices]))

    @property
    def refs(self) -> tuple[str, ...]:
        """M model refs."""
        return self.voices[0].refs

    def of(self, table: ModelTable) -> MixedEstimate:
        """The same for the models of another table; those that were not known keep their priors."""
        if table.refs == self.refs:
            return self
        place = {ref: column for column, ref in enumerate(self.refs)}
        at = np.array([place.get(ref, -1) for ref in table.refs], np.int64)
        weight = np.where(at >= 0, self.weight[..., at], 0.0).astype(np.float32)
        most = float(self.optimism.max(initial=0.0))
        optimism = np.where(at >= 0, self.optimism[at], most).astype(np.float32)
        return MixedEstimate.mix(tuple(voice.of(table) for voice in self.voices), table.success, weight, optimism)

    def with_optimism(self, factor: float) -> MixedEstimate:
        """The same with so many times the optimism."""
        return replace(self, optimism=np.float32(factor) * self.optimism)

    def expect(
        self, state: FloatArray, task: IntArray, cost_usd: NDArray[np.floating]
    ) -> tuple[FloatArray, FloatArray]:
        """What each model will do; arguments and results as in `LiveEstimate.expect`."""
        reporters, models = self.level.shape
        learned = (self.voices[0].contexts.read(state) @ self.learned).reshape(len(state), 2, reporters, models)
        weight, prior = self.weight[task], self.prior[task]
        theirs = np.clip(prior[:, None] + learned[:, 0] + self.level, 0.0, 1.0)
        success = (1.0 - weight.sum(axis=1)) * prior + (weight * theirs).sum(axis=1)
        log_factor = np.clip(learned[:, 1], -COST_BOUND, COST_BOUND) + self.log_factor
        usd = cost_usd * np.exp((weight * log_factor).sum(axis=1))
        return np.clip(success, 0.0, 1.0).astype(np.float32), usd.astype(np.float32)


Estimate = LiveEstimate | MixedEstimate


class Voices:
    """Online models, one a reporter. For one thread at a time; what it publishes is for all of them.

    Args:
        contexts: Reads requests.
        options: How fast they learn, and the share of one reporter.
    """

    def __init__(self, contexts: ContextMap, options: OnlineOptions | None = None) -> None:
        self.contexts = contexts
        self.options = options or OnlineOptions()
        self._models: OrderedDict[str, OnlineModel] = OrderedDict()
        self._first: str | None = None
        self._before: OnlineModel | None = None  # there were two
        self._told: dict[str, tuple[ModelTable, LiveEstimate]] = {}

    def learn(self, identity: str, lesson: Lesson) -> None:
        """Learn from an outcome; a further one of the same identity and reporter corrects the earlier one.

        Args:
            identity: What tells outcomes apart.
            lesson: The outcome.
        """
        self.learn_all([(identity, lesson)])

    def learn_all(self, told: Sequence[tuple[str, Lesson]]) -> None:
        """Learn from outcomes in order, each with its identity; see `OnlineModel.learn_all`."""
        if told and self._first is None:
            self._first = told[0][1].reporter
        alone = 0
        if self._before is None:
            alone = next((at for at, (_, lesson) in enumerate(told) if lesson.reporter != self._first), len(told))
            self._learn_all(told[:alone])
            if alone < len(told) and self._first is not None:
                self._before = self._models[self._first].frozen()
        self._learn_all(told[alone:])

    def _learn_all(self, told: Sequence[tuple[str, Lesson]]) -> None:
        by_reporter: dict[str, list[tuple[str, Lesson]]] = {}
        for one in told:
            by_reporter.setdefault(one[1].reporter, []).append(one)
        for name, lessons in by_reporter.items():
            if name not in self._models:
                self._models[name] = OnlineModel(self.contexts, self.options)
            self._models[name].learn_all(lessons)
            self._models.move_to_end(name)
            self._told.pop(name, None)
            if name == self._first and self._before is not None:
                self._before.fade(len(lessons))
                self._told.pop(_BEFORE, None)
        while len(self._models) > MOST_VOICES:
            forgotten, _ = self._models.popitem(last=False)
            self._told.pop(forgotten, None)

    def estimate(self, base: ModelTable) -> Estimate | None:
        """What is known now; None before the first outcome.

        Args:
            base: The models with the priors of the catalog.
        """
        names = sorted(self._models)
        voices = tuple(
            told for name in names if (told := self._estimate_of(name, self._models[name], base)) is not None
        )
        if len(voices) < 2 or self.options.share >= 1.0:
            return voices[0] if voices else None
        seen = np.stack([voice.seen for voice in voices]).astype(np.float64)
        weight, bonus = self._weights(seen, base), optimism(seen.sum(axis=0), base, self.options)
        before = None if self._before is None else self._estimate_of(_BEFORE, self._before, base)
        if before is not None:
            left = 1.0 - weight.sum(axis=1, keepdims=True)
            voices, weight = (*voices, before), np.concatenate([weight, left], axis=1)
        return MixedEstimate.mix(voices, base.success, weight, bonus)

    def _estimate_of(self, name: str, model: OnlineModel, base: ModelTable) -> LiveEstimate | None:
        told = self._told.get(name)
        if told is not None and told[0] is base:
            return told[1]
        estimate = model.estimate(base)
        if estimate is not None:
            self._told[name] = (base, estimate)
        return estimate

    def _weights(self, seen: NDArray[np.float64], base: ModelTable) -> FloatArray:
        """(T, R, M) weights: by outcomes, the prior's included, none above the share."""
        worth = np.clip(base.evidence, 1.0, self.options.prior_cap).astype(np.float64)  # (T, M)
        most = seen.max(axis=0)
        room = self.options.share / (1.0 - self.options.share) * (worth + seen.sum(axis=0) - most)
        counted = np.where((seen == most)[:, None], np.minimum(most, room), seen[:, None])
        return np.asarray(counted / (worth + counted.sum(axis=0)), np.float32).swapaxes(0, 1).copy()
