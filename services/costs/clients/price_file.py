"""Price files: an operator's own prices, and ours for hosted tools (prices.toml)."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.costs import Unit
from services.costs.domain.prices import Rate, Rates, Work
from services.costs.errors import PriceFileError

HOSTED_TOOL_PRICES = Path(__file__).resolve().parent.parent / "prices.toml"
_PER_MILLION = Decimal(1_000_000)

Amount = Annotated[Decimal, Field(ge=0, le=10_000, decimal_places=12)]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    match: Pattern
    provider: Pattern = "*"


class ModelPrices(_Entry):
    """Prices of the models whose name fits `match`; patterns know `*`, `?` and `[...]`.

    Without a price of their own, cached tokens cost what input tokens do and reasoning tokens are
    output tokens.
    """

    service_tier: Pattern = "*"
    input_per_million_usd: Amount
    output_per_million_usd: Amount
    cached_input_per_million_usd: Amount | None = None
    cache_write_per_million_usd: Amount | None = None
    reasoning_per_million_usd: Amount | None = None
    per_request_usd: Amount | None = None

    def rates(self, source: str) -> Rates:
        """Return the prices by unit."""
        plain = self.input_per_million_usd
        per_million: dict[Unit, Decimal | None] = {
            "input_tokens": plain,
            "cached_input_tokens": _first(self.cached_input_per_million_usd, plain),
            "cache_write_tokens": _first(self.cache_write_per_million_usd, plain),
            "output_tokens": self.output_per_million_usd,
            "reasoning_tokens": self.reasoning_per_million_usd,
        }
        rates = {
            unit: Rate(price / _PER_MILLION, source)
            for unit, price in per_million.items()
            if price is not None
        }
        if self.per_request_usd is not None:
            rates["requests"] = Rate(self.per_request_usd, source)
        return rates


class ToolPrices(_Entry):
    """The price of a call of the tools whose name fits `match`, such as `web_search` or
    `<server label>/<tool>`; `provider` is who runs it: a model's provider, or `mcp_broker`.
    """

    model: Annotated[str, Field(max_length=200)] = "*"
    per_call_usd: Amount


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[ModelPrices, ...] = ()
    tools: tuple[ToolPrices, ...] = ()


class FilePrices:
    """The price book of one TOML file; of several entries that fit, the first counts."""

    def __init__(self, name: str, content: _Content) -> None:
        self._name = name
        self._content = content

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate; raises `PriceFileError` with one line per mistake."""
        try:
            # Amounts may be numbers or strings: both are read as the decimals they are.
            parsed = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
            return cls(path.name, _Content.model_validate(parsed))
        except ValidationError as error:
            raise PriceFileError("\n".join(_mistakes(path, error))) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PriceFileError(f"{path}: {error}") from error

    def token_rates(self, work: Work) -> Rates | None:
        """Return the prices of the first entry that fits."""
        for entry in self._content.models:
            if (
                _fits(entry.match, work.model)
                and _fits(entry.provider, work.provider)
                and _fits(entry.service_tier, work.service_tier or "default")
            ):
                return entry.rates(f"{self._name}: {entry.match}")
        return None

    def tool_rate(self, tool: str, work: Work) -> Rate | None:
        """Return the price of the first entry that fits."""
        for entry in self._content.tools:
            if (
                _fits(entry.match, tool)
                and _fits(entry.provider, work.provider)
                and _fits(entry.model, work.model)
            ):
                return Rate(entry.per_call_usd, f"{self._name}: {entry.match}")
        return None


def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())


def _first(amount: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if amount is None else amount


def _mistakes(path: Path, error: ValidationError) -> list[str]:
    lines = []
    for mistake in error.errors(include_url=False):
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in mistake["loc"])
        lines.append(f"{path}: {''.join(steps).lstrip('.')}: {mistake['msg']}")
    return lines
