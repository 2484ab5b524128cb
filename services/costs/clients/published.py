"""Published prices from the data inside `genai-prices`; never from the network."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from contracts.costs import Unit
from services.costs.domain.prices import Rate, Rates, Unpriced, Work

_VERSION = f"genai-prices {genai_prices.__version__}"
_STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "on_demand"})
_CACHED_MODELS = 4096
_PER_MILLION = Decimal(1_000_000)
_PER_THOUSAND = Decimal(1_000)

_TOKEN_KEYS: dict[Unit, tuple[str, ...]] = {
    # Cached tokens cost what plain ones do where no price of their own is published.
    "input_tokens": ("input_mtok",),
    "cached_input_tokens": ("cache_read_mtok", "input_mtok"),
    "cache_write_tokens": ("cache_write_mtok", "input_mtok"),
    "output_tokens": ("output_mtok",),
    "reasoning_tokens": ("output_reasoning_mtok",),
}
_TOOL_KEYS = {"web_search": "web_searches_kcount", "file_search": "storage_searches_kcount"}


class PublishedPrices:
    """A price book of what providers publish. A configured provider is looked up by its name, and
    where that tells nothing, the model by its own.
    """

    def token_rates(self, work: Work) -> Rates | Unpriced | None:
        """Return the prices per token, for the service tier and the length of the context."""
        prices = _prices(work)
        if prices is None or isinstance(prices, Unpriced):
            return prices
        rates: dict[Unit, Rate] = {}
        for unit, keys in _TOKEN_KEYS.items():
            amounts = (prices.amount(key, work.input_tokens) for key in keys)
            found = next((amount for amount in amounts if amount is not None), None)
            if found is not None:
                rates[unit] = Rate(found / _PER_MILLION, prices.source)
        if (per_request := prices.amount("requests_kcount", work.input_tokens)) is not None:
            rates["requests"] = Rate(per_request / _PER_THOUSAND, prices.source)
        return rates

    def tool_rate(self, tool: str, work: Work) -> Rate | None:
        """Return the price of a search by the provider's own tools; no tier changes it."""
        prices = _prices(replace(work, service_tier=None)) if tool in _TOOL_KEYS else None
        if not isinstance(prices, _Prices):
            return None
        amount = prices.amount(_TOOL_KEYS[tool], work.input_tokens)
        return Rate(amount / _PER_THOUSAND, prices.source) if amount is not None else None


class _Prices:
    def __init__(self, prices: ModelPrice, source: str) -> None:
        self._prices = prices
        self.source = source

    def amount(self, key: str, input_tokens: int) -> Decimal | None:
        price: Decimal | TieredPrices | None = getattr(self._prices, key)
        if not isinstance(price, TieredPrices):
            return price
        # The longest threshold that is passed decides for all tokens, as providers charge it.
        passed = [tier.price for tier in price.tiers if input_tokens > tier.start]
        return passed[-1] if passed else price.base


def _prices(work: Work) -> _Prices | Unpriced | None:
    found = _find(work.provider, work.model)
    if found is None:
        return None
    provider, model = found
    source = f"{_VERSION}: {provider.id}/{model.id}"
    tier = (work.service_tier or "").lower()
    if tier in _STANDARD_TIERS:
        return _Prices(model.get_prices(work.at), source)
    # genai-prices gives the standard price for a tier that it does not know: ask before.
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    published = any(
        variant.when == context
        and (variant.constraint is None or variant.constraint.active(work.at))
        for variant in model.price_variants or ()
    )
    # What a provider charges for another one's model says nothing about its tiers.
    if not published or not any(model is own for own in provider.models):
        return Unpriced(f"no price known for service tier {tier!r} of {provider.id}/{model.id}")
    return _Prices(model.get_prices(work.at, context), f"{source} ({tier})")


@lru_cache(maxsize=_CACHED_MODELS)
def _find(provider_name: str, model_name: str) -> tuple[Provider, ModelInfo] | None:
    named = find_provider_by_id(providers, provider_name) if provider_name else None
    matching = (
        p for p in providers if p.model_match and p.model_match.is_match(model_name.lower())
    )
    for provider in (named, next(matching, None)):
        model = provider and provider.find_model(model_name, all_providers=providers)
        if provider and model and model.prices:
            return provider, model
    return None
