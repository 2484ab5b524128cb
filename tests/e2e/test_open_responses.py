"""The 17 cases of the Open Responses compliance suite, written anew from its specification.

The suite itself is TypeScript in a repository, which a build that has only package registries
can't fetch; docs/developer.md says how to run it. Each test here has the name of a case, and asks
and asserts what the case does: shapes by the openai package's models in strict mode, and the
fields that the suite's schema demands besides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse
from openai.types.responses import CompactedResponse, Response

from tests.e2e.cases.strict import EVENT, ITEM, assert_response, assert_stream, assert_typed
from tests.e2e.parts import DIALECTS
from tests.e2e.sse import events as events_of
from tests.upstream import UpstreamProcess
from tests.upstream.samples import png_b64

Json = dict[str, Any]
TIMEOUT_S = 30.0
TERMINAL = {"response.completed", "response.failed", "response.incomplete"}
# What a response must have; the openai package types most of them as optional.
REQUIRED = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model"),
    *("previous_response_id", "instructions", "output", "error", "tools", "tool_choice"),
    *("truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty"),
    *("frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier"),
    *("metadata", "safety_identifier", "prompt_cache_key"),
}
WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
either_dialect = pytest.mark.parametrize("model", [DIALECTS["responses"], DIALECTS["chat"]])


def said(role: str, content: Any, **fields: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **fields}


def assert_complete(response: Json, *types: str) -> None:
    """Completed, with output of these types, and with every field that the suite demands."""
    assert_response(response)
    assert response.keys() >= REQUIRED
    assert response["status"] == "completed"
    assert {item["type"] for item in response["output"]} >= {*types}
    assert response["output"]
    for tool in response["tools"]:
        assert tool.keys() >= {"type", "name", "description", "parameters", "strict"}


async def create(http: ClientSession, **body: Any) -> Json:
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        response: Json = await answer.json()
    return response


async def compact(http: ClientSession, **body: Any) -> Json:
    async with http.post("/v1/responses/compact", json=body) as answer:
        assert answer.status == 200, await answer.text()
        compacted: Json = await answer.json()
    for item in compacted["output"]:
        assert_typed(ITEM.validate_python(item, strict=True))
    # The package types what users said as output messages, which the API does not send.
    own = [item for item in compacted["output"] if item["type"] == "compaction"]
    CompactedResponse.model_validate(compacted | {"output": own}, strict=True)
    assert compacted["object"] == "response.compaction"
    assert compacted["usage"]["total_tokens"] >= compacted["usage"]["output_tokens"]
    return compacted


class Session:
    """A WebSocket to /v1/responses, one turn after the other."""

    def __init__(self, socket: ClientWebSocketResponse, model: str) -> None:
        self._socket = socket
        self._model = model

    async def turn(self, **body: Any) -> list[Json]:
        """Create a response and return its events up to the last one or the error."""
        await self._socket.send_json({"type": "response.create", "model": self._model, **body})
        told: list[Json] = []
        while not told or told[-1]["type"] not in TERMINAL | {"error"}:
            told.append(orjson.loads(await self._socket.receive_str(timeout=TIMEOUT_S)))
        return told

    async def complete(self, **body: Any) -> Json:
        """Create a response that completes, check its events, and return it."""
        told = await self.turn(**body)
        assert told[-1]["type"] == "response.completed", told[-1]
        assert_stream(told)
        response: Json = told[-1]["response"]
        assert_complete(response)
        return response

    async def refused(self, **body: Any) -> str:
        """Create a response that can't be, and return the code of the error."""
        told = await self.turn(**body)
        last = told[-1]
        if last["type"] == "error":
            assert isinstance(last["status"], int)
            assert last["error"].keys() >= {"code", "message"}
            return str(last["error"]["code"])
        EVENT.validate_python(last, strict=True)
        return str(last["response"]["error"]["code"])


@asynccontextmanager
async def connected(http: ClientSession, model: str) -> AsyncIterator[Session]:
    """Open a session for the block."""
    async with http.ws_connect("/v1/responses") as socket:
        yield Session(socket, model)


@either_dialect
async def test_basic_response(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    asked = [said("user", "Say hello in exactly 3 words.")]
    assert_complete(await create(http, model=model, input=asked), "message")


@either_dialect
async def test_assistant_phase(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    asked = [
        said("assistant", "I should answer with the saved number.", phase="commentary"),
        said("assistant", "The number is four.", phase="final_answer"),
        said("user", "Repeat only the number."),
    ]
    assert_complete(await create(http, model=model, input=asked), "message")


async def test_response_output_phase_schema(http: ClientSession, upstream: UpstreamProcess) -> None:
    # The suite holds its own schema to a fixture here; this one comes through the system.
    response = await create(http, model=DIALECTS["responses"], input="script:phases")
    assert_complete(response, "message")
    phases = [item["phase"] for item in response["output"]]
    assert phases == ["commentary", "final_answer"]
    assert all(hasattr(item, "phase") for item in Response.model_validate(response).output)


@either_dialect
async def test_streaming_response(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    body = {"model": model, "stream": True, "input": [said("user", "Count from 1 to 5.")]}
    async with http.post("/v1/responses", json=body) as answer:
        told = events_of(await answer.read())
    assert_stream(told)
    assert_complete(told[-1]["response"], "message")


@either_dialect
async def test_websocket_response(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        await session.complete(input=[said("user", "Count from 1 to 3.")])


@either_dialect
async def test_websocket_sequential_responses(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        first = await session.complete(store=False, input="Reply with exactly: first")
        second = await session.complete(store=False, input="Reply with exactly: second")
    assert first["id"] != second["id"]


@either_dialect
async def test_websocket_continuation(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        asked = "Remember the code word: cobalt. Reply with OK."
        first = await session.complete(store=False, input=asked)
        second = await session.complete(
            store=False, previous_response_id=first["id"], input="script:recall"
        )
    assert asked in second["output"][0]["content"][0]["text"]


@either_dialect
async def test_websocket_reconnect_store_false_recovery(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        first = await session.complete(store=False, input="Remember the code word: copper.")
    async with connected(http, model) as session:
        code = await session.refused(
            store=False, previous_response_id=first["id"], input="Try to continue."
        )
        assert code == "previous_response_not_found"
        await session.complete(store=False, input=[said("user", "Start a new response.")])


@either_dialect
async def test_websocket_previous_response_not_found(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        missing = f"resp_openresponses_missing_{uuid4().hex}"
        code = await session.refused(store=False, previous_response_id=missing, input="Fail.")
    assert code == "previous_response_not_found"


@either_dialect
async def test_websocket_failed_continuation_evicts_cache(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    async with connected(http, model) as session:
        first = await session.complete(store=False, input="Remember the code word: ember.")
        orphan = {"type": "function_call_output", "call_id": "call_missing", "output": "Nothing."}
        await session.refused(store=False, previous_response_id=first["id"], input=[orphan])
        code = await session.refused(
            store=False, previous_response_id=first["id"], input="Try to continue."
        )
    assert code == "previous_response_not_found"


@either_dialect
async def test_websocket_compact_new_chain(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    compacted = await compact(
        http,
        model=model,
        input=[
            said("user", [{"type": "input_text", "text": "Remember the code word: slate."}]),
            said("assistant", [{"type": "output_text", "text": "OK."}]),
            said("user", [{"type": "input_text", "text": "Compress this conversation."}]),
        ],
    )
    async with connected(http, model) as session:
        asked = [*compacted["output"], said("user", "Continue from here.")]
        await session.complete(store=False, input=asked, tools=[])


@either_dialect
async def test_system_prompt(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    asked = [said("system", "You are a pirate."), said("user", "Say hello.")]
    assert_complete(await create(http, model=model, input=asked), "message")


@either_dialect
async def test_tool_calling(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    question = "What's the weather like in San Francisco?"
    upstream.enqueue({"do": "script:function_call", "match": question})
    asked = [said("user", question)]
    response = await create(http, model=model, input=asked, tools=[WEATHER])
    assert_complete(response, "function_call")


@either_dialect
async def test_image_input(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    heart = f"data:image/png;base64,{png_b64('a red heart')}"
    content = [
        {"type": "input_text", "text": "What do you see in this image?"},
        {"type": "input_image", "image_url": heart},
    ]
    assert_complete(await create(http, model=model, input=[said("user", content)]), "message")


@either_dialect
async def test_multi_turn(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    asked = [
        said("user", "My name is Alice."),
        said("assistant", "Hello Alice! Nice to meet you."),
        said("user", "What is my name?"),
    ]
    assert_complete(await create(http, model=model, input=asked), "message")


@either_dialect
async def test_compact_response(http: ClientSession, upstream: UpstreamProcess, model: str) -> None:
    compacted = await compact(
        http,
        model=model,
        prompt_cache_key="openresponses-compact-test",
        input=[
            said("user", "We agreed to launch on Tuesday and notify support first."),
            said("assistant", "Understood. The launch is Tuesday."),
        ],
    )
    assert "compaction" in {item["type"] for item in compacted["output"]}


async def test_compact_missing_model(http: ClientSession, upstream: UpstreamProcess) -> None:
    body = {"input": [said("user", "Compact this conversation.")]}
    async with http.post("/v1/responses/compact", json=body) as answer:
        assert answer.status in (400, 422)
        assert (await answer.json())["error"]["param"] == "model"
