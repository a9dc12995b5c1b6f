"""What each model can do, per task type (T2.3.4): what the catalog says, and what outcomes have taught since.

Each pair of task type and model is a Beta distribution: a prior plus discounted counts. Three rules bend it:

* Geometric forgetting (as in discounted bandits: Garivier and Moulines, 2011), so that a silent regression is
  noticed. A model's own outcomes fade quickly. Those of models that get no traffic fade with the outcomes of the
  others, so that a model that once failed is tried again.
* Partial pooling: how a model fell short of its prior in other task types moves its prior in this one a little.
* A cap on influence: once two reporters exist, no one is worth more than its share of any number. A reporter's
  evidence fades with that reporter's outcomes alone, so that one cannot make another's be forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES, TaskType
from monkey_coder.quantum.interval import wilson

Float64 = NDArray[np.float64]

_TASK_ROW: Final = {task: row for row, task in enumerate(TASK_TYPES)}
_TINIEST_S: Final = 1e-3
_SURPRISE: Final = math.log(10.0)
"""A latency or length counts as at most ten times, and at least a tenth of, what was usual before."""
_FAILED_BELOW: Final = 0.5
"""A success or quality below this is a failure, where failures are counted."""
_USUAL: Final = 5.0
"""Observations after which something is usual."""


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How profiles learn and forget.

    Attributes:
        own_fade: Factor on a model's evidence in a task type with each further outcome of its own there, on top
            of `silent_fade`.
        silent_fade: Factor on the evidence of all models in a task type with each outcome there.
        prior_cap: The most outcomes that a catalog prior is worth against what was seen.
        doubt: How much less a prior is worth, at most, while a model does nothing but fail: each failed retry
            then keeps it away for longer. A success gives the prior its worth back.
        doubt_after: Failures in a row that raise no doubt yet; twice as many halve the worth of the prior.
        pool: Which part of a model's shortfall in other task types moves its prior in this one, 0..1.
        pool_evidence: Outcomes in other task types at which half of that part counts.
        share: The most that one reporter is worth in any number, one half to one; 1 means no cap.
        remembered: Latest outcomes that can still be unlearned; older ones have mostly faded anyway.
    """

    own_fade: float = 0.99
    silent_fade: float = 0.99
    prior_cap: float = 10.0
    doubt: float = 3.0
    doubt_after: float = 10.0
    pool: float = 0.5
    pool_evidence: float = 20.0
    share: float = 0.5
    remembered: int = 100_000

    def __post_init__(self) -> None:
        if not 0.5 <= self.share <= 1.0:
            raise ValueError(f"share must be from one half to one, is {self.share}")
        for name in ("own_fade", "silent_fade"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, is {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Observation:
    """What one outcome says about a model.

    Attributes:
        model: Ref.
        task: Type of the task.
        success: 0..1; None where nothing was said about quality.
        latency_s: Seconds of the call, or None.
        output_tokens: Tokens of the answer, or None.
        reporter: Whose word it is.
    """

    model: str
    task: TaskType
    success: float | None = None
    latency_s: float | None = None
    output_tokens: float | None = None
    reporter: str = "anonymous"


@dataclass(frozen=True, slots=True)
class TaskProfile:
    """What is thought of a model in one task type.

    Attributes:
        task: The type.
        prior: P(success) of the catalog.
        success: P(success) now.
        low: Lower end of its 90% interval.
        high: Upper end.
        evidence: Outcomes that it is worth, the prior's included.
        seen: Outcomes behind it that have not faded yet, without the prior.
        output_tokens: Usual length of an answer; None before there was one.
    """

    task: TaskType
    prior: float
    success: float
    low: float
    high: float
    evidence: float
    seen: float
    output_tokens: float | None


class _Tally:
    """Discounted weights and sums of one reporter, all with models as the last axis."""

    def __init__(self, models: int) -> None:
        tasks = len(TASK_TYPES)
        self.success: Float64 = np.zeros((2, tasks, models))
        self.tokens: Float64 = np.zeros((2, tasks, models))  # of the logarithm
        self.latency: Float64 = np.zeros((2, models))  # of the logarithm
        self.task_steps = [0] * tasks
        self.steps: NDArray[np.int64] = np.zeros((tasks, models), dtype=np.int64)
        self.latency_steps: NDArray[np.int64] = np.zeros(models, dtype=np.int64)
        self.failures: Float64 = np.zeros((1, tasks, models))  # in a row; the first axis is for `_gathered`

    def grow(self) -> None:
        """Make room for one more model."""
        for name in ("success", "tokens", "latency", "steps", "latency_steps", "failures"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old[..., :1])], axis=-1))


@dataclass(frozen=True, slots=True)
class _Learned:
    """What was added, and when, so that what is left of it can be taken out."""

    reporter: str
    task: int
    column: int
    success: float | None
    latency: float | None
    tokens: float | None
    task_step: int
    step: int
    latency_step: int


@dataclass
class Profiles:
    """Profiles of all models. Not safe for several threads at once: one follower owns them.

    Attributes:
        options: How they learn.
    """

    options: ProfileOptions = field(default_factory=ProfileOptions)
    _columns: dict[str, int] = field(default_factory=dict)
    _tallies: dict[str, _Tally] = field(default_factory=dict)
    _learned: OrderedDict[str, _Learned] = field(default_factory=OrderedDict)

    def learn(self, identity: str, seen: Observation) -> None:
        """Take in an outcome; one of the same identity that was learned before is unlearned first.

        Args:
            identity: What makes two reports one.
            seen: What it says.
        """
        self.unlearn(identity)
        column = self._column(seen.model)
        tally = self._tallies.setdefault(seen.reporter, _Tally(len(self._columns)))
        task = _TASK_ROW[seen.task]
        latency = tokens = None
        if seen.success is not None:
            tally.success[:, task] *= self.options.silent_fade
            tally.success[:, task, column] *= self.options.own_fade
            tally.success[:, task, column] += (1.0, seen.success)
            tally.task_steps[task] += 1
            tally.steps[task, column] += 1
            failed = seen.success < _FAILED_BELOW
            tally.failures[0, task, column] = tally.failures[0, task, column] + 1.0 if failed else 0.0
        if seen.latency_s is not None:
            latency = _usual(math.log(max(seen.latency_s, _TINIEST_S)), tally.latency[:, column])
            tally.latency[:, column] *= self.options.own_fade
            tally.latency[:, column] += (1.0, latency)
            tally.latency_steps[column] += 1
        if seen.output_tokens is not None:
            tokens = _usual(math.log(max(seen.output_tokens, 1.0)), tally.tokens[:, task, column])
            tally.tokens[:, task, column] += (1.0, tokens)
        self._learned[identity] = _Learned(
            seen.reporter,
            task,
            column,
            seen.success,
            latency,
            tokens,
            tally.task_steps[task],
            int(tally.steps[task, column]),
            int(tally.latency_steps[column]),
        )
        if len(self._learned) > self.options.remembered:
            self._learned.popitem(last=False)

    def unlearn(self, identity: str) -> None:
        """Take out what is left of an outcome; of no effect when it is not remembered."""
        old = self._learned.pop(identity, None)
        if old is None:
            return
        tally, options = self._tallies[old.reporter], self.options
        if old.success is not None:
            left = options.silent_fade ** (tally.task_steps[old.task] - old.task_step)
            left *= options.own_fade ** int(tally.steps[old.task, old.column] - old.step)
            _take_out(tally.success[:, old.task], old.column, left, old.success)
            if old.success < _FAILED_BELOW:
                row = tally.failures[0, old.task]
                row[old.column] = max(0.0, row[old.column] - 1.0)
        if old.latency is not None:
            left = options.own_fade ** int(tally.latency_steps[old.column] - old.latency_step)
            _take_out(tally.latency, old.column, left, old.latency)
        if old.tokens is not None:
            _take_out(tally.tokens[:, old.task], old.column, 1.0, old.tokens)

    def table(self, base: ModelTable) -> ModelTable:
        """The catalog's table with what was learned since: chances, evidence and latencies.

        Args:
            base: With the priors of the catalog. Models that it does not hold are left out.
        """
        success, evidence = self._chances(base)
        latency, _ = self._mean(base, "latency", np.log(np.maximum(base.latency_s, _TINIEST_S)), _USUAL)
        seen = self._gathered(base, "latency")[0].sum(axis=0) > 0
        return replace(
            base,
            success=success.astype(np.float32),
            evidence=evidence.astype(np.float32),
            latency_s=np.where(seen, np.exp(latency), base.latency_s).astype(np.float32),
        )

    def profile(self, base: ModelTable, ref: str) -> tuple[TaskProfile, ...]:
        """What is thought of one model, by task type.

        Raises:
            KeyError: The table does not hold the model.
        """
        column = base.index[ref]
        success, evidence = (array[:, column] for array in self._chances(base))
        low, high = wilson(success, evidence)
        behind = self._gathered(base, "success")[0].sum(axis=0)[:, column]
        length, seen = self._mean(base, "tokens", np.zeros(base.success.shape), 0.0)
        return tuple(
            TaskProfile(
                task,
                prior=float(base.success[row, column]),
                success=float(success[row]),
                low=float(low[row]),
                high=float(high[row]),
                evidence=float(evidence[row]),
                seen=float(behind[row]),
                output_tokens=math.exp(length[row, column]) if seen[row, column] > 0 else None,
            )
            for row, task in enumerate(TASK_TYPES)
        )

    def _chances(self, base: ModelTable) -> tuple[Float64, Float64]:
        """(T, M) P(success), and (T, M) the outcomes it is worth."""
        weight, total = self._gathered(base, "success")
        prior = base.success.astype(np.float64)
        worth = np.minimum(base.evidence, self.options.prior_cap) / self._doubt(base, weight)
        capped = self._shares(weight, worth)
        seen, good = (weight * capped).sum(axis=0), (total * capped).sum(axis=0)
        pooled = np.clip(prior + self._pooled(weight, (total - weight * prior) * capped, weight * capped), 0.0, 1.0)
        # What nobody contradicted keeps all that the catalog says it is worth.
        evidence = np.where(seen > 0, worth + seen, base.evidence)
        return np.clip((worth * pooled + good) / np.maximum(worth + seen, 1e-9), 0.0, 1.0), evidence

    def _doubt(self, base: ModelTable, weight: Float64) -> Float64:
        """(T, M) by how much less a prior is worth; of several reporters, the one with the fewest failures counts."""
        runs = np.where(weight > 0.0, self._gathered(base, "failures")[0], np.inf).min(axis=0)
        runs = np.where(np.isfinite(runs), runs, 0.0)
        return np.clip(runs / self.options.doubt_after, 1.0, self.options.doubt)

    def _pooled(self, weight: Float64, shortfall: Float64, seen: Float64) -> Float64:
        """(T, M) by how much the other task types move a prior.

        Whoever has most evidence in a task type has no say in this as well, once there are two reporters: the two
        ways of moving a number together would exceed its share.

        Args:
            weight: (R, T, M) evidence of each reporter.
            shortfall: (R, T, M) how far it was above the prior.
            seen: (R, T, M) evidence after the cap.
        """
        others = shortfall.sum(axis=1, keepdims=True) - shortfall
        behind = seen.sum(axis=1, keepdims=True) - seen
        if len(weight) > 1 and self.options.share < 1.0:
            speaks = np.ones_like(weight)
            np.put_along_axis(speaks, weight.argmax(axis=0)[None], weight.max(axis=0)[None] == 0.0, axis=0)
            others, behind = others * speaks, behind * speaks
        return np.asarray(self.options.pool * others.sum(axis=0) / (behind.sum(axis=0) + self.options.pool_evidence))

    def _mean(self, base: ModelTable, name: str, prior: Float64, worth: float) -> tuple[Float64, Float64]:
        weight, total = self._gathered(base, name)
        capped = self._shares(weight, np.full(weight.shape[1:], worth))
        seen = (weight * capped).sum(axis=0)
        mean = (worth * prior + (total * capped).sum(axis=0)) / np.maximum(worth + seen, 1e-9)
        return mean, seen

    def _shares(self, weight: Float64, prior: Float64) -> Float64:
        """Factors (R, ...) that keep every reporter within its share; only the one with most evidence can exceed it."""
        factors = np.ones_like(weight)
        if len(weight) > 1 and self.options.share < 1.0:
            most = weight.max(axis=0)
            room = self.options.share / (1.0 - self.options.share) * (prior + weight.sum(axis=0) - most)
            factor = np.where((most > room) & (room > 0.0), room / np.maximum(most, 1e-12), 1.0)
            factors = np.where(weight == most, factor, 1.0)
        return factors

    def _gathered(self, base: ModelTable, name: str) -> tuple[Float64, Float64]:
        """(R, ..., M) weights and sums of all reporters, in the columns of `base`."""
        known = [(column, self._columns[ref]) for column, ref in enumerate(base.refs) if ref in self._columns]
        wanted, own = ([pair[side] for pair in known] for side in (0, 1))
        shape = (len(base),) if name == "latency" else (len(TASK_TYPES), len(base))
        gathered = np.zeros((2, max(1, len(self._tallies)), *shape))
        for row, tally in enumerate(self._tallies.values()):
            gathered[:, row][..., wanted] = getattr(tally, name)[..., own]  # one of one entry fills both
        return gathered[0], gathered[1]

    def _column(self, ref: str) -> int:
        if ref not in self._columns:
            self._columns[ref] = len(self._columns)
            for tally in self._tallies.values():
                tally.grow()
        return self._columns[ref]


def _usual(value: float, tally: Float64) -> float:
    """A logarithm, held near the mean of a (weight, sum) once there is one worth the name."""
    if tally[0] < _USUAL:
        return value
    mean = tally[1] / tally[0]
    return float(np.clip(value, mean - _SURPRISE, mean + _SURPRISE))


def _take_out(sums: Float64, column: int, left: float, value: float) -> None:
    """Subtract an observation; what is left of nothing but rounding becomes nothing."""
    weight = sums[0, column] - left
    if weight < 1e-9:
        sums[:, column] = 0.0
    else:
        sums[:, column] = (weight, sums[1, column] - left * value)
