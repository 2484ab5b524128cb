"""A provider of Chat Completions behind the whole API, through the official strict client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent

from tests.e2e.parts import DIALECTS
from tests.upstream import UpstreamProcess

CHAT = DIALECTS["chat"]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "name": name, "parameters": SCHEMA, "strict": True}
    for name in ("get_weather", "get_time")
]
CUSTOM: Any = [{"type": "custom", "name": "run", "description": "Runs it."}]
LOGPROBS: Any = ["message.output_text.logprobs"]
Told = tuple[Response, list[ResponseStreamEvent]]


async def told(client: AsyncOpenAI, said: str, *, stream: bool, **request: Any) -> Told:
    """The Response in the end, and the events on the way; both are checked by the client."""
    given: dict[str, Any] = {"model": CHAT, "input": said, **request}
    if not stream:
        return await client.responses.create(**given), []
    events: list[Any] = [
        event async for event in await client.responses.create(**given, stream=True)
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events[-1].response, events


def types(response: Response) -> list[str]:
    return [item.type for item in response.output]


def one_call(response: Response) -> bool:
    call = response.output[0]
    return call.type == "function_call" and call.name == "get_weather" and bool(call.arguments)


def custom_call(response: Response) -> bool:
    (call,) = response.output
    return call.type == "custom_tool_call" and (call.name, call.input) == ("run", "print(1)")


def thought(response: Response) -> bool:
    item = response.output[0]
    return item.type == "reasoning" and bool(item.content) and types(response)[1] == "message"


def refused(response: Response) -> bool:
    (item,) = response.output
    return item.type == "message" and item.content[0].type == "refusal"


def annotated(response: Response) -> bool:
    (item,) = response.output
    assert item.type == "message"
    part = item.content[0]
    return part.type == "output_text" and part.annotations[0].type == "url_citation"


def known(response: Response) -> bool:
    (item,) = response.output
    assert item.type == "message"
    part = item.content[0]
    return part.type == "output_text" and len((part.logprobs or [])[0].top_logprobs) == 2


def ended(status: str, reason: str) -> Callable[[Response], bool]:
    def holds(response: Response) -> bool:
        details = response.incomplete_details
        return response.status == status and details is not None and details.reason == reason

    return holds


def used(response: Response) -> bool:
    usage = response.usage
    assert usage is not None
    return (
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens,
    ) == (30, 20, 10, 4)


def says(text: str) -> Callable[[Response], bool]:
    return lambda response: response.output_text == text


_USAGE = (
    'say: hi ; usage: {"input_tokens": 30, "cached_tokens": 20, '
    '"output_tokens": 10, "reasoning_tokens": 4}'
)
_FORMAT = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
CASES: dict[str, tuple[str, dict[str, Any], Callable[[Response], bool], set[str]]] = {
    "a text": ("say: hello world", {}, says("hello world"), {"response.output_text.delta"}),
    "a call": (
        'call: get_weather {"city": "Paris"}',
        {"tools": TOOLS},
        one_call,
        {"response.function_call_arguments.delta", "response.function_call_arguments.done"},
    ),
    "parallel calls": (
        "script:parallel_calls",
        {"tools": TOOLS},
        lambda response: types(response) == ["function_call", "function_call"],
        {"response.function_call_arguments.done"},
    ),
    "interleaved calls": (
        "script:interleaved_calls",
        {"tools": TOOLS},
        lambda response: types(response) == ["function_call", "function_call"],
        {"response.function_call_arguments.done"},
    ),
    "one call at a time": (
        "script:parallel_calls",
        {"tools": TOOLS, "parallel_tool_calls": False},
        lambda response: types(response) == ["function_call"],
        {"response.function_call_arguments.done"},
    ),
    "a text and a call": (
        "script:text_and_call",
        {"tools": TOOLS},
        lambda response: types(response) == ["message", "function_call"],
        {"response.output_text.done", "response.function_call_arguments.done"},
    ),
    "a custom call": (
        'call: run {"input": "print(1)"}',
        {"tools": CUSTOM},
        custom_call,
        {"response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"},
    ),
    "JSON by a schema": (
        "where is it?",
        {"text": {"format": _FORMAT}},
        lambda response: '"city"' in response.output_text,
        set(),
    ),
    "any JSON": (
        "give me JSON",
        {"text": {"format": {"type": "json_object"}}},
        lambda response: response.output_text.startswith("{"),
        set(),
    ),
    "reasoning_content": (
        "script:reasoning",
        {},
        thought,
        {"response.reasoning_text.delta", "response.reasoning_text.done"},
    ),
    "reasoning": (
        "script:reasoning_alias",
        {},
        thought,
        {"response.reasoning_text.delta", "response.reasoning_text.done"},
    ),
    "log probabilities": (
        "script:logprobs",
        {"include": LOGPROBS, "top_logprobs": 2},
        known,
        {"response.output_text.delta"},
    ),
    "a refusal": (
        "script:refusal",
        {},
        refused,
        {"response.refusal.delta", "response.refusal.done"},
    ),
    "annotations": (
        "script:annotations",
        {},
        annotated,
        {"response.output_text.annotation.added"},
    ),
    "no word": ("script:empty", {}, says(""), set()),
    "the length": (
        "tokens: 50",
        {"max_output_tokens": 20},
        ended("incomplete", "max_output_tokens"),
        {"response.incomplete"},
    ),
    "a length of its own": (
        "script:incomplete",
        {},
        ended("incomplete", "max_output_tokens"),
        {"response.incomplete"},
    ),
    "a filter": (
        "script:content_filter",
        {},
        ended("incomplete", "content_filter"),
        {"response.incomplete"},
    ),
    "usage": (_USAGE, {}, used, set()),
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("text", "request_fields", "holds", "kinds"), CASES.values(), ids=CASES)
async def test_a_chat_model_answers_as_the_responses_api_does(
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    text: str,
    request_fields: dict[str, Any],
    holds: Callable[[Response], bool],
    kinds: set[str],
    stream: bool,
) -> None:
    response, events = await told(client, text, stream=stream, **request_fields)

    assert holds(response), response
    if stream:
        assert kinds <= {event.type for event in events}
    assert await client.responses.retrieve(response.id) == response


async def test_a_stream_that_fails_ends_as_failed(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    response, _ = await told(client, "script:failed", stream=True)

    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == "server_error"


async def test_a_conversation_that_is_too_long_is_cut_only_when_that_is_wanted(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    talk: Any = [
        message
        for number in range(4)
        for message in (
            {"role": "user", "content": f"{mark} {number}"},
            {"role": "assistant", "content": "yes"},
        )
    ]
    last: Any = {"role": "user", "content": f"fault:contextx2#{mark} ; say: ok ; {mark}"}

    response = await client.responses.create(model=CHAT, input=[*talk, last], truncation="auto")

    assert response.output_text.startswith("ok")
    assert response.truncation == "auto"
    asked = [request["body"]["messages"] for request in upstream.requests(mark)]
    assert [len(messages) for messages in asked] == [9, 3, 1]
    assert asked[-1][0]["content"] == last["content"]
