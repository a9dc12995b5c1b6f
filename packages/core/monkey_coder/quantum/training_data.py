"""What training learns from, as arrays, and its sources: outcome tables, logged decisions, and fresh batches of either.

An outcome table knows what every model did with a task (full information). A log knows it only of the models that were
chosen, and each of its outcomes counts by one over the probability with which it was chosen (inverse propensity
weighting: Horvitz and Thompson 1952; self-normalised, Hajek 1971).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import ExecuteRequest, RouteRequest, TaskType
from monkey_coder.ports import BoolArray, FloatArray, IntArray, TextEmbedder
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import StateLayout

MOST_WEIGHT: Final = 10.0
"""Largest weight of an outcome, before the weights of its model are scaled to a mean of 1: bounds the variance."""

_BATCH: Final = 256


@dataclass(frozen=True, eq=False)
class OutcomeData:
    """Outcomes of M models on N tasks, with all that the router would have known of each task.

    Attributes:
        table: The models, one a column, as the router knows them.
        states: (N, S) encoded requests, before any attempt.
        embedding: (N, D) embeddings of the prompts.
        task: (N,) index into `TASK_TYPES`.
        complexity: (N,) 0..1.
        families: N names of kinds of tasks, such as the task names of a table.
        groups: (N,) number of each distinct prompt: rows of one group never fall on both sides of a split.
        scores: (N, M) success or quality 0..1; NaN where there is no outcome.
        costs: (N, M) USD that each attempt cost; NaN where unknown; None when no cost is known.
        expected_cost: (N, M) USD that the router expects an attempt to cost.
        weight: (N, M) how much each outcome counts for P(success), mean 1 over the outcomes of a model; 0 for those
            that were only seen because others failed. None: all the same.
        about: What a model card says of the source, as JSON values.
    """

    table: ModelTable
    states: FloatArray
    embedding: FloatArray
    task: IntArray
    complexity: FloatArray
    families: tuple[str, ...]
    groups: IntArray
    scores: NDArray[np.float64]
    costs: NDArray[np.float64] | None
    expected_cost: FloatArray
    weight: FloatArray | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, models = len(self.states), len(self.table)
        shapes = {
            "embedding": (count, self.embedding.shape[-1]),
            "task": (count,),
            "complexity": (count,),
            "groups": (count,),
            "scores": (count, models),
            "expected_cost": (count, models),
        }
        for name in ("costs", "weight"):
            if getattr(self, name) is not None:
                shapes[name] = (count, models)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.families) != count:
            raise ValueError(f"{len(self.families)} families for {count} tasks")
        known = self.scores[self.observed]
        if known.size and not (known.min() >= 0.0 and known.max() <= 1.0):
            raise ValueError("scores must lie in 0..1: divide them by the best that can be reached")

    def __len__(self) -> int:
        return len(self.states)

    @property
    def observed(self) -> BoolArray:
        """(N, M) where there is an outcome."""
        return ~np.isnan(self.scores)

    @property
    def marks(self) -> FloatArray:
        """(N, MARKS) text marks of the prompts."""
        layout = StateLayout(self.embedding.shape[1])
        return self.states[:, layout.marks : layout.task]

    @property
    def priced(self) -> bool:
        """Whether models differ in expected cost, so that money can matter."""
        return bool((self.expected_cost > 0.0).any())

    @property
    def cost_ref(self) -> float:
        """Mean expected USD of the dearest model; 0 without costs."""
        return float(self.expected_cost.mean(axis=0).max()) if len(self) else 0.0

    def paid(self) -> NDArray[np.float64]:
        """(N, M) USD of every attempt: what it cost, or is expected to cost where that is not known."""
        expected = self.expected_cost.astype(np.float64)
        return expected if self.costs is None else np.where(np.isnan(self.costs), expected, self.costs)

    def models(self, keep: IntArray) -> OutcomeData:
        """The same tasks with some of the models, by columns."""
        return replace(
            self,
            table=columns_of(self.table, keep),
            scores=self.scores[:, keep],
            costs=None if self.costs is None else self.costs[:, keep],
            expected_cost=self.expected_cost[:, keep],
            weight=None if self.weight is None else self.weight[:, keep],
        )

    def rows(self, keep: IntArray | BoolArray) -> OutcomeData:
        """The same models on some of the tasks (indices or a mask)."""
        index = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return replace(
            self,
            states=self.states[index],
            embedding=self.embedding[index],
            task=self.task[index],
            complexity=self.complexity[index],
            families=tuple(self.families[i] for i in index),
            groups=self.groups[index],
            scores=self.scores[index],
            costs=None if self.costs is None else self.costs[index],
            expected_cost=self.expected_cost[index],
            weight=None if self.weight is None else self.weight[index],
        )


def outcomes_of_prompts(
    prompts: Sequence[str],
    task_types: Sequence[TaskType | None],
    families: Sequence[str],
    scores: NDArray[np.float64],
    costs: NDArray[np.float64] | None,
    table: ModelTable,
    embedder: TextEmbedder,
    about: Mapping[str, Any] | None = None,
) -> OutcomeData:
    """Read prompts as the router would, for training with full information.

    Args:
        prompts: N prompts, none of them empty.
        task_types: N task types; None where the router shall infer it.
        families: N names of kinds of tasks.
        scores: (N, M) success 0..1, NaN where there is no outcome; columns in the order of `table`.
        costs: (N, M) USD, NaN where unknown, or None.
        table: The models.
        embedder: For the prompts; the one that serves.
        about: For the model card.
    """
    # Gates exclude what is unavailable or too small today; what a model did with a task is known all the same.
    snapshot = EngineSnapshot(replace(table, available=np.ones_like(table.available)), {})
    requests = [
        RouteRequest(request=ExecuteRequest(prompt=prompt, task_type=task_type))
        for prompt, task_type in zip(prompts, task_types, strict=True)
    ]
    batches = [
        prepare(requests[start : start + _BATCH], snapshot, embedder).batch for start in range(0, len(requests), _BATCH)
    ]
    if not batches:
        raise ValueError("there is no task to learn from")
    return OutcomeData(
        table=table,
        states=np.concatenate([batch.state for batch in batches]),
        embedding=np.concatenate([batch.embedding for batch in batches]),
        task=np.concatenate([batch.task for batch in batches]),
        complexity=np.concatenate([batch.complexity for batch in batches]),
        families=tuple(families),
        groups=group_numbers(prompt.strip().encode() for prompt in prompts),
        scores=np.asarray(scores, dtype=np.float64),
        costs=None if costs is None else np.asarray(costs, dtype=np.float64),
        expected_cost=np.concatenate([batch.cost_usd for batch in batches]),
        about=about or {},
    )


@dataclass(frozen=True, eq=False)
class LoggedDecisions:
    """Decisions (R) of a running router, each with the outcome of the one model it chose.

    Attributes:
        states: (R, S) as they were logged; the task's state before any attempt.
        embedding: (R, D) embeddings of the prompts.
        task: (R,) index into `TASK_TYPES`.
        complexity: (R,) 0..1.
        families: R names of kinds of tasks.
        episode: (R,) number of the episode that the decision belongs to.
        attempt: (R,) which attempt of the episode it was, from 0.
        chosen: (R,) column of the model.
        score: (R,) success or quality, 0..1.
        cost: (R,) USD, NaN where unknown.
        propensity: (R,) probability with which the model was chosen, above 0.
        expected_cost: (R, M) USD that the router expected of each model.
        counted: (R,) whether a first attempt speaks for P(success); not so if a cache chose it, or if attempts before
            it are not in the log. None: all do.
    """

    states: FloatArray
    embedding: FloatArray
    task: IntArray
    complexity: FloatArray
    families: tuple[str, ...]
    episode: IntArray
    attempt: IntArray
    chosen: IntArray
    score: NDArray[np.float64]
    cost: NDArray[np.float64]
    propensity: NDArray[np.float64]
    expected_cost: FloatArray
    counted: BoolArray | None = None


def outcomes_of_log(
    log: LoggedDecisions, table: ModelTable, *, most_weight: float = MOST_WEIGHT, about: Mapping[str, Any] | None = None
) -> OutcomeData:
    """Turn logged decisions into one row an episode, for training with only what was chosen.

    First attempts speak for P(success) of their model, by one over their propensity. Later ones happened only where
    others had failed: they tell how failures go together, and count nothing for P(success).

    Args:
        log: The decisions, in any order; if an episode tried a model twice, the later outcome stays.
        table: The models.
        most_weight: Bound of one over the propensity.
        about: For the model card.

    Raises:
        ValueError: A propensity is not above 0 and at most 1.
    """
    if log.propensity.size and not (log.propensity.min() > 0.0 and log.propensity.max() <= 1.0):
        raise ValueError("propensities must lie above 0 and at most at 1: log what the choice was drawn with")
    order = np.lexsort((log.attempt, log.episode))
    starts, row = np.unique(log.episode[order], return_index=True, return_inverse=True)[1:]
    first, column = order[starts], log.chosen[order]
    scores = np.full((len(first), len(table)), np.nan)
    costs = np.full_like(scores, np.nan)
    weight = np.zeros_like(scores, dtype=np.float32)
    scores[row, column] = log.score[order]
    costs[row, column] = log.cost[order]
    beginning = np.arange(len(first)), log.chosen[first]
    counted = 1.0 if log.counted is None else log.counted[first]
    weight[beginning] = counted * np.minimum(1.0 / log.propensity[first], most_weight)
    seen = np.maximum((weight > 0.0).sum(axis=0), 1)
    mean = weight.sum(axis=0) / seen
    weight = np.divide(weight, mean, out=weight, where=mean > 0.0)
    return OutcomeData(
        table=table,
        states=log.states[first],
        embedding=log.embedding[first],
        task=log.task[first],
        complexity=log.complexity[first],
        families=tuple(log.families[i] for i in first),
        groups=group_numbers(state.tobytes() for state in log.embedding[first]),
        scores=scores,
        costs=None if np.isnan(costs).all() else costs,
        expected_cost=log.expected_cost[first],
        weight=weight,
        about=about or {},
    )


def joined(parts: Sequence[OutcomeData]) -> OutcomeData:
    """Put the tasks of several sources under each other, the newest last, such as a log's fresh batch.

    Equal prompts of different parts are the same group only if their embeddings are equal, byte for byte.

    Raises:
        ValueError: There is none, or they speak of different models.
    """
    if not parts:
        raise ValueError("there is nothing to join")
    if any(part.table.refs != parts[0].table.refs for part in parts):
        raise ValueError("the parts speak of different models: give each the columns of one table first")
    if len(parts) == 1:
        return parts[0]
    costs = None
    if any(part.costs is not None for part in parts):
        costs = np.concatenate([np.full(p.scores.shape, np.nan) if p.costs is None else p.costs for p in parts])
    weight = None
    if any(part.weight is not None for part in parts):
        weight = np.concatenate([p.observed.astype(np.float32) if p.weight is None else p.weight for p in parts])
    embedding = np.concatenate([part.embedding for part in parts])
    return OutcomeData(
        table=parts[-1].table,
        states=np.concatenate([part.states for part in parts]),
        embedding=embedding,
        task=np.concatenate([part.task for part in parts]),
        complexity=np.concatenate([part.complexity for part in parts]),
        families=tuple(name for part in parts for name in part.families),
        groups=group_numbers(row.tobytes() for row in embedding),
        scores=np.concatenate([part.scores for part in parts]),
        costs=costs,
        expected_cost=np.concatenate([part.expected_cost for part in parts]),
        weight=weight,
        about={"parts": [dict(part.about) for part in parts]},
    )


def columns_of(table: ModelTable, keep: IntArray) -> ModelTable:
    """Some models of a table, in this order."""
    return ModelTable(
        refs=tuple(table.refs[i] for i in keep),
        input_usd=table.input_usd[keep],
        output_usd=table.output_usd[keep],
        request_usd=table.request_usd[keep],
        context_window=table.context_window[keep],
        max_output=table.max_output[keep],
        capabilities=table.capabilities[keep],
        regions=tuple(table.regions[i] for i in keep),
        success=table.success[:, keep],
        evidence=table.evidence[:, keep],
        latency_s=table.latency_s[keep],
        available=table.available[keep],
        cached_input_usd=table.cached_input_usd[keep],
    )


def group_numbers(keys: Iterable[bytes]) -> IntArray:
    """Number the distinct byte strings of an iterable in order of appearance; (N,)."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(sha256(key).digest(), len(numbers)) for key in keys], dtype=np.int64)


def held_out(groups: IntArray, share: float, rng: np.random.Generator) -> BoolArray:
    """Mark about this share of the rows, whole groups at a time; (N,)."""
    count = int(groups.max()) + 1 if len(groups) else 0
    chosen = rng.permutation(count)[: round(share * count)]
    return np.isin(groups, chosen)
