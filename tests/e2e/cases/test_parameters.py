"""Every parameter of create: it reaches the provider, comes back, or is refused by its name."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from aiohttp import ClientSession
from openai.types.responses import ResponseIncludable
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared_params import ReasoningEffort

from tests.e2e.cases.asking import CHAT, NATIVE, Case, Outcome, ask_all, every_way
from tests.e2e.cases.strict import assert_response, assert_stream
from tests.upstream import UpstreamProcess

Json = dict[str, Any]
BOTH = [NATIVE, CHAT]
# What Antiphon does itself: no provider is told.
OWN = {"background", "conversation", "previous_response_id", "stream"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**CITY, "additionalProperties": False}


def function(**fields: Any) -> Json:
    return {"type": "function", "name": "get_weather", "parameters": CITY, **fields}


def format_of(**fields: Any) -> Json:
    return {"text": {"format": {"type": "json_schema", "name": "city", "schema": CLOSED, **fields}}}


# By name: the parameters, to be obeyed by providers of both dialects.
COMMON: dict[str, Json] = {
    "temperature_least": {"temperature": 0},
    "temperature_most": {"temperature": 2},
    "top_p_least": {"top_p": 0},
    "top_p": {"top_p": 0.25},
    "max_output_tokens": {"max_output_tokens": 64},
    "instructions": {"instructions": "Be brief. Grüße!"},
    "instructions_empty": {"instructions": ""},
    "metadata": {"metadata": {"topic": "birds", "ключ": "значение"}},
    "metadata_empty": {"metadata": {}},
    "metadata_most": {"metadata": {f"key{number}": "v" * 512 for number in range(16)}},
    "store": {"store": True},
    "store_not": {"store": False},
    "parallel_tool_calls": {"parallel_tool_calls": True, "tools": [function()]},
    "parallel_tool_calls_not": {"parallel_tool_calls": False, "tools": [function()]},
    "max_tool_calls": {"max_tool_calls": 3},
    "tools_none": {"tools": []},
    "tool_function": {"tools": [function()]},
    "tool_function_described": {"tools": [function(description="Looks.", strict=False)]},
    "tool_function_strict": {"tools": [function(parameters=CLOSED, strict=True)]},
    "tool_function_without_parameters": {"tools": [{"type": "function", "name": "now"}]},
    "tool_custom": {"tools": [{"type": "custom", "name": "sql", "description": "Runs SQL."}]},
    "tool_choice_none": {"tools": [function()], "tool_choice": "none"},
    "tool_choice_auto": {"tools": [function()], "tool_choice": "auto"},
    "tool_choice_required": {"tools": [function()], "tool_choice": "required"},
    "tool_choice_function": {
        "tools": [function()],
        "tool_choice": {"type": "function", "name": "get_weather"},
    },
    "tool_choice_allowed": {
        "tools": [function(), function(name="get_time")],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "get_time"}],
        },
    },
    "text_plain": {"text": {"format": {"type": "text"}}},
    "text_object": {"text": {"format": {"type": "json_object"}}},
    "text_schema": format_of(),
    "text_schema_strict": format_of(strict=True, description="A city."),
    **{f"verbosity_{level}": {"text": {"verbosity": level}} for level in ("low", "medium", "high")},
    **{
        f"effort_{level}": {"reasoning": {"effort": level}}
        for level in get_args(get_args(ReasoningEffort)[0])
    },
    **{
        f"summary_{kind}": {"reasoning": {"summary": kind}}
        for kind in ("auto", "concise", "detailed")
    },
    **{f"include_{name}": {"include": [name]} for name in get_args(ResponseIncludable)},
    "include_nothing": {"include": []},
    "top_logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
    "truncation_disabled": {"truncation": "disabled"},
    "truncation_auto": {"truncation": "auto"},
    **{f"tier_{tier}": {"service_tier": tier} for tier in ("auto", "default")},
    "user": {"user": "somebody"},
    "prompt_cache_key": {"prompt_cache_key": "a-key"},
    "prompt_cache_retention": {"prompt_cache_retention": "24h"},
    "several": {"temperature": 0.5, "top_p": 0.5, "max_output_tokens": 99, "user": "somebody"},
    "nulls": {"temperature": None, "tools": None, "metadata": None, "include": None},
}
# By name: what only a provider with the Responses API can do.
NATIVE_ONLY: dict[str, Json] = {
    "tool_web_search": {"tools": [{"type": "web_search", "search_context_size": "low"}]},
    "tool_file_search": {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    "tool_image_generation": {"tools": [{"type": "image_generation", "size": "1024x1024"}]},
    "tool_code_interpreter": {
        "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]
    },
    "tool_custom_grammar": {
        "tools": [
            {
                "type": "custom",
                "name": "date",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
            }
        ]
    },
    "tool_choice_hosted": {
        "tools": [{"type": "web_search_preview"}],
        "tool_choice": {"type": "web_search_preview"},
    },
    "prompt": {"prompt": {"id": "pmpt_1", "version": "2", "variables": {"city": "Paris"}}},
    "context_management": {
        "context_management": [{"type": "compaction", "compact_threshold": 9000}]
    },
    "access_programs": {"access_programs": {"cyber": "standard"}},
    "image": {"image": {"context_compression": "enabled"}},
    "moderation": {"moderation": {"model": "omni-moderation-latest"}},
    "prompt_cache_options": {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
    "client_metadata": {"client_metadata": {"made_by": "a test"}},
    "tier_flex": {"service_tier": "flex"},
    "tier_priority": {"service_tier": "priority"},
}
# Of these, what must not be dropped, and what the refusal names.
REFUSED_BY_CHAT = {
    "tool_web_search": "tools[0].type",
    "tool_file_search": "tools[0].type",
    "tool_image_generation": "tools[0].type",
    "tool_code_interpreter": "tools[0].type",
    "tool_custom_grammar": "tools[0].format",
    "tool_choice_hosted": "tools[0].type",
    "prompt": "prompt",
    "context_management": "context_management",
    "access_programs": "access_programs",
    "image": "image",
    "tier_flex": "service_tier",
    "tier_priority": "service_tier",
}
PARAMETERS = COMMON | NATIVE_ONLY
CASES = [
    *(c for name, given in COMMON.items() for c in every_way(name, "say: fine", given, BOTH)),
    *(
        c
        for name, given in NATIVE_ONLY.items()
        for c in every_way(name, "say: fine", given, [NATIVE])
    ),
]
INPUTS: dict[str, Any] = {
    "text": "say: seen",
    "easy_message": [{"role": "user", "content": "say: seen"}],
    "message": [{"type": "message", "role": "user", "content": "say: seen"}],
    "part": [{"role": "user", "content": [{"type": "input_text", "text": "say: seen"}]}],
    "parts": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "say: "},
                {"type": "input_text", "text": "seen"},
            ],
        }
    ],
    "system": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "say: seen"},
    ],
    "developer": [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"role": "user", "content": "say: seen"},
    ],
    "history": [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "say: seen"},
    ],
    "history_in_parts": [
        {"role": "user", "content": "Hello."},
        {
            "type": "message",
            "id": "msg_before",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
        },
        {"role": "user", "content": "say: seen"},
    ],
    "refused_before": [
        {"role": "user", "content": "Hello."},
        {
            "type": "message",
            "id": "msg_before",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "No."}],
        },
        {"role": "user", "content": "say: seen"},
    ],
    "image": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "say: seen"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
            ],
        }
    ],
    "image_alone_in_data": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
                {"type": "input_text", "text": "say: seen"},
            ],
        }
    ],
    "file": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "say: seen"},
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,JVBERi0=",
                },
            ],
        }
    ],
    "function_called_before": [
        {"role": "user", "content": "say: seen"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
    ],
    "functions_called_at_once_before": [
        {"role": "user", "content": "say: seen"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_2", "output": "2"},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
    ],
    "output_in_parts": [
        {"role": "user", "content": "say: seen"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "1"}],
        },
    ],
    "custom_tool_called_before": [
        {"role": "user", "content": "say: seen"},
        {"type": "custom_tool_call", "call_id": "call_1", "name": "sql", "input": "SELECT 1"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "1"},
    ],
    "reasoned_before": [
        {"role": "user", "content": "Hello."},
        {
            "type": "reasoning",
            "id": "rs_before",
            "summary": [{"type": "summary_text", "text": "A greeting."}],
        },
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "say: seen"},
    ],
}
INPUT_CASES = [
    c for name, given in INPUTS.items() for c in every_way(f"input_{name}", given, {}, BOTH)
]
# A shape of each parameter that is not its own.
WRONG: dict[str, Any] = {
    "background": "yes",
    "background_options": "soon",
    "context_management": "compaction",
    "conversation": 7,
    "include": "everything",
    "input": 7,
    "instructions": 7,
    "max_output_tokens": -1,
    "max_tool_calls": "three",
    "metadata": {"key": 7},
    "model": 7,
    "parallel_tool_calls": "yes",
    "previous_response_id": 7,
    "prompt": "a prompt",
    "prompt_cache_key": 7,
    "reasoning": "hard",
    "safety_identifier": 7,
    "service_tier": "golden",
    "store": "yes",
    "stream": "yes",
    "stream_options": 7,
    "temperature": 2.5,
    "text": "plain",
    "tool_choice": 7,
    "tools": {},
    "top_logprobs": 21,
    "top_p": 1.5,
    "truncation": "sometimes",
    "user": 7,
}


@pytest.fixture(scope="module")
async def outcomes(http: ClientSession, upstream_process: UpstreamProcess) -> dict[str, Outcome]:
    upstream_process.reset()
    return await ask_all(http, upstream_process, [*CASES, *INPUT_CASES])


def assert_answered(outcome: Outcome, case: Case) -> None:
    assert outcome.status == 200, outcome.body
    if case.stream:
        assert_stream(outcome.events)
    assert_response(outcome.response)
    assert (outcome.response["status"], outcome.response["model"]) == ("completed", case.model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_a_parameter_comes_back_in_the_response(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    outcome = outcomes[case.id]
    assert_answered(outcome, case)

    for name, value in case.parameters.items():
        if value is not None and name in outcome.response and name != "service_tier":
            assert _holds(outcome.response[name], value), name
    # The tier is the one that the provider took, which need not be the one asked for.
    assert outcome.response["service_tier"] in ("default", case.parameters.get("service_tier"))
    kept = case.parameters.get("store") is not False
    assert outcome.stored == (outcome.response if kept else None)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.model == NATIVE], ids=lambda case: case.id
)
async def test_a_parameter_reaches_a_native_provider_as_the_client_wrote_it(
    outcomes: dict[str, Outcome], case: Case
) -> None:
    [asked] = outcomes[case.id].asked
    sent = {name: value for name, value in case.parameters.items() if name not in OWN}
    assert {name: asked.get(name, "absent") for name in sent} == sent


@pytest.mark.parametrize("case", INPUT_CASES, ids=lambda case: case.id)
async def test_input_of_every_form_is_understood(outcomes: dict[str, Outcome], case: Case) -> None:
    outcome = outcomes[case.id]
    assert_answered(outcome, case)
    assert outcome.response["output"][0]["content"][0]["text"] == "seen"
    if case.model == NATIVE:
        [asked] = outcome.asked
        assert asked["input"] == case.input


@pytest.mark.parametrize("name", REFUSED_BY_CHAT)
async def test_what_a_chat_provider_can_not_do_is_refused_by_its_name(
    http: ClientSession, upstream: UpstreamProcess, name: str
) -> None:
    body = {"model": CHAT, "input": "say: fine", **NATIVE_ONLY[name]}
    async with http.post("/v1/responses", json=body) as answer:
        refused = await answer.json()
    assert answer.status == 400, refused
    assert refused["error"]["param"] == REFUSED_BY_CHAT[name]
    assert upstream.requests() == []


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("model", BOTH, ids=["native", "chat"])
async def test_a_parameter_of_another_type_is_refused_by_its_name(
    http: ClientSession, name: str, model: str
) -> None:
    body = {"model": model, "input": "say: fine", name: WRONG[name]}
    async with http.post("/v1/responses", json=body) as answer:
        refused = await answer.json()
    assert answer.status == 400, refused
    assert refused["error"]["type"] == "invalid_request_error"
    assert str(refused["error"]["param"]).startswith(name)


def test_no_parameter_of_the_package_is_forgotten_here() -> None:
    tried = {name for given in PARAMETERS.values() for name in given} | set(WRONG)
    assert tried >= set(ResponseCreateParamsBase.__annotations__)


def _holds(told: Any, given: Any) -> bool:
    """Whether what was told says all that was given; it may say more."""
    if isinstance(given, dict) and isinstance(told, dict):
        return all(name in told and _holds(told[name], given[name]) for name in given)
    if isinstance(given, list) and isinstance(told, list) and len(told) == len(given):
        return all(map(_holds, told, given))
    return bool(told == given)
