"""What a create request must look like, and what a client is told when it does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.intake.errors import ApiError
from services.intake.request import CreateResponse, parse_create

GOOD = {"model": "gpt-5.1", "input": "hello"}


def refused(**changes: Any) -> ApiError:
    body = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(ApiError) as caught:
        parse_create(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"model": ...}, "model", "missing_required_parameter"),
        ({"model": None}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": "m" * 257}, "model", "invalid_value"),
        ({"model": "a\0b"}, "model", "invalid_value"),
        ({"input": ...}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": {}}, "input", "invalid_type"),
        ({"input": ["x"]}, "input[0]", "invalid_type"),
        ({"input": [{"role": 1}]}, "input[0].role", "invalid_type"),
        ({"input": [{}, {"content": 5}]}, "input[1].content", "invalid_type"),
        ({"input": [{"content": [{}, "x"]}]}, "input[0].content[1]", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_type"),
        ({"max_output_tokens": 10.0**30}, "max_output_tokens", "invalid_type"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"metadata": []}, "metadata", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "invalid_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"chat_id": "a\0"}}, "metadata", "invalid_value"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"truncation": 1}, "truncation", "invalid_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": 1}]}, "tools[0].type", "invalid_type"),
        ({"tool_choice": 3}, "tool_choice", "invalid_type"),
        ({"tool_choice": {}}, "tool_choice.type", "missing_required_parameter"),
        ({"include": ["a", 1]}, "include[1]", "invalid_type"),
        (
            {"stream_options": {"include_obfuscation": 1}},
            "stream_options.include_obfuscation",
            None,
        ),
        ({"user": "a\0"}, "user", "invalid_value"),
        ({"safety_identifier": "\0"}, "safety_identifier", "invalid_value"),
        ({"previous_response_id": "resp_\0"}, "previous_response_id", "invalid_value"),
        (
            {"background_options": {"completion_window": "2h"}},
            "background_options.completion_window",
            "unsupported_parameter",
        ),
        ({"background": True, "store": False}, "store", "invalid_value"),
        (
            {"tools": [{"type": "mcp", "require_approval": "always"}]},
            "tools[0].require_approval",
            "unsupported_parameter",
        ),
        (
            {"previous_response_id": "resp_1", "conversation": "conv_1"},
            "conversation",
            "mutually_exclusive_parameters",
        ),
    ],
)
def test_a_wrong_parameter_is_named(changes: Any, param: str, code: str | None) -> None:
    error = refused(**changes)
    assert error.param == param
    if code is not None:
        assert error.code == code
    assert error.kind == "invalid_request_error"


def test_a_value_that_may_be_of_two_types_is_told_both() -> None:
    assert refused(input=5).message == (
        "Invalid type for 'input': expected a string or an array, but got an integer instead."
    )


@pytest.mark.parametrize("body", [None, [], "x", 7, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(ApiError, match="must be a JSON object"):
        parse_create(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"input": []},
        {"input": None, "previous_response_id": "resp_1"},
        {"temperature": 1},
        {"stream": None, "tools": None, "metadata": None},
        {"tools": [{"type": "function", "name": "f"}, {"type": "something_new", "x": {}}]},
        {"unheard_of": {"deep": [1, 2]}},
        {"tool_choice": {"type": "function", "name": "f"}},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]},
    ],
)
def test_what_the_api_takes_is_taken(changes: dict[str, Any]) -> None:
    assert parse_create({**GOOD, **changes}).model == "gpt-5.1"


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*CreateResponse.model_fields, "unheard_of"])


@settings(max_examples=60, deadline=None)
@given(st.one_of(JSON, st.dictionaries(NAMES, JSON, max_size=5)), st.booleans())
def test_any_json_is_taken_or_refused_in_the_api_s_words(body: Any, otherwise_good: bool) -> None:
    if otherwise_good and isinstance(body, dict):
        body = {**GOOD, **body}
    error = refusal_of(body)
    if error is not None:
        assert error.status == 400
        told = orjson.loads(orjson.dumps(error.body()))["error"]
        assert set(told) == {"message", "type", "param", "code"}
        assert told["param"] is None or told["param"]


def refusal_of(body: Any) -> ApiError | None:
    try:
        parse_create(body)
    except ApiError as error:
        return error
    return None
