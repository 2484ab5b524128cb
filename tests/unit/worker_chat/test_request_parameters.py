"""Each parameter is obeyed, passed or refused by name; none is dropped in silence."""

from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from services.worker.chat.errors import UnsupportedParameterError
from services.worker.chat.parameters import OWN, REFUSED, TRANSLATED
from services.worker.chat.request import to_chat_request

ITEMS = [{"type": "message", "role": "user", "content": "Hi"}]
BARE = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
PASSED = {
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 2},
    "max_tokens": 5,
    "moderation": {"model": "omni"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "flex",
    "some_extension": {"of": "a server"},
    "stop": ["\n"],
    "temperature": 0.0,
    "top_p": 0.9,
    "user": "u",
}
SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}
OTHER = {"type": "function", "name": "g", "parameters": SCHEMA}
CUSTOM = {"type": "custom", "name": "shell", "description": "Runs it."}
TOLD_FUNCTION = {
    "type": "function",
    "function": {"name": "f", "parameters": SCHEMA, "strict": True},
}
TOLD_OTHER = {"type": "function", "function": {"name": "g", "parameters": SCHEMA}}
TOLD_CUSTOM = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "Runs it.",
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
    },
}


def told(**request: Any) -> dict[str, Any]:
    """What a request adds to the bare chat request."""
    body = to_chat_request(request, ITEMS, model="m")
    assert {name: body[name] for name in BARE} == BARE
    return {name: value for name, value in body.items() if name not in BARE}


def refused(**request: Any) -> str:
    """The parameter a request is refused for."""
    with pytest.raises(UnsupportedParameterError) as refusal:
        told(**request)
    assert refusal.value.param is not None
    assert refusal.value.code == "unsupported_parameter"
    return refusal.value.param


def test_a_bare_request_asks_for_a_stream_with_usage() -> None:
    assert told(model="public-name", input="Hi") == {}


def test_every_parameter_of_the_api_has_its_line_in_the_table() -> None:
    known = OWN | TRANSLATED | set(REFUSED) | set(PASSED)

    assert set(ResponseCreateParamsBase.__annotations__) - known == set()


@pytest.mark.parametrize(("name", "value"), PASSED.items(), ids=PASSED.keys())
def test_a_parameter_both_apis_know_is_passed(name: str, value: object) -> None:
    assert told(**{name: value}) == {name: value}


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_antiphon_does_itself_is_not_sent(name: str) -> None:
    assert told(**{name: "anything"}) == {}


@pytest.mark.parametrize("name", sorted(OWN | TRANSLATED | set(REFUSED) | set(PASSED)))
def test_a_null_is_an_absent_parameter(name: str) -> None:
    assert told(**{name: None}) == {}


NAMED_SCHEMA = {"name": "n", "schema": SCHEMA, "strict": True, "description": "d"}
TRANSLATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the limit of output": ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    "plain text": ({"text": {"format": {"type": "text"}}}, {}),
    "a JSON object": (
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": {"type": "json_object"}},
    ),
    "a JSON schema": (
        {"text": {"format": {"type": "json_schema"} | NAMED_SCHEMA}},
        {"response_format": {"type": "json_schema", "json_schema": NAMED_SCHEMA}},
    ),
    "a JSON schema with nulls": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
    ),
    "verbosity": ({"text": {"verbosity": "low", "format": None}}, {"verbosity": "low"}),
    "effort": ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
    "a summary, for which the reasoning itself stands": (
        {"reasoning": {"summary": "auto", "generate_summary": "concise", "effort": None}},
        {},
    ),
    "the defaults of reasoning": ({"reasoning": {"context": "auto", "mode": "standard"}}, {}),
    "log probabilities": (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        {"logprobs": True, "top_logprobs": 3},
    ),
    "log probabilities without alternatives": (
        {"include": ["message.output_text.logprobs"]},
        {"logprobs": True, "top_logprobs": 0},
    ),
    "alternatives to nothing": ({"top_logprobs": 0}, {}),
    "what a chat answer never holds": (
        {"include": ["reasoning.encrypted_content", "file_search_call.results"]},
        {},
    ),
    "no truncation": ({"truncation": "disabled"}, {}),
    "one choice": ({"n": 1}, {}),
    "no tools": ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
    "a function": ({"tools": [FUNCTION]}, {"tools": [TOLD_FUNCTION]}),
    "a function without parameters": (
        {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": None}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
    ),
    "a function with defaults spelled out": (
        {"tools": [OTHER | {"defer_loading": False, "allowed_callers": ["direct"]}]},
        {"tools": [TOLD_OTHER]},
    ),
    "a custom tool": (
        {"tools": [CUSTOM | {"format": {"type": "text"}}]},
        {"tools": [TOLD_CUSTOM]},
    ),
    "one call at a time": (
        {"tools": [OTHER], "parallel_tool_calls": False},
        {"tools": [TOLD_OTHER], "parallel_tool_calls": False},
    ),
    "a choice by mode": (
        {"tools": [OTHER], "tool_choice": "required"},
        {"tools": [TOLD_OTHER], "tool_choice": "required"},
    ),
    "a choice of a function": (
        {"tools": [OTHER], "tool_choice": {"type": "function", "name": "g"}},
        {
            "tools": [TOLD_OTHER],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
    ),
    "a choice of a custom tool": (
        {"tools": [CUSTOM], "tool_choice": {"type": "custom", "name": "shell"}},
        {
            "tools": [TOLD_CUSTOM],
            "tool_choice": {"type": "function", "function": {"name": "shell"}},
        },
    ),
    "a choice among some tools": (
        {
            "tools": [FUNCTION, OTHER],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "g"}],
            },
        },
        {"tools": [TOLD_OTHER], "tool_choice": "required"},
    ),
}


@pytest.mark.parametrize(
    ("request_fields", "expected"), TRANSLATIONS.values(), ids=TRANSLATIONS.keys()
)
def test_translated(request_fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert told(**request_fields) == expected


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("access_programs", {"access_programs": {"cyber": "standard"}}),
    ("context_management", {"context_management": [{"type": "compaction"}]}),
    ("function_call", {"function_call": "auto"}),
    ("functions", {"functions": []}),
    ("image", {"image": {"context_compression": "enabled"}}),
    ("include[0]", {"include": ["nonsense"]}),
    ("messages", {"messages": []}),
    ("n", {"n": 2}),
    ("prompt", {"prompt": {"id": "pmpt_1"}}),
    ("personality", {"personality": "friendly"}),
    ("prompt_cache_options.prewarm", {"prompt_cache_options": {"prewarm": True}}),
    ("reasoning.context", {"reasoning": {"context": "some_turns"}}),
    ("reasoning.mode", {"reasoning": {"mode": "pro"}}),
    ("reasoning.nonsense", {"reasoning": {"nonsense": 1}}),
    ("response_format", {"response_format": {}, "text": {"format": {"type": "json_object"}}}),
    ("text.format", {"text": {"format": {"type": "grammar"}}}),
    ("text.nonsense", {"text": {"nonsense": 1}}),
    ("tool_choice", {"tools": [OTHER], "tool_choice": "sometimes"}),
    ("tool_choice", {"tools": [OTHER], "tool_choice": {"type": "web_search"}}),
    ("tool_choice", {"tools": [OTHER], "tool_choice": {"type": "function", "name": "x"}}),
    ("tool_choice", {"tool_choice": "required"}),
    (
        "tool_choice.tools[0]",
        {
            "tools": [OTHER],
            "tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]},
        },
    ),
    ("tools[0].format", {"tools": [CUSTOM | {"format": GRAMMAR}]}),
    ("tools[0].name", {"tools": [{"type": "function"}]}),
    ("tools[1].defer_loading", {"tools": [OTHER, FUNCTION | {"defer_loading": True}]}),
    ("tools[1].type", {"tools": [OTHER, {"type": "web_search"}]}),
]


@pytest.mark.parametrize(("param", "request_fields"), REFUSALS, ids=[p for p, _ in REFUSALS])
def test_refused_by_name(param: str, request_fields: dict[str, Any]) -> None:
    assert refused(**request_fields) == param
