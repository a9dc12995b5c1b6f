"""Outcome tables: reading them, and choosing the models and rows of a comparison.

A table is a ``.jsonl`` or ``.jsonl.gz`` file with one task a line::

    {"id", "domain", "task", "prompt", "scores": {model: 0..1}, "cost_usd": {model: USD} | null}

Other keys are ignored, but for those that name a repository (see `repository_of`). A line may lack some models.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from monkey_coder.errors import OutcomeTableError
from monkey_coder.models import TASK_TYPES, TaskType

COVERAGE: Final = 0.95
"""Share of the rows on which a model needs an outcome to take part."""

SHOWN_PROBLEMS: Final = 5

_TASK_WORDS: Final[Mapping[str, TaskType]] = {
    "debugging": "debugging",
    "debug": "debugging",
    "bugfix": "debugging",
    "repair": "debugging",
    "tests": "testing",
    "test": "testing",
    "testing": "testing",
    "refactoring": "refactoring",
    "refactor": "refactoring",
    "review": "code_review",
    "documentation": "documentation",
    "docs": "documentation",
    "architecture": "architecture",
    "security": "security",
    "performance": "performance",
    "optimization": "performance",
}
_INSTANCE = re.compile(r"(?:^|/)([\w.-]+?__[\w.-]+)-\d+$")


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """Outcomes of M models on N tasks, as arrays.

    Attributes:
        source: Where it came from, for messages.
        ids: N task ids, as the file has them.
        domains: N domain names.
        tasks: N task names.
        prompts: N prompt texts.
        repositories: N names of the repository a task is about, or None.
        models: M model names, opaque.
        scores: (N, M) true scores 0..1; NaN where a model has no outcome.
        costs: (N, M) USD, NaN where unknown; None when no file has costs.
        observed: (N, M) where there is an outcome: a score, and in a file with costs the cost too.
        skipped: Bad lines that were left out.
    """

    source: str
    ids: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    repositories: tuple[str | None, ...]
    models: tuple[str, ...]
    scores: NDArray[np.float64]
    costs: NDArray[np.float64] | None
    observed: NDArray[np.bool_]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keep: NDArray[np.intp] | NDArray[np.bool_]) -> OutcomeTable:
        """The same models on some of the rows (indices or a mask)."""
        index = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            domains=tuple(self.domains[i] for i in index),
            tasks=tuple(self.tasks[i] for i in index),
            prompts=tuple(self.prompts[i] for i in index),
            repositories=tuple(self.repositories[i] for i in index),
            scores=self.scores[index],
            costs=None if self.costs is None else self.costs[index],
            observed=self.observed[index],
        )

    def select(self, models: Sequence[str]) -> OutcomeTable:
        """The same rows with exactly these columns; a model that the table lacks has NaN everywhere."""
        column = {model: i for i, model in enumerate(self.models)}
        index = np.array([column.get(model, -1) for model in models], dtype=np.intp)
        known = index >= 0
        return replace(
            self,
            models=tuple(models),
            scores=np.where(known, self.scores[:, index], np.nan),
            costs=None if self.costs is None else np.where(known, self.costs[:, index], np.nan),
            observed=known & self.observed[:, index],
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """One checked line."""

    id: str
    domain: str
    task: str
    prompt: str
    repository: str | None
    scores: dict[str, float]
    costs: dict[str, float] | None


def task_type(name: str) -> TaskType:
    """Map the task name of a table to a task type, where the name says so; else ``general``."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in TASK_TYPES:
        return TASK_TYPES[TASK_TYPES.index(plain)]
    if plain in {"generation", "code_gen", "coding"}:
        return "code_generation"
    words = plain.split("_")
    return next((_TASK_WORDS[word] for word in words if word in _TASK_WORDS), "general")


def repository_of(row: Mapping[str, Any]) -> str | None:
    """Name the repository a line is about.

    It is the text under ``repo`` or ``repository``, at the top or inside ``meta``; else what an id in the manner of
    SWE-bench says (``swebench_verified/django__django-10097`` is ``django__django``); else None.
    """
    meta = row.get("meta")
    for place in (row, meta if isinstance(meta, Mapping) else {}):
        for key in ("repo", "repository"):
            name = place.get(key)
            if isinstance(name, str) and name.strip():
                return name.strip()
    match = _INSTANCE.search(str(row.get("id", "")))
    return match.group(1) if match else None


def read_table(path: Path, *, skip_bad: bool = False) -> OutcomeTable:
    """Read one file.

    Args:
        path: A ``.jsonl`` file, or gzip of one when the name ends in ``.gz``.
        skip_bad: Leave bad lines out and count them, instead of stopping.

    Raises:
        OutcomeTableError: The file cannot be read or holds no task, or a line is bad; the message names file and lines.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise OutcomeTableError(f"{path}: cannot be read: {error}") from error
    lines, problems = [], []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            lines.append(_check(raw))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems and not skip_bad:
        rest = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise OutcomeTableError(
            f"{path}: {'; '.join(problems[:SHOWN_PROBLEMS])}{rest}. "
            "Mend the file, or leave such lines out with --skip-bad"
        )
    if not lines:
        raise OutcomeTableError(f"{path}: holds no task")
    return _arrays(str(path), lines, len(problems))


def concatenate(tables: Sequence[OutcomeTable]) -> OutcomeTable:
    """Put the rows of several tables under each other; the models are the union, in order of appearance."""
    if len(tables) == 1:
        return tables[0]
    models = tuple(dict.fromkeys(model for table in tables for model in table.models))
    wide = [table.select(models) for table in tables]
    costs = None
    if any(table.costs is not None for table in wide):
        costs = np.vstack([np.full(t.scores.shape, np.nan) if t.costs is None else t.costs for t in wide])
    return OutcomeTable(
        source=", ".join(table.source for table in tables),
        ids=_join(table.ids for table in wide),
        domains=_join(table.domains for table in wide),
        tasks=_join(table.tasks for table in wide),
        prompts=_join(table.prompts for table in wide),
        repositories=tuple(name for table in wide for name in table.repositories),
        models=models,
        scores=np.vstack([table.scores for table in wide]),
        costs=costs,
        observed=np.vstack([table.observed for table in wide]),
        skipped=sum(table.skipped for table in tables),
    )


def common_models(tables: Sequence[OutcomeTable]) -> tuple[str, ...]:
    """Models with an outcome on at least 95% of the rows of every table, in the order of the first."""
    covered = [
        {model for model, share in zip(table.models, table.observed.mean(axis=0), strict=True) if share >= COVERAGE}
        for table in tables
    ]
    return tuple(model for model in tables[0].models if all(model in each for each in covered))


def complete_rows(table: OutcomeTable, models: Collection[str]) -> tuple[OutcomeTable, int]:
    """Drop the rows that miss an outcome of any of these models.

    Returns:
        The table without those rows (all its columns), and how many were dropped.
    """
    wanted = np.array([model in models for model in table.models])
    keep: NDArray[np.bool_] = np.all(table.observed[:, wanted], axis=1)
    return table.rows(keep), int((~keep).sum())


def _join(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(value for part in parts for value in part)


def _check(raw: bytes) -> _Line:
    """Parse one line.

    Raises:
        ValueError: What is wrong with it.
    """
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - all that is wrong with a line is one kind of error
    task_id, domain, task, prompt = (_text(row, key) for key in ("id", "domain", "task", "prompt"))
    if not task_id or not prompt.strip():
        raise ValueError("id and prompt must not be empty")
    scores = _numbers(row, "scores", upper=1.0)
    if scores is None:
        raise ValueError("scores must be an object of model: number")
    return _Line(task_id, domain, task, prompt, repository_of(row), scores, _numbers(row, "cost_usd", upper=math.inf))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is missing" if key not in row else f"{key} must be a text")  # noqa: TRY004 - as above
    return value


def _numbers(row: Mapping[str, Any], key: str, upper: float) -> dict[str, float] | None:
    """An object of model: number from 0 to `upper`, or None where it is null or missing."""
    values = row.get(key)
    if values is None:
        return None
    if not isinstance(values, dict):
        raise ValueError(f"{key} must be an object of model: number")  # noqa: TRY004 - as above
    for model, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= upper:
            span = "from 0 to 1" if upper == 1.0 else "of at least 0"
            raise ValueError(f"{key} of {model!r} must be a number {span}, not {value!r}")
    return values


def _arrays(source: str, lines: Sequence[_Line], skipped: int) -> OutcomeTable:
    models = tuple(dict.fromkeys(model for line in lines for model in line.scores))
    scores = _matrix([line.scores for line in lines], models)
    has_costs = any(line.costs for line in lines)
    costs = _matrix([line.costs or {} for line in lines], models) if has_costs else None
    return OutcomeTable(
        source=source,
        ids=tuple(line.id for line in lines),
        domains=tuple(line.domain for line in lines),
        tasks=tuple(line.task for line in lines),
        prompts=tuple(line.prompt for line in lines),
        repositories=tuple(line.repository for line in lines),
        models=models,
        scores=scores,
        costs=costs,
        observed=~np.isnan(scores) if costs is None else ~np.isnan(scores) & ~np.isnan(costs),
        skipped=skipped,
    )


def _matrix(cells: Sequence[Mapping[str, float]], models: Sequence[str]) -> NDArray[np.float64]:
    rows = [[row.get(model, math.nan) for model in models] for row in cells]
    return np.array(rows, dtype=np.float64).reshape(len(cells), len(models))
