"""From facts to ledger lines: pure, in Decimal, the same lines however often a fact comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from contracts.costs import CostRecordedV1, Unit
from contracts.principal import Principal
from contracts.responses import ResponseFinishedV1
from contracts.tools import ToolResultV1
from services.costs.domain.prices import LayeredBook, Rate, Rates, Unpriced, Work
from services.costs.domain.usage import TokenUsage, hosted_calls
from services.costs.errors import UsageError

COST_SCALE = Decimal("1e-12")
"""Costs are kept to a millionth of a millionth of a dollar."""

_NEVER_RAN = frozenset({"unknown_server", "unknown_tool", "invalid_arguments", "unavailable"})
_NO_USAGE = Unpriced("the provider reported no usage")


@dataclass(frozen=True, slots=True)
class Charge:
    """The lines that one fact gives. `attempt` is None for a tool call, which has none."""

    response_id: str
    attempt: int | None
    lines: tuple[CostRecordedV1, ...]


def charge_response(
    fact: ResponseFinishedV1, response: Mapping[str, Any], book: LayeredBook
) -> Charge:
    """Return the lines for the tokens and the provider's tools that a response used.

    A response that gave nothing and reports no usage costs nothing. Where output was given without
    usage, or with figures that make no sense, one unpriced line says so.
    """
    reported = response.get("service_tier")
    tier = fact.service_tier or (reported if isinstance(reported, str) else None)
    account = _Account.of_response(fact, tier)
    work = account.work()
    calls = (
        account.tool_line(call.call_id, call.tool, book.tool_rate(call.tool, work))
        for call in hosted_calls(response)
    )
    tokens = _token_lines(account, fact, response, book)
    return Charge(fact.response_id, fact.attempt, (*tokens, *calls))


def charge_unreadable(fact: ResponseFinishedV1, reason: str) -> Charge:
    """Return the one unpriced line for a response whose Response object can't be read."""
    account = _Account.of_response(fact, fact.service_tier)
    line = account.token_line("output_tokens", 0, Unpriced(reason))
    return Charge(fact.response_id, fact.attempt, (line,))


def charge_tool_result(fact: ToolResultV1, at: datetime, book: LayeredBook) -> Charge:
    """Return the line for one call of a tool, whose result was known `at` that time.

    A call that never reached the tool has no line.
    """
    if fact.error in _NEVER_RAN:
        return Charge(fact.response_id, None, ())
    account = _Account(
        response_id=fact.response_id,
        principal=fact.principal,
        provider=fact.executor,
        occurred_at=at,
        priced_at=at,
    )
    tool = f"{fact.server_label}/{fact.tool}"
    line = account.tool_line(fact.call_id, tool, book.tool_rate(tool, account.work()))
    return Charge(fact.response_id, None, (line,))


def _token_lines(
    account: _Account, fact: ResponseFinishedV1, response: Mapping[str, Any], book: LayeredBook
) -> Iterator[CostRecordedV1]:
    try:
        usage = TokenUsage.of(response)
    except UsageError as error:
        yield account.token_line("output_tokens", 0, Unpriced(str(error)))
        return
    if usage is None:
        if fact.status in ("completed", "incomplete") or response.get("output"):
            yield account.token_line("output_tokens", 0, _NO_USAGE)
        return
    found = book.token_rates(account.work(usage.input_tokens))
    rates: Rates = {} if isinstance(found, Unpriced) else found
    for unit, quantity in _quantities(usage, rates).items():
        missing = Unpriced(f"no price known for {unit} of model {fact.model!r}")
        rate = found if isinstance(found, Unpriced) else rates.get(unit, missing)
        if quantity:
            yield account.token_line(unit, quantity, rate)


def _quantities(usage: TokenUsage, rates: Rates) -> dict[Unit, int]:
    """Split the usage so that no token is in two units."""
    reasoning = usage.reasoning_tokens if "reasoning_tokens" in rates else 0
    cached = usage.cached_tokens + usage.cache_write_tokens
    return {
        "input_tokens": usage.input_tokens - cached,
        "cached_input_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens - reasoning,
        "reasoning_tokens": reasoning,
        "requests": 1 if "requests" in rates else 0,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """What the lines of one fact have in common."""

    response_id: str
    principal: Principal
    provider: str
    occurred_at: datetime
    priced_at: datetime
    model: str = ""
    service_tier: str | None = None
    estimated: bool = False

    @classmethod
    def of_response(cls, fact: ResponseFinishedV1, service_tier: str | None) -> _Account:
        return cls(
            response_id=fact.response_id,
            principal=fact.principal,
            provider=fact.provider,
            occurred_at=fact.finished_at,
            # Providers charge the prices of the time when a request came in.
            priced_at=fact.started_at,
            model=fact.model,
            service_tier=service_tier,
            estimated=fact.estimated_usage,
        )

    def work(self, input_tokens: int = 0) -> Work:
        return Work(
            provider=self.provider,
            model=self.model,
            at=self.priced_at,
            service_tier=self.service_tier,
            input_tokens=input_tokens,
        )

    def token_line(self, unit: Unit, quantity: int, rate: Rate | Unpriced) -> CostRecordedV1:
        # One line per unit and response, whatever the attempt: a response is paid once.
        draft = self._draft(f"{self.response_id}:{unit}", unit, quantity)
        return _priced(draft.model_copy(update={"estimated": self.estimated}), rate)

    def tool_line(self, call_id: str, tool: str, rate: Rate | Unpriced) -> CostRecordedV1:
        draft = self._draft(f"{self.response_id}:{call_id}", "tool_calls", 1)
        return _priced(draft.model_copy(update={"tool": tool}), rate)

    def _draft(self, line_id: str, unit: Unit, quantity: int) -> CostRecordedV1:
        return CostRecordedV1(
            line_id=line_id,
            response_id=self.response_id,
            principal=self.principal,
            provider=self.provider,
            model=self.model,
            unit=unit,
            quantity=quantity,
            service_tier=self.service_tier,
            occurred_at=self.occurred_at,
        )


def _priced(draft: CostRecordedV1, rate: Rate | Unpriced) -> CostRecordedV1:
    if isinstance(rate, Unpriced):
        return draft.model_copy(update={"unpriced_reason": rate.reason})
    cost = (rate.unit_price_usd * draft.quantity).quantize(COST_SCALE, ROUND_HALF_EVEN)
    return draft.model_copy(
        update={
            "unit_price_usd": rate.unit_price_usd,
            "cost_usd": cost,
            "price_source": rate.source,
        }
    )
