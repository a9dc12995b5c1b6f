"""The attempts really made, as a file that anyone can score again from the tables alone."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from monkey_coder.errors import RouterError
from monkey_coder.evaluation.compare import Played, accepted_answers
from monkey_coder.evaluation.episodes import check_attempts
from monkey_coder.evaluation.preparation import Prepared
from monkey_coder.evaluation.protocol import STOP

Key = TypeVar("Key")
Value = TypeVar("Value")


class DecisionsError(RouterError):
    """A decisions file that does not fit the tables or breaks the rules of an episode; names file and line."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_decisions"


def write_decisions(path: Path, prepared: Prepared, played: Mapping[str, Played]) -> None:
    """Write one line per task, router, cost weight and seed: ``{"id", "router", "cost_weight", "seed", "models"}``.

    A name that ends in ``.gz`` is compressed.
    """
    with _open(path, "wb") as file:
        file.writelines(_lines(prepared, played))


def read_decisions(path: Path, prepared: Prepared) -> dict[str, Played]:
    """Read attempts back, for the same tables and settings as they were made with.

    Where several rows have one id, its lines are taken in the order of the rows.

    Raises:
        DecisionsError: A line cannot be read, names something unknown or breaks a rule; or decisions are missing.
    """
    reader = _Reader(prepared)
    with _open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                reader.take(raw)
            except (ValueError, KeyError, TypeError) as error:
                what = f"lacks the key {error}" if isinstance(error, KeyError) else error
                raise DecisionsError(f"{path}: line {number}: {what}") from error
    if not reader.tried:
        raise DecisionsError(f"{path}: holds no decision")
    for router, tried in reader.tried.items():
        missing = int((tried[..., 0] == STOP).sum())
        if missing:
            raise DecisionsError(
                f"{path}: {router} lacks {missing} of {tried[..., 0].size} decisions; were tables, split, seeds and "
                "attempts the same when it was written?"
            )
    return {router: Played(tried) for router, tried in reader.tried.items()}


class _Reader:
    """Fills the attempts of all routers line by line."""

    def __init__(self, prepared: Prepared) -> None:
        self.tried: dict[str, NDArray[np.int16]] = {}
        self._names, self._attempts = prepared.test.models, prepared.plan.attempts
        self._column = {model: i for i, model in enumerate(self._names)}
        self._weight = {weight: w for w, weight in enumerate(prepared.weights)}
        self._seed = {seed: seed for seed in range(prepared.plan.seeds)}
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, task in enumerate(prepared.test.ids):
            self._rows[task].append(row)
        self._seen: dict[tuple[str, int, int, str], int] = defaultdict(int)
        self._accepted = accepted_answers(prepared)
        self._shape = (len(self._weight), len(self._seed), len(prepared.test), self._attempts)

    def take(self, raw: bytes) -> None:
        """Note one line.

        Raises:
            ValueError: What is wrong with it (also as `KeyError` for a missing key, `TypeError` for a wrong type).
        """
        line = orjson.loads(raw)
        router, task = line["router"], line["id"]
        models = [_known(self._column, model, "model") for model in line["models"]]
        weight = _known(self._weight, line["cost_weight"], "cost weight")
        seed = _known(self._seed, line["seed"], "seed")
        rows = _known(self._rows, task, "test task")
        turn = self._seen[router, weight, seed, task]
        if turn == len(rows):
            raise ValueError(f"{task!r} was already decided by {router!r} at this cost weight and seed")
        self._seen[router, weight, seed, task] += 1
        check_attempts(self._names, self._accepted[seed, rows[turn]], models, self._attempts)
        if router not in self.tried:
            self.tried[router] = np.full(self._shape, STOP, dtype=np.int16)
        self.tried[router][weight, seed, rows[turn], : len(models)] = models


def _known(values: Mapping[Key, Value], key: Key, what: str) -> Value:
    if key not in values:
        raise ValueError(f"there is no {what} {key!r} in this comparison")
    return values[key]


def _open(path: Path, mode: str) -> IO[bytes]:
    return gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode)  # type: ignore[return-value]


def _lines(prepared: Prepared, played: Mapping[str, Played]) -> Iterator[bytes]:
    test = prepared.test
    for router, each in played.items():
        for w, weight in enumerate(prepared.weights):
            for seed in range(prepared.plan.seeds):
                for task, models in zip(test.ids, each.tried[w, seed].tolist(), strict=True):
                    yield _line(task, router, weight, seed, [test.models[m] for m in models if m != STOP])


def _line(task: str, router: str, weight: float, seed: int, models: Sequence[str]) -> bytes:
    line = {"id": task, "router": router, "cost_weight": weight, "seed": seed, "models": models}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
