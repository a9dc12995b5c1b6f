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
from monkey_coder.quantum.key_shares import share_factors, speaking

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


@dataclass(slots=True)  # not frozen, which would make it slow to build: there are thousands a second
class Observation:
    """What one outcome says about a model; not to be changed.

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


@dataclass(slots=True)
class _Cell:
    """What one reporter's outcomes say of one model in one task type: discounted weights and sums.

    In plain numbers and not in arrays: an outcome touches one cell, and arrays are made of them when they are wanted.
    """

    weight: float = 0.0
    total: float = 0.0
    step: int = 0  # of the task type, up to which the two above have faded
    count: int = 0
    failures: float = 0.0  # in a row
    alone: float = 0.0  # of the weight, what was told before there was another reporter
    tokens_weight: float = 0.0
    tokens_total: float = 0.0  # of the logarithm


@dataclass(slots=True)
class _Latency:
    """What one reporter's outcomes say of one model's latency, of the logarithm."""

    weight: float = 0.0
    total: float = 0.0
    count: int = 0
    alone: float = 0.0


@dataclass(slots=True)
class _Tally:
    """All that one reporter told; cells by task type and ref, latencies by ref."""

    cells: dict[tuple[int, str], _Cell] = field(default_factory=dict)
    latencies: dict[str, _Latency] = field(default_factory=dict)
    steps: list[int] = field(default_factory=lambda: [0] * len(TASK_TYPES))

    def cell(self, task: int, ref: str) -> _Cell:
        """The cell of a task type and model; one that is not there yet begins with nothing."""
        found = self.cells.get((task, ref))
        if found is None:
            found = self.cells[task, ref] = _Cell(step=self.steps[task])
        return found


@dataclass(slots=True)  # not frozen, which would make it three times as long to build
class _Learned:
    """What was added, and when, so that what is left of it can be taken out."""

    reporter: str
    task: int
    cell: _Cell
    spell: _Latency | None
    success: float | None
    latency: float
    tokens: float | None
    step: int
    count: int
    latency_count: int
    alone: float  # 1 where there was no other reporter, else 0


@dataclass
class Profiles:
    """Profiles of all models. Not safe for several threads at once: one follower owns them.

    Attributes:
        options: How they learn.
    """

    options: ProfileOptions = field(default_factory=ProfileOptions)
    _tallies: dict[str, _Tally] = field(default_factory=dict)
    _learned: OrderedDict[str, _Learned] = field(default_factory=OrderedDict)

    def learn(self, identity: str, seen: Observation) -> None:
        """Take in an outcome; one of the same identity that was learned before is unlearned first.

        Args:
            identity: What makes two reports one.
            seen: What it says.
        """
        if identity in self._learned:
            self.unlearn(identity)
        tally = self._tallies.get(seen.reporter)
        if tally is None:
            tally = self._tallies[seen.reporter] = _Tally()
        alone = float(len(self._tallies) == 1)
        task, fade = _TASK_ROW[seen.task], self.options.own_fade
        cell, success, spell = tally.cell(task, seen.model), seen.success, None
        latency, tokens, latency_count = 0.0, None, 0
        if success is not None:
            tally.steps[task] += 1
            self._fade(cell, tally.steps[task])
            cell.weight = fade * cell.weight + 1.0
            cell.total = fade * cell.total + success
            cell.alone = fade * cell.alone + alone
            cell.count += 1
            cell.failures = cell.failures + 1.0 if success < _FAILED_BELOW else 0.0
        if seen.latency_s is not None:
            spell = tally.latencies.get(seen.model)
            if spell is None:
                spell = tally.latencies[seen.model] = _Latency()
            latency = _usual(math.log(max(seen.latency_s, _TINIEST_S)), spell.weight, spell.total)
            spell.weight = fade * spell.weight + 1.0
            spell.total = fade * spell.total + latency
            spell.alone = fade * spell.alone + alone
            latency_count = spell.count = spell.count + 1
        if seen.output_tokens is not None:
            tokens = _usual(math.log(max(seen.output_tokens, 1.0)), cell.tokens_weight, cell.tokens_total)
            cell.tokens_weight += 1.0
            cell.tokens_total += tokens
        self._learned[identity] = _Learned(
            seen.reporter,
            task,
            cell,
            spell,
            success,
            latency,
            tokens,
            tally.steps[task],
            cell.count,
            latency_count,
            alone,
        )
        if len(self._learned) > self.options.remembered:
            self._learned.popitem(last=False)

    def unlearn(self, identity: str) -> None:
        """Take out what is left of an outcome; of no effect when it is not remembered."""
        old = self._learned.pop(identity, None)
        if old is None:
            return
        options, cell, spell = self.options, old.cell, old.spell
        if old.success is not None:
            now = self._tallies[old.reporter].steps[old.task]
            self._fade(cell, now)
            left = options.silent_fade ** (now - old.step) * options.own_fade ** (cell.count - old.count)
            cell.weight, cell.total = _without(cell.weight, cell.total, left, old.success)
            cell.alone = min(cell.weight, max(0.0, cell.alone - left * old.alone))
            if old.success < _FAILED_BELOW:
                cell.failures = max(0.0, cell.failures - 1.0)
        if spell is not None:
            left = options.own_fade ** (spell.count - old.latency_count)
            spell.weight, spell.total = _without(spell.weight, spell.total, left, old.latency)
            spell.alone = min(spell.weight, max(0.0, spell.alone - left * old.alone))
        if old.tokens is not None:
            cell.tokens_weight, cell.tokens_total = _without(cell.tokens_weight, cell.tokens_total, 1.0, old.tokens)

    def _fade(self, cell: _Cell, step: int) -> None:
        """Let the outcomes in its task type since the last look fade what fades with them."""
        factor = self.options.silent_fade ** (step - cell.step)
        cell.weight *= factor
        cell.total *= factor
        cell.alone *= factor
        cell.step = step

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
        weight, total, alone = self._gathered(base, "success")
        prior = base.success.astype(np.float64)
        worth = np.minimum(base.evidence, self.options.prior_cap) / self._doubt(base, weight)
        capped = share_factors(weight, alone, worth, self.options.share)
        seen, good = (weight * capped).sum(axis=0), (total * capped).sum(axis=0)
        speaks = speaking(weight, alone, self.options.share)
        pooled = np.clip(prior + self._pooled(speaks, (total - weight * prior) * capped, weight * capped), 0.0, 1.0)
        # What nobody contradicted keeps all that the catalog says it is worth.
        evidence = np.where(seen > 0, worth + seen, base.evidence)
        return np.clip((worth * pooled + good) / np.maximum(worth + seen, 1e-9), 0.0, 1.0), evidence

    def _doubt(self, base: ModelTable, weight: Float64) -> Float64:
        """(T, M) by how much less a prior is worth; of several reporters, the one with the fewest failures counts."""
        runs = np.where(weight > 0.0, self._gathered(base, "failures")[0], np.inf).min(axis=0)
        runs = np.where(np.isfinite(runs), runs, 0.0)
        return np.clip(runs / self.options.doubt_after, 1.0, self.options.doubt)

    def _pooled(self, speaks: Float64, shortfall: Float64, seen: Float64) -> Float64:
        """(T, M) by how much the other task types move a prior.

        Args:
            speaks: (R, T, M) how much say in this each reporter has.
            shortfall: (R, T, M) how far it was above the prior.
            seen: (R, T, M) evidence after the cap.
        """
        others = (shortfall.sum(axis=1, keepdims=True) - shortfall) * speaks
        behind = (seen.sum(axis=1, keepdims=True) - seen) * speaks
        return np.asarray(self.options.pool * others.sum(axis=0) / (behind.sum(axis=0) + self.options.pool_evidence))

    def _mean(self, base: ModelTable, name: str, prior: Float64, worth: float) -> tuple[Float64, Float64]:
        weight, total, alone = self._gathered(base, name)
        capped = share_factors(weight, alone, np.full(weight.shape[1:], worth), self.options.share)
        seen = (weight * capped).sum(axis=0)
        mean = (worth * prior + (total * capped).sum(axis=0)) / np.maximum(worth + seen, 1e-9)
        return mean, seen

    def _gathered(self, base: ModelTable, name: str) -> Float64:
        """(3, R, ..., M) weights and sums of all reporters in columns of `base`, and weights from before others."""
        shape = (len(base),) if name == "latency" else (len(TASK_TYPES), len(base))
        gathered = np.zeros((3, max(1, len(self._tallies)), *shape))
        for row, tally in enumerate(self._tallies.values()):
            if name == "latency":
                for ref, spell in tally.latencies.items():
                    if ref in base.index:
                        gathered[:, row, base.index[ref]] = spell.weight, spell.total, spell.alone
            else:
                self._gather(tally, base, name, gathered[:, row])
        return gathered

    def _gather(self, tally: _Tally, base: ModelTable, name: str, into: Float64) -> None:
        """Write what one reporter told into (3, T, M)."""
        found = [(task, base.index[ref], cell) for (task, ref), cell in tally.cells.items() if ref in base.index]
        if not found:
            return
        tasks, columns, cells = zip(*found, strict=True)
        match name:
            case "success":
                for task, cell in zip(tasks, cells, strict=True):
                    self._fade(cell, tally.steps[task])
                values = [(cell.weight, cell.total, cell.alone) for cell in cells]
            case "tokens":
                values = [(cell.tokens_weight, cell.tokens_total, 0.0) for cell in cells]
            case _:
                values = [(cell.failures, 0.0, 0.0) for cell in cells]
        into[:, tasks, columns] = np.array(values).T


def _usual(value: float, weight: float, total: float) -> float:
    """A logarithm, held near the mean of weights and sums once there is one worth the name."""
    if weight < _USUAL:
        return value
    mean = total / weight
    return min(max(value, mean - _SURPRISE), mean + _SURPRISE)


def _without(weight: float, total: float, left: float, value: float) -> tuple[float, float]:
    """A weight and a sum without what is left of an observation; what remains but for rounding becomes nothing."""
    weight -= left
    return (0.0, 0.0) if weight < 1e-9 else (weight, total - left * value)
