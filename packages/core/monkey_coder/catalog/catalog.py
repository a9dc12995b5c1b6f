"""The catalog: the models that may be chosen, from the default file, an operator's own, or both merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monkey_coder.catalog.prices import Prices, UnknownPriceError, resolve_prices
from monkey_coder.catalog.reading import check_catalog, did_you_mean, parse_yaml
from monkey_coder.catalog.schema import ModelSpec
from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.errors import CatalogError, UnknownModelError
from monkey_coder.models import TASK_TYPES

PriceTier = Literal["cheap", "middle", "dear"]

_TOP_LEVEL = ("extends", "remove", "models", "providers")
_DEFAULT_FILE = "models.yaml"
_CHEAP_BELOW, _DEAR_FROM = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model that may be chosen.

    Attributes:
        ref: ``provider/model``.
        spec: Limits, capabilities, tags and priors as the file gives them.
        prices: USD per token and per call.
    """

    ref: str
    spec: ModelSpec
    prices: Prices

    @property
    def provider(self) -> str:
        """The part of the ref before the first slash."""
        return self.ref.partition("/")[0]

    @property
    def price_tier(self) -> PriceTier:
        """By USD per million tokens at three parts input and one part output: cheap below 1, dear from 3 on."""
        blended = (3 * self.prices.input_usd + self.prices.output_usd) / 4 * 1e6
        if blended < _CHEAP_BELOW:
            return "cheap"
        return "middle" if blended < _DEAR_FROM else "dear"

    def as_json(self) -> dict[str, Any]:
        """The model as JSON values; money in USD per million tokens, ``request`` in USD per call."""
        return {
            "ref": self.ref,
            "context_window": self.spec.context_window,
            "max_output": self.spec.max_output,
            "capabilities": {name: name in self.spec.capabilities for name in CAPABILITIES},
            "regions": sorted(self.spec.regions),
            "prices": {
                "input_mtok": _per_mtok(self.prices.input_usd),
                "output_mtok": _per_mtok(self.prices.output_usd),
                "cached_input_mtok": _per_mtok(self.prices.cached_input_usd),
                "request": self.prices.request_usd,
                "tier": self.price_tier,
                "source": self.prices.source,
            },
            "quality": {"default": self.spec.quality.default, **self.spec.quality.by_task()},
            "evidence": self.spec.evidence,
            "latency_s": self.spec.latency_s,
            "deployment_of": self.spec.deployment_of,
            "weight": self.spec.weight,
            "sources": self.spec.sources.model_dump(),
            "note": self.spec.note,
        }


@dataclass(frozen=True)
class Catalog:
    """The models that may be chosen, in the order of the file.

    Attributes:
        models: At least one; refs are unique.
        origin: The file, or ``default catalog``.
        health_urls: What active checks ask of providers, by name; absent: they are not checked.
    """

    models: tuple[CatalogModel, ...]
    origin: str
    health_urls: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def refs(self) -> tuple[str, ...]:
        """All refs, in order."""
        return tuple(model.ref for model in self.models)

    @cached_property
    def version(self) -> str:
        """Hash of every number and tag the router sees, prices included; the same in every process."""
        content = json.dumps([_decisive(model) for model in self.models], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def get(self, ref: str, field: str = "model") -> CatalogModel:
        """Return the model of that ref.

        Raises:
            UnknownModelError: It is not in the catalog; `field` names the place in the error.
        """
        if ref in self._by_ref:
            return self._by_ref[ref]
        raise UnknownModelError(field, ref, get_close_matches(ref, self.refs, n=2))

    @cached_property
    def _by_ref(self) -> dict[str, CatalogModel]:
        return {model.ref: model for model in self.models}

    def table(self) -> ModelTable:
        """The catalog as arrays, one column per model; all models available."""
        specs = [model.spec for model in self.models]
        prices = [model.prices for model in self.models]
        success = np.array([list(spec.quality.by_task().values()) for spec in specs], dtype=np.float32).T
        evidence = np.array([spec.evidence for spec in specs], dtype=np.float32)
        return ModelTable(
            refs=self.refs,
            input_usd=np.array([price.input_usd for price in prices]),
            output_usd=np.array([price.output_usd for price in prices]),
            cached_input_usd=np.array([price.cached_input_usd for price in prices]),
            request_usd=np.array([price.request_usd for price in prices]),
            context_window=np.array([spec.context_window for spec in specs], dtype=np.int64),
            max_output=np.array([spec.max_output for spec in specs], dtype=np.int64),
            capabilities=np.array([[name in spec.capabilities for name in CAPABILITIES] for spec in specs]),
            regions=tuple(frozenset(spec.regions) for spec in specs),
            success=np.ascontiguousarray(success),
            evidence=np.tile(evidence, (len(TASK_TYPES), 1)),
            latency_s=np.array([spec.latency_s for spec in specs], dtype=np.float32),
            available=np.ones(len(specs), dtype=np.bool_),
            deployment_of=tuple(spec.deployment_of for spec in specs),
            weight=np.array([spec.weight for spec in specs]),
        )


def load_catalog(path: Path | None = None, *, on: date | None = None) -> Catalog:
    """Load the default catalog, or an operator's own file, which replaces or extends it.

    Args:
        path: The file; None for the default catalog.
        on: The UTC day whose prices count; None for today.

    Returns:
        The catalog, with a price for every model.

    Raises:
        CatalogError: The file cannot be read or used; the message names file, model, field and the mend.
    """
    day = on or datetime.now(tz=UTC).date()
    default = parse_yaml(files(__package__).joinpath(_DEFAULT_FILE).read_text(encoding="utf-8"), "default catalog")
    if path is None:
        return build_catalog(default["models"], "default catalog", day)
    return parse_catalog(text_of(path), str(path), day, default["models"])


def text_of(path: Path) -> str:
    """Read a file with models.

    Raises:
        CatalogError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def parse_catalog(text: str, origin: str, on: date, default: Mapping[str, Any]) -> Catalog:
    """Build the catalog that an operator's file describes; the pure part of `load_catalog`.

    Args:
        text: The file, in YAML.
        origin: What to call it in errors.
        on: The UTC day whose prices count.
        default: Raw models of the catalog that ``extends: default`` means.

    Returns:
        The catalog.

    Raises:
        CatalogError: As `load_catalog`.
    """
    raw = parse_yaml(text, origin)
    for key in raw:
        if key not in _TOP_LEVEL:
            hint = did_you_mean(str(key), _TOP_LEVEL) or f"; known are {', '.join(_TOP_LEVEL)}"
            raise CatalogError(f"{origin}: {key}: is not a field{hint}")
    if raw.get("extends") not in ("none", "default"):
        given = f"is {raw['extends']!r}" if "extends" in raw else "is missing"
        raise CatalogError(
            f"{origin}: extends: {given}; write 'extends: default' to add to the default catalog,"
            " or 'extends: none' to replace it"
        )
    models = raw.get("models") or {}
    if not isinstance(models, dict):
        raise CatalogError(f"{origin}: models: must be a mapping from provider/model to its fields")
    providers = raw.get("providers") or {}
    if not isinstance(providers, dict):
        raise CatalogError(f"{origin}: providers: must be a mapping from provider to its fields")
    if raw["extends"] == "none":
        if raw.get("remove"):
            raise CatalogError(f"{origin}: remove: has nothing to remove from; leave it out, or write extends: default")
        return build_catalog(models, origin, on, providers=providers)
    removed = _removed(raw.get("remove") or [], models, default, origin)
    kept = {ref: fields for ref, fields in default.items() if ref not in removed}
    return build_catalog(_merged(kept, models), origin, on, tuple(default), providers)


def _removed(remove: object, models: Mapping[str, Any], default: Mapping[str, Any], origin: str) -> frozenset[str]:
    if not isinstance(remove, list) or not all(isinstance(ref, str) for ref in remove):
        raise CatalogError(f"{origin}: remove: must be a list of model refs, such as [openai/gpt-6-luna]")
    for ref in remove:
        if ref not in default:
            raise CatalogError(f"{origin}: remove: {ref!r} is not in the default catalog{did_you_mean(ref, default)}")
        if ref in models:
            raise CatalogError(f"{origin}: remove: {ref!r} is also described under models; keep one of the two")
    return frozenset(remove)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: mappings key by key, all other values as a whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def build_catalog(
    models: Mapping[str, Any],
    origin: str,
    on: date,
    known_refs: tuple[str, ...] = (),
    providers: Mapping[str, Any] | None = None,
) -> Catalog:
    """Check raw models and find their prices.

    Args:
        models: Fields by ref, as a file has them.
        origin: What to call their place in errors.
        on: The UTC day whose prices count.
        known_refs: Further models, to recognise a misspelt ref.
        providers: Raw facts about providers, by name.

    Raises:
        CatalogError: As `load_catalog`.
    """
    checked = check_catalog(models, origin, known_refs, providers)
    problems: list[str] = []
    built: list[CatalogModel] = []
    for ref, spec in checked.models.items():
        try:
            built.append(CatalogModel(ref, spec, resolve_prices(ref, spec.price_id, spec.prices, on)))
        except UnknownPriceError as error:
            problems.append(
                f"models.{ref}: no known price: {error}; set prices: {{input_mtok: ..., output_mtok: ...}}"
                " in USD per million tokens, or price_id: provider:model"
            )
    if problems:
        raise CatalogError("\n  ".join([f"{origin}: {problems[0]}", *problems[1:]]))
    return Catalog(tuple(built), origin, {name: spec.health_url for name, spec in checked.providers.items()})


def _decisive(model: CatalogModel) -> dict[str, Any]:
    """The model without words: what can change a decision."""
    shown = model.as_json()
    prices = {name: value for name, value in shown["prices"].items() if name != "source"}
    return {name: value for name, value in shown.items() if name not in ("sources", "note")} | {"prices": prices}


def _per_mtok(usd: float) -> float:
    return round(usd * 1e6, 9)
