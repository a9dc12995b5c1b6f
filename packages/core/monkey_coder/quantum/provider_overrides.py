"""What operators set for providers, as all processes read it from the store."""

from __future__ import annotations

import logging
from typing import Final

from pydantic import ValidationError

from monkey_coder.models import OverrideRequest
from monkey_coder.quantum.provider_manager import Override
from monkey_coder.storage.port import Store

OVERRIDES: Final = "provider_override"
"""Kind of the documents in which operators' overrides are kept, as they were sent, one per provider."""

_log = logging.getLogger(__name__)


def read_overrides(store: Store) -> dict[str, Override]:
    """What operators set, by provider.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found: dict[str, Override] = {}
    for name, document in store.documents(OVERRIDES).items():
        try:
            found[name] = OverrideRequest.model_validate_json(document.value).state
        except ValidationError as error:  # of another release: automatic, and no reason to stop learning
            _log.warning("the override of %s cannot be read: %s", name, error)
    return found
