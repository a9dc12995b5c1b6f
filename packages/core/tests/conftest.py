"""What all tests share: how property tests run, and the parts that are slow to load."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from monkey_coder.ports import Clock
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.storage.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from monkey_coder.quantum.training_pipeline import TrainedPolicy

# What commands print must not depend on who runs the tests: a terminal's width, or a CI that asks for colours.
for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)
os.environ["COLUMNS"] = "80"

# A loaded machine must not turn a slow example into a failure; the number of examples bounds the time instead. Every
# run tries the same examples, so that a test fails for what was changed; `--hypothesis-profile searching` tries others.
settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("searching"), derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def clock() -> Clock:
    """Seconds since 1970, for `store`; modules with another time put theirs in its place."""
    return time.time


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    """A store in a file of its own."""
    with closing(SqliteStore(tmp_path / "store", clock)) as opened:
        yield opened


@pytest.fixture(scope="session")
def static_embedder() -> StaticEmbedder:
    """The embedder that serves, with its 30 MB of vectors."""
    return StaticEmbedder.load()


@pytest.fixture(scope="session")
def trained_policy() -> TrainedPolicy:
    """A policy trained in the world of `colours`, for episodes of up to three attempts."""
    from colours import colour_tasks, quick  # torch takes seconds to import, and most tests do without it

    from monkey_coder.quantum.training_pipeline import train

    return train(colour_tasks(240), quick())
