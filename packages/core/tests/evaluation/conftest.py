"""Self-made tables and a tiny embedder for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from monkey_coder.evaluation.preparation import describe_models
from monkey_coder.evaluation.protocol import Tasks, TrainingView
from monkey_coder.ports import FloatArray

Rows = Sequence[Mapping[str, Any]]


@dataclass
class WordEmbedder:
    """One axis per known word; a prompt points to the sum of its words."""

    words: tuple[str, ...] = ("red", "blue", "green")

    @property
    def dimensions(self) -> int:
        return len(self.words)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        counts = np.array([[text.split().count(word) for word in self.words] for text in texts], dtype=np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """Make one line of a table."""

    def make(number: int, scores: Mapping[str, float], costs: Mapping[str, float] | None = None, **more: Any) -> dict:
        line = {"id": f"t/{number}", "domain": "coding", "task": "generation", "prompt": f"red prompt {number}"}
        return line | {"scores": dict(scores), "cost_usd": costs} | more

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write lines as a table file."""

    def make(rows: Rows, name: str = "table.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
        return path

    return make


@pytest.fixture
def random_rows(row: Callable[..., dict[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    """Make tasks of two colours; `cheap` does the red ones, `dear` nearly all, `dull` few; without skill by chance."""

    def make(count: int, seed: int = 0, *, costs: bool = True) -> list[dict[str, Any]]:
        rng = np.random.default_rng(seed)
        rows = []
        for i in range(count):
            red = rng.random() < 0.5
            chances = {"cheap": 0.9 if red else 0.1, "dear": 0.85, "dull": 0.3}
            scores = {model: float(rng.random() < p) for model, p in chances.items()}
            prices = {"cheap": 0.01, "dear": 0.2, "dull": 0.05}
            paid = {model: price * float(rng.uniform(0.5, 1.5)) for model, price in prices.items()}
            prompt = f"{'red' if red else 'blue'} task {seed} {i}"
            rows.append(row(i, scores, paid if costs else None, prompt=prompt, id=f"t{seed}/{i}"))
        return rows

    return make


@pytest.fixture(scope="session")
def training() -> Callable[..., TrainingView]:
    """Make a training view from arrays."""

    def make(
        scores: Sequence[Sequence[float]],
        costs: Sequence[Sequence[float]] | None = None,
        *,
        prompts: Sequence[str] | None = None,
        attempts: int = 1,
        noise: float = 0.0,
        weights: tuple[float, ...] = (0.0, 1.0),
        priors: Mapping[str, float] | None = None,
    ) -> TrainingView:
        table = np.array(scores, dtype=np.float64)
        paid = None if costs is None else np.array(costs, dtype=np.float64)
        count = len(table)
        models = describe_models([f"m{i}" for i in range(table.shape[1])], table, paid, priors or {})
        texts = tuple(prompts or [f"prompt {i}" for i in range(count)])
        tasks = Tasks(texts, ("generation",) * count, ("coding",) * count, np.zeros(count, dtype=np.int64))
        return TrainingView(tasks, models, table, paid, weights, attempts, noise, (0,))

    return make
