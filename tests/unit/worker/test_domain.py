"""What goes upstream and what a client's Response looks like, whatever the request left out."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker.domain import add_usage, fail, mcp_history_as_functions, terminal_status
from services.worker.runs.outcome import cancelled, estimate_usage
from tests.unit.worker.runs import NOW, check_response, job, used

FUNCTION = {"type": "function", "name": "lookup"}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"instructions": "be short", "temperature": 0.2, "top_p": None, "metadata": None},
        {"tools": [FUNCTION]},
        {"tools": [{**FUNCTION, "strict": True, "parameters": {}}], "tool_choice": FUNCTION},
        {"tools": [{"type": "mcp", "server_label": "srv"}], "tool_choice": "required"},
        {"tools": [{"type": "custom", "name": "sql"}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": None, "tool_choice": None, "reasoning": None, "text": None},
        {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
        {"input": [{"role": "user", "content": "x"}], "max_output_tokens": 5, "user": "ada"},
        {"service_tier": "flex", "truncation": "auto", "top_logprobs": 3},
    ],
)
def test_a_response_is_what_the_openai_package_types_it_as(request_: dict[str, Any]) -> None:
    made = job(**request_)
    check_response(made.skeleton(created_at=1))
    check_response(cancelled(made, "a", NOW).response)
    failed = fail(
        made.skeleton(created_at=1),
        error={"code": "server_error", "message": "x"},
        output=[],
        finished_at=NOW,
    )
    failed["usage"] = estimate_usage(made, [{"type": "message"}])
    check_response(failed)


def test_a_provider_hears_nothing_of_our_own_state() -> None:
    made = job(previous_response_id="resp_0", background=False, conversation=None, temperature=0.5)
    body = made.upstream_request(model="their-name", stream=False)
    assert body == {"model": "their-name", "input": "hello", "temperature": 0.5}


def test_unknown_parameters_reach_the_provider() -> None:
    assert job(new_thing={"a": 1}).upstream_request(model="m", stream=True)["new_thing"] == {"a": 1}


def test_the_history_stands_before_the_own_input() -> None:
    before = [{"type": "message", "role": "user", "content": "one"}]
    items = job(history=before, input="two").input_items()
    assert [item["content"] for item in items] == ["one", "two"]
    assert (
        job(history=before, input="two").upstream_request(model="m", stream=False)["input"] == items
    )


@pytest.mark.parametrize("given", [None, [], ""])
def test_a_request_may_have_no_input_of_its_own(given: Any) -> None:
    before = [{"type": "message", "role": "user", "content": "one"}]
    assert job(history=before, input=given).input_items() == before


def test_usage_is_summed_with_its_details() -> None:
    total = add_usage(used(1, 2), used(10, 20))
    assert total is not None
    assert (total["input_tokens"], total["output_tokens"], total["total_tokens"]) == (11, 22, 33)
    assert total["input_tokens_details"]["cached_tokens"] == 2


def test_usage_that_one_turn_did_not_report_is_that_of_the_others() -> None:
    assert add_usage(None, used(1, 2)) == add_usage(used(1, 2), None) == used(1, 2)
    assert add_usage(None, None) is None


def test_usage_with_unknown_parts_does_not_break() -> None:
    summed = add_usage({"a": None, "b": {"c": 1}}, {"a": 2, "b": None, "d": "x"})
    assert summed == {"a": 2, "b": {"c": 1}, "d": "x"}


@pytest.mark.parametrize(
    ("status", "terminal"), [("completed", True), ("queued", False), ([], False), (None, False)]
)
def test_only_some_states_are_final(status: Any, terminal: bool) -> None:
    assert (terminal_status({"status": status}) is not None) is terminal


def test_earlier_calls_are_told_as_functions_by_the_name_they_are_offered_under() -> None:
    call = {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "srv",
        "name": "echo",
        "arguments": "{}",
    }
    failed = {**call, "id": "mcp_2", "name": "gone", "error": {"type": "x"}, "arguments": None}
    lowered = mcp_history_as_functions(
        [{"type": "mcp_list_tools"}, {**call, "output": "hi"}, failed, {"type": "message"}],
        {("srv", "echo"): "srv__echo"},
    )
    assert [item["type"] for item in lowered] == [
        "function_call",
        "function_call_output",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert (lowered[0]["name"], lowered[1]["output"]) == ("srv__echo", "hi")
    assert (lowered[2]["name"], lowered[2]["arguments"]) == ("gone", "{}")
    assert lowered[3]["output"] == '{"error": {"type": "x"}}'
