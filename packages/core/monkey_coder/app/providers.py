"""`GET /v1/quantum/providers` and the override of one: health, breakers, manual drain."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from monkey_coder.bootstrap import Engine
from monkey_coder.errors import StoreUnavailableError, UnknownProviderError
from monkey_coder.models import OverrideRequest
from monkey_coder.quantum.provider_overrides import OVERRIDES, read_overrides

PROVIDERS_PATH: Final = "/v1/quantum/providers"
OVERRIDE_PATH: Final = "/v1/quantum/providers/{name}/override"

_KEPT: Final = 20
"""Earlier overrides of a provider that are kept, with their reasons."""
_TRIES: Final = 10
"""Times that an override is written while others write the same one."""


def provider_reports(engine: Engine) -> dict[str, Any]:
    """How every provider is doing, as this process sees it."""
    return {"providers": [_shown(asdict(report)) for report in engine.following.providers.report()]}


def override_provider(engine: Engine, name: str, wanted: OverrideRequest) -> dict[str, Any]:
    """Keep an override, for all processes; this one obeys it at once. May wait for the store.

    Raises:
        UnknownProviderError: The catalog has no model of that provider.
        StoreUnavailableError: It could not be kept.
    """
    if name not in engine.following.providers.providers:
        raise UnknownProviderError(name, engine.following.providers.providers)
    for _ in range(_TRIES):
        stands = engine.store.document(OVERRIDES, name)
        version = 0 if stands is None else stands.version
        if engine.store.put_document(OVERRIDES, name, wanted.model_dump_json().encode(), version, _KEPT):
            engine.following.providers.override(read_overrides(engine.store))
            engine.following.follower.publish_availability()
            (report,) = [r for r in engine.following.providers.report() if r.breaker.name == name]
            return _shown(asdict(report))
    raise StoreUnavailableError(f"others keep overriding {name!r}; try again")


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    breaker = report.pop("breaker")
    return {"name": breaker.pop("name"), **report, "breaker": breaker}
