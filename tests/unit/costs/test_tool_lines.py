"""What calls of tools cost: the provider's own, and those of MCP servers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from services.costs.domain.charges import charge_response, charge_tool_result
from tests.unit.costs.facts import BOOK, FINISHED, OWNER, finished, response, tool_result


def tool_lines(*items: dict[str, Any], model: str = "gpt-4o-mini", **fields: Any) -> list[Any]:
    fact = finished(model=model, **fields.pop("fact", {}))
    answer = response(usage=None, output=list(items), **fields)
    lines = charge_response(fact, answer, BOOK).lines
    return [line for line in lines if line.unit == "tool_calls"]


def search(identifier: str, action: str = "search") -> dict[str, Any]:
    return {
        "type": "web_search_call",
        "id": identifier,
        "status": "completed",
        "action": {"type": action},
    }


def test_each_search_of_the_provider_has_a_line_with_the_published_price() -> None:
    lines = tool_lines(search("ws_1"), {"type": "message", "id": "msg_1"}, search("ws_2"))
    # $10 per 1,000 searches.
    assert [(line.line_id, line.tool, line.quantity, line.cost_usd) for line in lines] == [
        ("resp_1:ws_1", "web_search", 1, Decimal("0.01")),
        ("resp_1:ws_2", "web_search", 1, Decimal("0.01")),
    ]
    assert (lines[0].model, lines[0].provider) == ("gpt-4o-mini", "openai")


def test_looking_at_a_page_that_was_found_is_no_search() -> None:
    assert tool_lines(search("ws_1", "open_page"), search("ws_2", "find_in_page")) == []


def test_a_call_that_failed_is_not_charged() -> None:
    assert tool_lines({"type": "file_search_call", "id": "fs_1", "status": "failed"}) == []


def test_a_search_of_files_has_its_published_price() -> None:
    [line] = tool_lines({"type": "file_search_call", "id": "fs_1", "status": "completed"})
    # $2.50 per 1,000 calls.
    assert (line.tool, line.cost_usd) == ("file_search", Decimal("0.0025"))


def test_the_service_tier_does_not_change_the_price_of_a_tool() -> None:
    [line] = tool_lines(search("ws_1"), fact={"service_tier": "scale"})
    assert line.cost_usd == Decimal("0.01")


@pytest.mark.parametrize(
    ("model", "cost"), [("gpt-4o", "0.025"), ("gpt-5", "0.01"), ("o4-mini", "0.01")]
)
def test_the_older_web_search_has_its_own_price(model: str, cost: str) -> None:
    [line] = tool_lines(search("ws_1"), model=model, tools=[{"type": "web_search_preview"}])
    assert (line.tool, line.cost_usd) == ("web_search_preview", Decimal(cost))
    assert line.price_source == "prices.toml: web_search_preview"


def test_code_interpreters_are_charged_by_container() -> None:
    call = {"type": "code_interpreter_call", "status": "completed"}
    lines = tool_lines(
        {**call, "id": "ci_1", "container_id": "cntr_1"},
        {**call, "id": "ci_2", "container_id": "cntr_1"},
        {**call, "id": "ci_3", "container_id": "cntr_2"},
    )
    assert [(line.line_id, line.cost_usd) for line in lines] == [
        ("resp_1:cntr_1", Decimal("0.03")),
        ("resp_1:cntr_2", Decimal("0.03")),
    ]


def test_a_hosted_tool_without_a_price_is_unpriced() -> None:
    [line] = tool_lines({"type": "image_generation_call", "id": "ig_1", "status": "completed"})
    assert line.cost_usd is None
    assert line.unpriced_reason == "no price configured for tool 'image_generation' of 'openai'"


def test_output_that_is_not_what_it_should_be_is_passed_over() -> None:
    assert tool_lines({"type": "web_search_call_of_another_kind"}) == []
    strange = response(usage=None, output="text", tools={"type": "web_search"})
    assert [line.unit for line in charge_response(finished(), strange, BOOK).lines] == [
        "output_tokens"
    ]


def test_calls_of_mcp_tools_in_the_output_are_left_to_their_results() -> None:
    assert tool_lines({"type": "mcp_call", "id": "mcp_1", "status": "completed"}) == []


def test_the_result_of_an_mcp_tool_is_one_line_without_a_price() -> None:
    charge = charge_tool_result(tool_result(), FINISHED, BOOK)
    [line] = charge.lines
    assert charge.attempt is None
    assert (line.line_id, line.unit, line.quantity) == ("resp_1:call_1", "tool_calls", 1)
    assert (line.provider, line.model, line.tool) == ("mcp_broker", "", "everything/echo")
    assert (line.principal, line.occurred_at) == (OWNER, FINISHED)
    assert line.cost_usd is None
    assert line.unpriced_reason == "no price configured for tool 'everything/echo' of 'mcp_broker'"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        ("tool_error", 1),
        ("timeout", 1),
        ("unknown_server", 0),
        ("unknown_tool", 0),
        ("invalid_arguments", 0),
        ("unavailable", 0),
    ],
)
def test_only_calls_that_reached_their_tool_are_charged(error: str, lines: int) -> None:
    charge = charge_tool_result(tool_result(error=error), FINISHED, BOOK)
    assert len(charge.lines) == lines
