"""From tables to what is compared: common models, complete rows, splits, and what a router may see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import OutcomeTableError, SettingsError
from monkey_coder.evaluation import splits
from monkey_coder.evaluation.protocol import COST_WEIGHTS, Models, Tasks, TrainingView
from monkey_coder.evaluation.tables import (
    COVERAGE,
    OutcomeTable,
    common_models,
    complete_rows,
    concatenate,
    read_table,
    task_type,
)
from monkey_coder.evaluation.verifier import uniform
from monkey_coder.models import TASK_TYPES

SHOWN_MODELS: Final = 6


@dataclass(frozen=True)
class Plan:
    """What to compare, and how; contradictions are refused.

    Attributes:
        train: Tables to learn from.
        test: The table to measure on, unless one table is split.
        folds: Cross-validate the one table over so many folds.
        holdout: Or hold out this share of the one table, between 0 and 1.
        attempts: Most attempts of an episode, K.
        noise: Probability that a verdict of the verifier is wrong, 0..1.
        seeds: How many repetitions: seeds 0 to `seeds` - 1.
        priors: Declared prior success of new models, 0..1.
        placebo: Shuffle, in each test task, which model got which score and cost.
        skip_bad: Leave bad lines out and count them.
    """

    train: tuple[Path, ...]
    test: Path | None = None
    folds: int | None = None
    holdout: float | None = None
    attempts: int = 1
    noise: float = 0.0
    seeds: int = 1
    priors: Mapping[str, float] = field(default_factory=dict)
    placebo: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if not self.train:
            raise SettingsError("name at least one table with --train")
        if sum(way is not None for way in (self.test, self.folds, self.holdout)) != 1:
            raise SettingsError("say what to measure on, in one way: --test TABLE, --split K, or --holdout SHARE")
        if self.test is None and len(self.train) != 1:
            raise SettingsError("--split and --holdout divide one table: name exactly one with --train")
        if self.folds is not None and self.folds < 2:
            raise SettingsError("--split needs at least 2 folds")
        if self.holdout is not None and not 0.0 < self.holdout < 1.0:
            raise SettingsError("--holdout is a share between 0 and 1, such as 0.3")
        if self.attempts < 1 or self.seeds < 1:
            raise SettingsError("--attempts and --seeds are at least 1")
        if not 0.0 <= self.noise <= 1.0:
            raise SettingsError("--verifier-noise is a probability from 0 to 1")
        for model, prior in self.priors.items():
            if not 0.0 <= prior <= 1.0:
                raise SettingsError(f"the prior of {model!r} is a probability from 0 to 1, not {prior}")

    @property
    def test_source(self) -> Path:
        """The table that the test rows come from."""
        return self.train[0] if self.test is None else self.test


@dataclass(frozen=True)
class Part:
    """One training set and the test rows (indices into the test table) that it serves."""

    train: OutcomeTable
    test_rows: NDArray[np.intp]


@dataclass(frozen=True)
class Prepared:
    """All that is needed to play.

    Attributes:
        plan: What was asked for.
        test: The test rows in the order of the file, with exactly the models compared.
        parts: One, or one for each fold; together they serve every test row once.
        dropped: Rows of both tables that missed a model.
        has_costs: Whether both sides know costs; if not, they play no part.
        notes: What a reader of the results should know, in sentences.
    """

    plan: Plan
    test: OutcomeTable
    parts: tuple[Part, ...]
    dropped: int
    has_costs: bool
    notes: tuple[str, ...]

    @property
    def weights(self) -> tuple[float, ...]:
        """Cost weights to play: the grid, or 0 alone without costs."""
        return COST_WEIGHTS if self.has_costs else COST_WEIGHTS[:1]


def prepare(plan: Plan) -> Prepared:
    """Read the tables, choose models and rows, and split.

    Raises:
        OutcomeTableError: A table cannot be used, or nothing is left to train or test on.
        SettingsError: A declared prior is for a model that is not in the test table.
    """
    train = concatenate([read_table(path, skip_bad=plan.skip_bad) for path in plan.train])
    notes = [f"{train.skipped} bad lines of the training tables were left out"] if train.skipped else []
    if plan.test is None:
        models = _models(train, train, plan.priors, notes)
        whole, dropped = complete_rows(train.select(models), models)
        test, parts = _divide(whole, plan)
    else:
        other = read_table(plan.test, skip_bad=plan.skip_bad)
        if other.skipped:
            notes.append(f"{other.skipped} bad lines of the test table were left out")
        models = _models(train, other, plan.priors, notes)
        learned = [model for model in models if not _is_new(train, model)]
        test, dropped_test = complete_rows(other.select(models), models)
        kept, dropped_train = complete_rows(train.select(models), learned)
        dropped = dropped_test + dropped_train
        kept = _without_shared(kept, test, notes)
        parts = (Part(kept, np.arange(len(test))),)
    if len(test) == 0 or any(len(part.train) == 0 for part in parts):
        raise OutcomeTableError(
            f"{train.source}: {len(test)} test rows and {min((len(p.train) for p in parts), default=0)} training rows "
            + "; ".join(["are left; both are needed", *notes])
        )
    has_costs = test.costs is not None and all(_knows_costs(part.train) for part in parts)
    if plan.placebo:
        test = shuffle_outcomes(test)
    return Prepared(plan, test, parts, dropped, has_costs, tuple(notes))


def view(part: Part, prepared: Prepared) -> TrainingView:
    """What a router may learn from one part."""
    table, plan = part.train, prepared.plan
    costs = table.costs if prepared.has_costs else None
    models = describe_models(table.models, table.scores, costs, plan.priors)
    return TrainingView(
        tasks=describe_tasks(table),
        models=models,
        scores=table.scores,
        costs=None if costs is None else np.where(np.isnan(costs), models.price, costs),
        weights=prepared.weights,
        attempts=plan.attempts,
        noise=plan.noise,
        seeds=tuple(range(plan.seeds)),
    )


def describe_models(
    names: Sequence[str],
    scores: NDArray[np.float64],
    costs: NDArray[np.float64] | None,
    priors: Mapping[str, float],
) -> Models:
    """Means over the training rows; a model without any gets its declared prior, or the mean of all.

    Args:
        names: The M models.
        scores: (R, M), NaN where there is no outcome.
        costs: (R, M) USD, NaN likewise, or None.
        priors: Declared priors; they count only where there is no outcome.
    """
    mean, evidence = _column_means(scores)
    fallback = float(np.nanmean(mean)) if evidence.any() else 0.5
    declared = np.array([priors.get(name, fallback) for name in names])
    prior = np.where(evidence > 0, mean, declared)
    price, cost_ref = np.zeros(len(names)), 0.0
    if costs is not None:
        mean_cost, priced = _column_means(costs)
        price = np.where(priced > 0, mean_cost, np.nanmean(mean_cost))
        cost_ref = float(np.nanmax(mean_cost))
    return Models(tuple(names), prior, price, evidence, cost_ref)


def describe_tasks(table: OutcomeTable) -> Tasks:
    """What may be seen of the tasks of a table before any attempt."""
    types = np.array([TASK_TYPES.index(task_type(name)) for name in table.tasks], dtype=np.int64)
    return Tasks(table.prompts, table.tasks, table.domains, types)


def shuffle_outcomes(table: OutcomeTable) -> OutcomeTable:
    """Permute, in each row, which model got which (score, cost) pair; by a hash, so that anyone can repeat it."""
    draws = np.array([[uniform("placebo", task, model) for model in table.models] for task in table.ids])
    order = draws.reshape(table.scores.shape).argsort(axis=1)
    costs = None if table.costs is None else np.take_along_axis(table.costs, order, axis=1)
    return replace(table, scores=np.take_along_axis(table.scores, order, axis=1), costs=costs)


def _column_means(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean of the known values of each column (NaN where there is none), and how many there are."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count


def _models(train: OutcomeTable, test: OutcomeTable, priors: Mapping[str, float], notes: list[str]) -> tuple[str, ...]:
    """The models compared: the common ones, and those new to training that have a declared prior."""
    common = set(common_models([test, train]))
    for model in priors:
        if model not in test.models:
            raise SettingsError(f"--prior {model}: {test.source} has no such model; it has {', '.join(test.models)}")
        if model in common:
            notes.append(f"the declared prior of {model} was not used: its training rows say more")
        elif model not in common_models([test]):
            raise SettingsError(f"--prior {model}: it has an outcome on less than {COVERAGE:.0%} of the test rows")
    models = tuple(model for model in test.models if model in common or model in priors)
    left_out = [m for m in dict.fromkeys((*train.models, *test.models)) if m not in models]
    if left_out:
        shown = ", ".join(left_out[:SHOWN_MODELS]) + (", ..." if len(left_out) > SHOWN_MODELS else "")
        notes.append(f"{len(left_out)} models were left out, for lack of outcomes in one of the tables: {shown}")
    if not models:
        raise OutcomeTableError(
            f"{train.source} and {test.source} have no model in common with outcomes on {COVERAGE:.0%} of the rows"
        )
    return models


def _is_new(train: OutcomeTable, model: str) -> bool:
    return model not in common_models([train])


def _divide(table: OutcomeTable, plan: Plan) -> tuple[OutcomeTable, tuple[Part, ...]]:
    if plan.folds is None:
        test = splits.holdout(table.prompts, plan.holdout or 0.0)
        return table.rows(test), (Part(table.rows(~test), np.arange(int(test.sum()))),)
    fold = splits.folds(table.prompts, plan.folds)
    parts = [Part(table.rows(fold != f), np.flatnonzero(fold == f)) for f in range(plan.folds) if (fold == f).any()]
    return table, tuple(parts)


def _without_shared(train: OutcomeTable, test: OutcomeTable, notes: list[str]) -> OutcomeTable:
    """Training rows whose prompt is not in the test table."""
    tested = {prompt.strip() for prompt in test.prompts}
    shared = np.array([prompt.strip() in tested for prompt in train.prompts], dtype=np.bool_)
    if shared.any():
        notes.append(f"{int(shared.sum())} training rows were left out, because their prompts are in the test table")
    return train.rows(~shared)


def _knows_costs(table: OutcomeTable) -> bool:
    """Whether every model with outcomes has a known cost somewhere."""
    if table.costs is None:
        return False
    scored, priced = (~np.isnan(table.scores)).any(axis=0), (~np.isnan(table.costs)).any(axis=0)
    return bool((priced | ~scored).all() and priced.any())
