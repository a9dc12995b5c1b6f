"""What a batch rests on: one value, whose derived parts fit its table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from builders import Model, table

from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.snapshot import DEFAULT_EPSILON, EngineSnapshot, LiveSnapshot
from monkey_coder.quantum.state_encoder import encode_models

TABLE = table(Model("openrouter/vendor/model-1"), Model("a/b"))


def test_features_are_those_of_its_own_table() -> None:
    np.testing.assert_array_equal(EngineSnapshot(TABLE, {}).model_features, encode_models(TABLE))


def test_every_task_type_is_explored_a_little_by_default() -> None:
    snapshot = EngineSnapshot(TABLE, {})
    assert dict(snapshot.epsilon) == dict.fromkeys(TASK_TYPES, DEFAULT_EPSILON)
    assert snapshot.policy_version is None


def test_nobody_can_change_it_under_a_running_batch() -> None:
    snapshot = EngineSnapshot(TABLE, {})
    with pytest.raises(FrozenInstanceError):
        snapshot.collapse = "combined"  # type: ignore[misc]
    with pytest.raises(TypeError):
        snapshot.epsilon["general"] = 1.0  # type: ignore[index]


def test_changes_made_at_the_same_time_are_all_kept() -> None:
    live = LiveSnapshot(EngineSnapshot(table=table(), strategies={}, config_version=0))

    def count() -> None:
        for _ in range(200):
            live.update(lambda now: replace(now, config_version=now.config_version + 1))

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(count)
    assert live().config_version == 800
