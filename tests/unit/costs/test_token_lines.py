"""What the tokens of a response cost; the figures are worked out by hand from published prices."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from services.costs.clients.published import PublishedPrices
from services.costs.domain.charges import COST_SCALE, charge_response, charge_unreadable
from services.costs.domain.prices import Work
from tests.unit.costs.facts import BOOK, FINISHED, OWNER, STARTED, finished, response, usage


def costs(fact: Any, answer: dict[str, Any]) -> dict[str, Decimal | None]:
    lines = charge_response(fact, answer, BOOK).lines
    return {line.unit: line.cost_usd for line in lines}


def test_plain_cached_and_output_tokens_have_a_line_and_a_price_each() -> None:
    lines = charge_response(finished(), response(usage=usage(1000, 500, cached=200)), BOOK).lines
    # gpt-4o-mini: $0.15 input, $0.075 cached input, $0.60 output per million tokens.
    assert [(line.unit, line.quantity, line.cost_usd) for line in lines] == [
        ("input_tokens", 800, Decimal("0.000120")),
        ("cached_input_tokens", 200, Decimal("0.000015")),
        ("output_tokens", 500, Decimal("0.000300")),
    ]
    assert lines[0].unit_price_usd == Decimal("0.00000015")
    assert {line.price_source for line in lines} == {
        f"genai-prices {genai_prices.__version__}: openai/gpt-4o-mini"
    }


def test_a_line_says_whose_it_is_and_when_it_became_due() -> None:
    line = charge_response(finished(service_tier="default"), response(), BOOK).lines[0]
    assert line.line_id == "resp_1:input_tokens"
    assert line.principal == OWNER
    assert (line.provider, line.model, line.tool) == ("openai", "gpt-4o-mini", None)
    assert (line.service_tier, line.occurred_at) == ("default", FINISHED)
    assert not line.estimated
    assert line.unpriced_reason is None


def test_a_unit_that_was_not_used_has_no_line() -> None:
    assert set(costs(finished(), response(usage=usage(7, 0)))) == {"input_tokens"}


def test_reasoning_tokens_are_output_tokens_unless_they_have_a_price_of_their_own() -> None:
    answer = response(usage=usage(0, 1000, reasoning=600))
    assert costs(finished(model="gpt-5"), answer) == {"output_tokens": Decimal("0.01")}
    # sonar-deep-research: $8 output, $3 reasoning per million tokens.
    fact = finished(model="sonar-deep-research", provider="perplexity")
    assert costs(fact, answer) == {
        "output_tokens": Decimal("0.0032"),
        "reasoning_tokens": Decimal("0.0018"),
    }


def test_tokens_written_to_a_cache_have_their_price_or_that_of_input() -> None:
    answer = response(usage=usage(1000, 0, written=400))
    # claude-sonnet-4-5: $3 input, $3.75 cache write per million tokens.
    fact = finished(model="claude-sonnet-4-5", provider="anthropic")
    assert costs(fact, answer)["cache_write_tokens"] == Decimal("0.0015")
    assert costs(finished(), answer)["cache_write_tokens"] == Decimal("0.00006")


def test_a_long_context_is_charged_at_its_price_throughout() -> None:
    # gpt-5.4: $2.50 input and $15 output up to 272,000 input tokens, else $5 and $22.50.
    fact = finished(model="gpt-5.4")
    short = costs(fact, response(usage=usage(272_000, 1000)))
    assert short == {"input_tokens": Decimal("0.68"), "output_tokens": Decimal("0.015")}
    long = costs(fact, response(usage=usage(272_001, 1000)))
    assert long == {"input_tokens": Decimal("1.360005"), "output_tokens": Decimal("0.0225")}


@pytest.mark.parametrize(
    ("tier", "cost"),
    [
        (None, "0.00125"),
        ("auto", "0.00125"),
        ("default", "0.00125"),
        ("flex", "0.000625"),
        ("priority", "0.0025"),
        ("batch", "0.000625"),
    ],
)
def test_the_service_tier_decides_the_price(tier: str | None, cost: str) -> None:
    fact = finished(model="gpt-5", service_tier=tier)
    assert costs(fact, response(usage=usage(1000, 0))) == {"input_tokens": Decimal(cost)}


def test_the_tier_that_the_response_names_counts_when_the_fact_names_none() -> None:
    answer = response(usage=usage(1000, 0), service_tier="flex")
    [line] = charge_response(finished(model="gpt-5"), answer, BOOK).lines
    assert (line.service_tier, line.cost_usd) == ("flex", Decimal("0.000625"))


@pytest.mark.parametrize("tier", ["scale", "flex"])
def test_a_tier_without_a_known_price_is_not_charged_the_standard_one(tier: str) -> None:
    lines = charge_response(finished(service_tier=tier), response(), BOOK).lines
    assert {line.cost_usd for line in lines} == {None}
    assert lines[0].unpriced_reason == (
        f"no price known for service tier '{tier}' of openai/gpt-4o-mini"
    )


def test_prices_are_those_of_the_time_of_the_request() -> None:
    answer = response(usage=usage(1000, 0))
    before = finished(model="o3", started_at=datetime(2025, 6, 9, tzinfo=UTC))
    after = finished(model="o3", started_at=datetime(2025, 6, 10, tzinfo=UTC))
    assert costs(before, answer) == {"input_tokens": Decimal("0.01")}
    assert costs(after, answer) == {"input_tokens": Decimal("0.002")}


def test_a_model_is_found_by_its_own_name_when_the_provider_is_not_known() -> None:
    assert costs(finished(provider="upstream"), response())["output_tokens"] == Decimal("0.0003")


def test_an_unknown_model_is_unpriced_and_keeps_its_quantities() -> None:
    fact = finished(model="smollm2-135m", provider="local")
    lines = charge_response(fact, response(), BOOK).lines
    assert [(line.unit, line.quantity) for line in lines] == [
        ("input_tokens", 1000),
        ("output_tokens", 500),
    ]
    for line in lines:
        assert line.cost_usd is None
        assert line.unit_price_usd is None
        assert line.unpriced_reason == (
            "no price known for model 'smollm2-135m' of provider 'local'"
        )


def test_a_unit_without_a_published_price_is_unpriced_alone() -> None:
    # Embedding models have no price for output.
    fact = finished(model="text-embedding-3-small")
    lines = {line.unit: line for line in charge_response(fact, response(), BOOK).lines}
    assert lines["input_tokens"].cost_usd == Decimal("0.00002")
    assert lines["output_tokens"].cost_usd is None
    assert "output_tokens" in str(lines["output_tokens"].unpriced_reason)


def test_a_failed_response_without_usage_costs_nothing() -> None:
    assert charge_response(finished(status="failed"), response(usage=None), BOOK).lines == ()
    assert charge_response(finished(status="cancelled"), {}, BOOK).lines == ()


def test_a_failed_response_with_usage_is_charged() -> None:
    assert costs(finished(status="failed"), response(usage=usage(1000, 0))) == {
        "input_tokens": Decimal("0.00015")
    }


@pytest.mark.parametrize(
    ("status", "output"),
    [("completed", []), ("incomplete", []), ("cancelled", [{"type": "message"}])],
)
def test_output_without_usage_is_one_unpriced_line(status: str, output: list[Any]) -> None:
    answer = response(usage=None, output=output)
    [line] = charge_response(finished(status=status), answer, BOOK).lines
    assert (line.quantity, line.cost_usd) == (0, None)
    assert line.unpriced_reason == "the provider reported no usage"


@pytest.mark.parametrize(
    "broken",
    [
        usage(10, 0, cached=11),
        usage(10, 0, cached=6, written=5),
        usage(0, 5, reasoning=6),
        usage(-1, 0),
        usage(2_000_000_000, 0),
        {"input_tokens": "12"},
        {"input_tokens": True},
        {"input_tokens": 1.5},
        {"input_tokens": 1, "input_tokens_details": []},
        [],
        "many",
    ],
)
def test_usage_that_makes_no_sense_is_one_unpriced_line(broken: Any) -> None:
    [line] = charge_response(finished(), response(usage=broken), BOOK).lines
    assert line.cost_usd is None
    assert str(line.unpriced_reason).startswith("usage")


def test_a_response_that_cannot_be_read_is_one_unpriced_line() -> None:
    [line] = charge_unreadable(finished(), "its payload is gone").lines
    assert (line.line_id, line.unpriced_reason) == ("resp_1:output_tokens", "its payload is gone")


def test_estimated_usage_is_marked_on_every_line_of_tokens() -> None:
    lines = charge_response(finished(estimated_usage=True), response(), BOOK).lines
    assert [line.estimated for line in lines] == [True, True]


def test_a_line_is_the_same_whatever_the_attempt() -> None:
    first = charge_response(finished(attempt=1), response(), BOOK)
    second = charge_response(finished(attempt=2), response(), BOOK)
    assert first.lines == second.lines
    assert (first.attempt, second.attempt) == (1, 2)


def test_costs_have_twelve_decimals_and_no_more() -> None:
    # $0.0833333333333333 per million tokens written to the cache.
    fact = finished(model="google/gemini-2.5-flash", provider="openrouter")
    found = costs(fact, response(usage=usage(1, 0, written=1)))["cache_write_tokens"]
    assert found == Decimal("0.000000083333")


MODELS = [
    (provider.id, model.id)
    for provider in providers
    for model in provider.models
    if model.prices and provider.find_model(model.id) is model
]
TOKENS = st.integers(0, 400_000)


@given(st.sampled_from(MODELS), TOKENS, TOKENS, TOKENS, TOKENS)
def test_the_lines_add_up_to_what_genai_prices_charges(
    model: tuple[str, str], plain: int, cached: int, written: int, output: int
) -> None:
    used = usage(plain + cached + written, output, cached=cached, written=written)
    fact = finished(provider=model[0], model=model[1])
    lines = charge_response(fact, response(usage=used), BOOK).lines
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=plain + cached + written,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            output_tokens=output,
        ),
        model[1],
        provider_id=model[0],
        genai_request_timestamp=STARTED,
    )
    found = sum((line.cost_usd or Decimal(0) for line in lines), Decimal(0))
    # Each of at most five lines is rounded to half of the scale.
    assert abs(found - expected.total_price) <= 5 * COST_SCALE / 2
    for line in lines:
        assert (line.cost_usd is None) == (line.unpriced_reason is not None)


def test_published_prices_know_neither_an_empty_name_nor_a_tool_of_others() -> None:
    nothing = Work(provider="mcp_broker", model="", at=STARTED)
    assert PublishedPrices().token_rates(nothing) is None
    assert PublishedPrices().tool_rate("everything/echo", nothing) is None
