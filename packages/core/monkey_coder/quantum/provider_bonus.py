"""What a request says about providers, as successes added to every strategy's utility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import RouteRequest
from monkey_coder.ports import FloatArray
from monkey_coder.quantum.provider_manager import UNREACHABLE

FAILED_MALUS: Final = 2.0
"""Successes taken off the models of a provider that an attempt of this episode could not reach: more than what quality
can make up for, so that the next in line is somebody else, if there is anybody else."""


def provider_bonus(requests: Sequence[RouteRequest], table: ModelTable, preferred_bonus: float) -> FloatArray:
    """Add up what is for and against each model's provider.

    Args:
        requests: B requests.
        table: M models.
        preferred_bonus: Successes that a preferred provider's models are worth more.

    Returns:
        (B, M) successes; `FAILED_MALUS` less for providers that failed, the bonus more for preferred ones.
    """
    bonus: FloatArray = np.zeros((len(requests), len(table)), dtype=np.float32)
    for row, request in enumerate(requests):
        if not request.request.preferred_providers and not request.episode.attempts:
            continue
        # Sets, not np.isin: an array of strings is as wide as the longest, which the caller chooses.
        wanted = frozenset(request.request.preferred_providers)
        failed = frozenset(a.model.partition("/")[0] for a in request.episode.attempts if a.error_type in UNREACHABLE)
        if wanted or failed:
            bonus[row] = [
                preferred_bonus * (provider in wanted) - FAILED_MALUS * (provider in failed)
                for provider in table.providers
            ]
    return bonus
