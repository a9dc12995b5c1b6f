"""What a call costs, looked up in the price data that is installed with the package."""

from __future__ import annotations

from datetime import UTC, date, time
from decimal import Decimal

import pytest
from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, TimeOfDateConstraint

from monkey_coder.catalog import prices as price_module
from monkey_coder.catalog.prices import UnknownPriceError, resolve_prices
from monkey_coder.catalog.schema import PriceSpec

DAY = date(2026, 11, 1)


def resolve(ref: str, on: date = DAY, price_id: str | None = None, **prices: float) -> price_module.Prices:
    return resolve_prices(ref, price_id, PriceSpec(**prices), on)


def test_a_dated_price_counts_from_its_day() -> None:
    # Google listed this model at 2 / 10 USD per Mtok until the end of November 2026, and at twice that afterwards.
    before, after = (
        resolve("google/gemini-4-argon", date(2026, 11, 30)),
        resolve("google/gemini-4-argon", date(2026, 12, 1)),
    )
    assert after.input_usd == pytest.approx(2 * before.input_usd)
    assert after.output_usd == pytest.approx(2 * before.output_usd)


def test_of_hourly_prices_the_dearest_counts() -> None:
    prices = resolve("deepseek/deepseek-chat")  # half of it from 16:30 to 00:30 UTC
    assert (prices.input_usd, prices.output_usd) == pytest.approx((0.27e-6, 1.1e-6))


def test_of_size_tiers_the_first_counts() -> None:
    prices = resolve("x-ai/grok-4.7")  # 4 / 12 from 200,000 prompt tokens on
    assert (prices.input_usd, prices.output_usd) == pytest.approx((2e-6, 6e-6))


def test_a_price_per_request_is_in_usd_per_call() -> None:
    assert resolve("perplexity/sonar-pro").request_usd == pytest.approx(0.014)  # 14 USD per thousand


def test_a_price_id_points_elsewhere() -> None:
    prices = resolve("proxy/fast", price_id="anthropic:claude-haiku-4-5")
    assert prices.input_usd == pytest.approx(1e-6)
    assert "anthropic:claude-haiku-4-5" in prices.source


def test_a_model_with_further_slashes_is_looked_up_whole() -> None:
    assert resolve("groq/openai/gpt-oss-120b").output_usd == pytest.approx(0.6e-6)


def test_an_own_input_price_has_no_borrowed_cache_discount() -> None:
    prices = resolve("anthropic/claude-haiku-4-5", input_mtok=0.5)
    assert prices.cached_input_usd == prices.input_usd == pytest.approx(0.5e-6)


def test_free_models_are_allowed() -> None:
    prices = resolve("ollama/anything", input_mtok=0, output_mtok=0)
    assert prices.input_usd == prices.output_usd == prices.cached_input_usd == 0


@pytest.mark.parametrize(
    ("ref", "price_id", "told"),
    [
        ("opnai/gpt-6-luna", None, "no provider 'opnai' (did you mean openai?)"),
        ("zzzz/model", None, "no provider 'zzzz'"),
        ("anthropic/claude-haiku-9", None, "no model 'claude-haiku-9' of 'anthropic'"),
        ("me/embedder", "voyageai:voyage-code-3", "has no output price"),
    ],
)
def test_an_unknown_price_says_where_was_looked(ref: str, price_id: str | None, told: str) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        resolve(ref, price_id=price_id)
    assert told in str(caught.value)


def test_a_later_price_for_the_whole_day_ends_the_hourly_ones() -> None:
    def cost(amount: str) -> ModelPrice:
        return ModelPrice(input_mtok=Decimal(amount), output_mtok=Decimal(amount))

    hourly = TimeOfDateConstraint(start_time=time(1, tzinfo=UTC), end_time=time(4, tzinfo=UTC))
    prices = [
        ConditionalPrice(prices=cost("1")),
        ConditionalPrice(hourly, prices=cost("9")),
        ConditionalPrice(StartDateConstraint(date(2026, 10, 1)), prices=cost("2")),
    ]
    for day, expected in ((date(2026, 9, 30), 9), (date(2026, 10, 1), 2)):
        standing = price_module._standing_price(prices, day)
        assert standing.input_mtok == expected
    future = [ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=cost("3"))]
    assert price_module._standing_price(future, DAY).input_mtok == 3
