"""What a price depends on and what a price book answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from contracts.costs import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was done, as far as its price depends on it.

    `provider` is the configured name of who did it, `model` is empty when no model is known.
    `input_tokens` counts all of them, cached ones too: prices for long contexts depend on it.
    """

    provider: str
    model: str
    at: datetime
    service_tier: str | None = None
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """A known price for one token, request or call; `source` says where it comes from."""

    unit_price_usd: Decimal
    source: str


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price that could be relied on, and why. It never means free."""

    reason: str


Rates = Mapping[Unit, Rate]
"""Prices by unit. A unit that is missing has no known price; `reasoning_tokens` and `requests` are
only there when they are charged by themselves."""


class PriceBook(Protocol):
    """Knows prices. It answers None when it has never heard of the model or the tool, `Unpriced`
    when it knows them but not this case of them.
    """

    def token_rates(self, work: Work) -> Rates | Unpriced | None:
        """Return the prices of the tokens of a response."""
        ...

    def tool_rate(self, tool: str, work: Work) -> Rate | Unpriced | None:
        """Return the price of one call of a tool."""
        ...


class LayeredBook:
    """Asks several price books in turn: the first that knows the model or tool is believed."""

    def __init__(self, books: Sequence[PriceBook]) -> None:
        self._books = tuple(books)

    def token_rates(self, work: Work) -> Rates | Unpriced:
        """Return prices, or the reason why there are none."""
        for book in self._books:
            if (found := book.token_rates(work)) is not None:
                return found
        return Unpriced(f"no price known for model {work.model!r} of provider {work.provider!r}")

    def tool_rate(self, tool: str, work: Work) -> Rate | Unpriced:
        """Return the price of one call, or the reason why there is none."""
        for book in self._books:
            if (found := book.tool_rate(tool, work)) is not None:
                return found
        return Unpriced(f"no price configured for tool {tool!r} of {work.provider!r}")
