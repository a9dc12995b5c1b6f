"""What a call costs: genai-prices by model id, from the data inside that package, never from the network.

A price may depend on the size of the prompt, the day, or the hour. One number per model is what the router
compares, so: of size tiers the first one counts (small prompts); of dated prices the one valid on the given
day; of hourly prices the dearest of that day, so that a budget holds at any hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from genai_prices import __version__ as _genai_prices_version
from genai_prices.data import providers
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    TieredPrices,
    TimeOfDateConstraint,
)

from monkey_coder.catalog.schema import PriceSpec

_MTOK = 1e6
_PER_THOUSAND = 1e3
_PROVIDERS: Final[Mapping[str, Provider]] = {provider.id: provider for provider in providers}


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of one model in USD.

    Attributes:
        input_usd: Per input token.
        output_usd: Per output token, thinking included.
        cached_input_usd: Per input token read from the provider's prompt cache; the input price where there
            is no discount.
        request_usd: Per call on top of the tokens.
        source: Where the numbers come from.
    """

    input_usd: float
    output_usd: float
    cached_input_usd: float
    request_usd: float
    source: str


class UnknownPriceError(LookupError):
    """No price is known, and none is given; the message says where was looked."""


def resolve_prices(ref: str, price_id: str | None, own: PriceSpec, on: date) -> Prices:
    """Find the prices of a model.

    Args:
        ref: The model ref; its provider and model are looked up unless `price_id` says otherwise.
        price_id: ``provider:model`` as genai-prices names them, or None.
        own: Prices from the catalog file; each replaces the looked-up one.
        on: The UTC day whose prices count.

    Returns:
        All prices, each finite and not negative.

    Raises:
        UnknownPriceError: Input or output price is neither given nor known, or `price_id` names nothing.
    """
    complete = own.input_mtok is not None and own.output_mtok is not None
    if complete and price_id is None:
        return _merge({}, own, source="catalog file")
    provider, _, model = (price_id or ref).partition(":" if price_id else "/")
    entry = _find(provider, model)
    known = _amounts(_standing_price(entry.prices, on))
    own_given = bool(own.model_dump(exclude_none=True))
    source = f"genai-prices {_genai_prices_version}, {provider}:{entry.id}"
    return _merge(known, own, source=f"catalog file over {source}" if own_given else source)


def _merge(known: Mapping[str, float], own: PriceSpec, source: str) -> Prices:
    input_mtok = own.input_mtok if own.input_mtok is not None else known.get("input_mtok")
    output_mtok = own.output_mtok if own.output_mtok is not None else known.get("output_mtok")
    if input_mtok is None or output_mtok is None:
        missing = "input" if input_mtok is None else "output"
        raise UnknownPriceError(f"{source} has no {missing} price")
    cached = own.cached_input_mtok
    if cached is None:
        # A discount on another input price would be a guess.
        cached = known.get("cache_read_mtok", input_mtok) if own.input_mtok is None else input_mtok
    request = own.request if own.request is not None else known.get("requests_kcount", 0.0) / _PER_THOUSAND
    return Prices(input_mtok / _MTOK, output_mtok / _MTOK, cached / _MTOK, request, source)


def _find(provider: str, model: str) -> ModelInfo:
    if provider not in _PROVIDERS:
        raise UnknownPriceError(f"genai-prices knows no provider {provider!r}{_hint(provider, _PROVIDERS)}")
    entry = _PROVIDERS[provider].find_model(model, all_providers=providers)
    if entry is None:
        hint = _hint(model, (candidate.id for candidate in _PROVIDERS[provider].models))
        raise UnknownPriceError(f"genai-prices knows no model {model!r} of {provider!r}{hint}")
    return entry


def _hint(name: str, known: Iterable[str]) -> str:
    matches = get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _standing_price(prices: ModelPrice | list[ConditionalPrice], on: date) -> ModelPrice:
    """The dearest price that is valid at some hour of the day; see the module's docstring."""
    if isinstance(prices, ModelPrice):
        return prices
    noon = datetime.combine(on, time(12), tzinfo=UTC)
    possible: list[ModelPrice] = []
    for item in reversed(prices):  # later entries take precedence
        if isinstance(item.constraint, TimeOfDateConstraint):
            possible.append(item.prices)
        elif item.constraint is None or item.constraint.active(noon):
            possible.append(item.prices)
            break
    return max(possible or [prices[0].prices], key=lambda price: sum(_amounts(price).values()))


def _amounts(price: ModelPrice) -> dict[str, float]:
    """The four prices that matter here, in genai-prices' units; the base of a tiered one."""
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "requests_kcount")
    given = {name: getattr(price, name) for name in names}
    return {
        name: float(value.base if isinstance(value, TieredPrices) else value)
        for name, value in given.items()
        if isinstance(value, Decimal | TieredPrices)
    }
