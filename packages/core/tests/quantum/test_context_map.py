"""What learning online reads of a request: fixed, bounded, and enough to tell requests apart."""

from __future__ import annotations

import numpy as np
from builders import HashEmbedder, ask, table

from monkey_coder.quantum.context_map import DIRECTIONS, ContextMap
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.snapshot import EngineSnapshot


def read(*requests) -> np.ndarray:
    embedder = HashEmbedder(8)
    return ContextMap.of(8).read(prepare(list(requests), EngineSnapshot(table(), {}), embedder).batch.state)


def test_it_is_the_same_in_every_process_and_ends_with_a_one() -> None:
    first, again = ContextMap.of(256), ContextMap.of(256)
    np.testing.assert_array_equal(first.projection, again.projection)
    assert first.projection.shape == (256, DIRECTIONS)
    rows = read(ask("Fix the race"), ask("x" * 100_000), ask("\n"))
    assert rows.shape == (3, ContextMap.of(8).size)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[:, -1], 1.0)


def test_distances_between_embeddings_are_kept_roughly() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((40, 256)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    short = points @ ContextMap.of(256).projection * np.sqrt(256 / DIRECTIONS)
    pairs = np.triu_indices(40, 1)
    true, kept = (np.linalg.norm(rows[pairs[0]] - rows[pairs[1]], axis=1) for rows in (points, short))
    assert np.abs(kept / true - 1.0).max() < 0.45


def test_prompts_task_types_and_length_are_told_apart() -> None:
    same, again, other = read(ask("Fix it"), ask("Fix it"), ask("Write a poem"))
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - other).max() > 0.1
    short, long = read(ask("a b", task_type="testing"), ask("a b " * 500, task_type="testing"))
    assert np.abs(short - long).max() > 1.0
    one, two = read(ask("Fix it", task_type="testing"), ask("Fix it", task_type="security"))
    assert np.abs(one - two).max() > 1.0
