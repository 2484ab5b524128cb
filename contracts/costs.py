"""What a response cost, one fact per ledger line."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import AwareDatetime, Field

from contracts.event import Contract
from contracts.principal import Principal

Unit = Literal[
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "requests",
    "tool_calls",
]


class CostRecordedV1(Contract):
    """One line of the ledger. Topic `costs.recorded`, keyed by the response id.

    `line_id` is deterministic, so a line that is sent again is the same line. `cost_usd` is null
    when no price is known; then `unpriced_reason` says why, and the line must not be read as free.
    Quantities of different units do not overlap: `input_tokens` excludes cached ones,
    `output_tokens` includes reasoning ones, for which a line of `reasoning_tokens` is only written
    where they have a price of their own. `requests` counts the request where a request has a price
    by itself. `tool` names the tool of a line of `tool_calls`, such as `web_search` or
    `<server label>/<tool>`; `model` is empty where its fact names none.
    """

    TYPE: ClassVar[str] = "antiphon.cost.recorded.v1"

    line_id: str
    response_id: str
    principal: Principal
    provider: str
    model: str
    tool: str | None = None
    unit: Unit
    quantity: int = Field(ge=0)
    unit_price_usd: Decimal | None = None
    cost_usd: Decimal | None = None
    unpriced_reason: str | None = None
    price_source: str | None = None
    service_tier: str | None = None
    estimated: bool = False
    occurred_at: AwareDatetime
