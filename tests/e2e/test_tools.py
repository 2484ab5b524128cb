"""MCP tools: offered to the model, called through Kafka on a real server, told as items."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from openai.types.responses.response_output_item import McpCall, McpListTools

from contracts.tools import CallMcpToolV1, ToolResultV1
from contracts.topics import MCP_COMMANDS, TOOLS_RESULTS
from tests.e2e.parts import DIALECTS
from tests.e2e.sse import numbers, streaming
from tests.e2e.topics import Topics
from tests.upstream import UpstreamProcess

MODELS = [DIALECTS["responses"], DIALECTS["chat"]]
STDIO, HTTP = "everything", "everything-http"
CALL_EVENTS = [
    "response.output_item.added",
    "response.mcp_call.in_progress",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.completed",
    "response.output_item.done",
]


def mcp(label: str, **more: Any) -> Any:
    return {"type": "mcp", "server_label": label, "require_approval": "never", **more}


@pytest.mark.parametrize("label", [STDIO, HTTP])
@pytest.mark.parametrize("model", MODELS)
async def test_the_model_calls_a_tool_and_speaks_about_its_result(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, model: str, label: str
) -> None:
    begin = {t.name: await topics.ends(t.name) for t in (MCP_COMMANDS, TOOLS_RESULTS)}
    text = 'call: get-sum {"a": 2, "b": 40} ; say: It says: {output}'
    response = await client.responses.create(model=model, input=text, tools=[mcp(label)])

    listed, call, message = response.output
    assert isinstance(listed, McpListTools)
    assert listed.server_label == label
    assert {"echo", "get-sum"} <= {tool.name for tool in listed.tools}
    assert isinstance(call, McpCall)
    assert (call.server_label, call.name, call.status) == (label, "get-sum", "completed")
    assert call.error is None
    assert call.output is not None
    assert "42" in call.output
    assert message.type == "message"
    assert "42" in response.output_text

    def is_ours(fact: Any) -> bool:
        return bool(fact.response_id == response.id)

    [command] = await topics.facts(MCP_COMMANDS.name, begin[MCP_COMMANDS.name], is_ours)
    [result] = await topics.facts(TOOLS_RESULTS.name, begin[TOOLS_RESULTS.name], is_ours)
    assert isinstance(command, CallMcpToolV1)
    assert isinstance(result, ToolResultV1)
    assert (command.server_label, command.tool) == (label, "get-sum")
    assert (result.call_id, result.output, result.error) == (command.call_id, call.output, None)
    assert await client.responses.retrieve(response.id) == response


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_tells_each_step_of_a_call(
    http: ClientSession, upstream: UpstreamProcess, model: str
) -> None:
    text = 'call: echo {"message": "hello tools"}'
    async with streaming(http, model, text, tools=[mcp(STDIO, allowed_tools=["echo"])]) as stream:
        told = await stream.rest()

    assert numbers(told) == list(range(len(told)))
    final = told[-1]["response"]
    assert told[-1]["type"] == "response.completed"
    assert [item["type"] for item in final["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    assert [tool["name"] for tool in final["output"][0]["tools"]] == ["echo"]
    assert "response.mcp_list_tools.completed" in [event["type"] for event in told]
    of_call = [event for event in told if event.get("output_index") == 1]
    assert list(dict.fromkeys(event["type"] for event in of_call)) == CALL_EVENTS
    assert of_call[-1]["item"] == final["output"][1]
    assert "hello tools" in final["output"][1]["output"]
    done = [e["item"] for e in told if e["type"] == "response.output_item.done"]
    assert done == final["output"]
    # Two turns of the model, in one response.
    assert final["usage"]["input_tokens"] > 0


async def test_calls_side_by_side_and_one_after_the_other_are_one_response(
    client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    text = (
        'call: get-sum {"a": 1, "b": 2}\ncall: echo {"message": "side by side"}\n'
        'then: get-sum {"a": 3, "b": 4}'
    )
    response = await client.responses.create(model=MODELS[0], input=text, tools=[mcp(STDIO)])
    calls = [item for item in response.output if isinstance(item, McpCall)]
    assert [call.name for call in calls] == ["get-sum", "echo", "get-sum"]
    assert len({call.id for call in calls}) == 3
    assert [call.status for call in calls] == ["completed"] * 3
    outputs = [call.output or "" for call in calls]
    assert "3" in outputs[0]
    assert "side by side" in outputs[1]
    assert "7" in outputs[2]


async def test_a_call_that_fails_is_told_to_the_model_and_to_the_client(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    text = 'call: get-sum {"a": "no number"}'
    async with streaming(http, MODELS[0], text, tools=[mcp(STDIO)]) as stream:
        told = await stream.rest()
    assert told[-1]["type"] == "response.completed"
    call = told[-1]["response"]["output"][1]
    assert (call["status"], call["output"]) == ("failed", None)
    assert call["error"]
    assert "response.mcp_call.failed" in [event["type"] for event in told]


async def test_a_chain_goes_on_after_tools(client: AsyncOpenAI, upstream: UpstreamProcess) -> None:
    first = await client.responses.create(
        model=MODELS[0], input='call: echo {"message": "kept"}', tools=[mcp(STDIO)]
    )
    second = await client.responses.create(
        model=MODELS[1], input="say: next", previous_response_id=first.id, tools=[mcp(STDIO)]
    )
    assert second.output_text == "next"
    # The tools are known from the first response already.
    assert [item.type for item in second.output] == ["message"]


async def test_the_real_model_gets_along_with_tools(client: AsyncOpenAI) -> None:
    response = await client.responses.create(
        model=DIALECTS["local"],
        input="Please echo the word hello.",
        tools=[mcp(STDIO, allowed_tools=["echo"])],
        tool_choice="required",
        max_output_tokens=100,
    )
    [call] = [item for item in response.output if isinstance(item, McpCall)][:1]
    assert call.name == "echo"
    assert call.status == "completed"


async def test_the_servers_can_be_looked_at(http: ClientSession) -> None:
    async with http.get("/v1/mcp/servers") as answer:
        servers = {server["server_label"]: server for server in (await answer.json())["data"]}
    assert {label: servers[label]["status"] for label in (STDIO, HTTP)} == {
        STDIO: "ready",
        HTTP: "ready",
    }
