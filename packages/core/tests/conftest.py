"""What all tests share: how property tests run, and the parts that are slow to load."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from monkey_coder.quantum.embedding import StaticEmbedder

# A loaded machine must not turn a slow example into a failure; the number of examples bounds the time instead.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def static_embedder() -> StaticEmbedder:
    """The embedder that serves, with its 30 MB of vectors."""
    return StaticEmbedder.load()
