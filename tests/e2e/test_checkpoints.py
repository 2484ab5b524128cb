"""Workers that are killed within a tool loop: what was paid is not paid again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.tools import CallMcpToolV1, ToolResultV1
from contracts.topics import COSTS_RECORDED, MCP_COMMANDS, TOOLS_RESULTS
from tests.e2e.parts import DIALECTS
from tests.e2e.sse import Event, numbers, streaming
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODELS = (DIALECTS["responses"], DIALECTS["chat"])
TOOLS: list[Any] = [
    {
        "type": "mcp",
        "server_label": "everything",
        "require_approval": "never",
        "allowed_tools": ["echo", "trigger-long-running-operation"],
    }
]
USAGE = 'usage: {"input_tokens": 100, "output_tokens": 10}'
LONG = 'call: trigger-long-running-operation {"duration": 5, "steps": 1}'


class Asked:
    """Requests of both dialects, each as JSON, as a stream and in the background."""

    def __init__(self, client: AsyncOpenAI, http: ClientSession) -> None:
        self._client, self._http = client, http
        self.streams: list[list[Event]] = []
        self.tasks: list[asyncio.Task[dict[str, Any]]] = []

    def ask(self, text: str) -> None:
        for model in MODELS:
            for way in (self._json, self._stream, self._background):
                self.tasks.append(asyncio.create_task(way(model, text)))

    async def answers(self) -> list[dict[str, Any]]:
        return await asyncio.gather(*self.tasks)

    async def _json(self, model: str, text: str) -> dict[str, Any]:
        answer = await self._client.responses.create(model=model, input=text, tools=TOOLS)
        return answer.model_dump()

    async def _stream(self, model: str, text: str) -> dict[str, Any]:
        async with streaming(self._http, model, text, tools=TOOLS) as stream:
            told = await stream.rest()
        assert numbers(told) == list(range(len(told)))
        self.streams.append(told)
        final: dict[str, Any] = told[-1]["response"]
        return final

    async def _background(self, model: str, text: str) -> dict[str, Any]:
        begun = await self._client.responses.create(
            model=model, input=text, tools=TOOLS, background=True
        )

        async def ended() -> dict[str, Any] | None:
            now = await self._client.responses.retrieve(begun.id)
            return None if now.status in ("queued", "in_progress") else now.model_dump()

        return await found(ended, f"{begun.id} has ended", bound_s=40)


@pytest.fixture
def asked(client: AsyncOpenAI, http: ClientSession) -> Asked:
    return Asked(client, http)


async def executions(topics: Topics, begin: Any, ids: set[str]) -> dict[str, set[float]]:
    """How long each call of these responses took, by its id: once for each time it was made."""

    def is_ours(fact: Any) -> bool:
        return isinstance(fact, ToolResultV1) and fact.response_id in ids

    results = await topics.facts(TOOLS_RESULTS.name, begin, is_ours, count=len(ids))
    taken: dict[str, set[float]] = defaultdict(set)
    for result in results:
        taken[result.call_id].add(result.latency_ms)
    return taken


async def test_a_turn_and_a_call_outlive_the_worker_that_waits_for_the_call(
    stack: Stack, topics: Topics, upstream: UpstreamProcess, asked: Asked, mark: str
) -> None:
    begin = {t.name: await topics.ends(t.name) for t in (MCP_COMMANDS, TOOLS_RESULTS)}
    asked.ask(f"{LONG} ; {USAGE} ; say: {mark} {{output}}")
    commands = await topics.facts(
        MCP_COMMANDS.name,
        begin[MCP_COMMANDS.name],
        lambda fact: isinstance(fact, CallMcpToolV1),
        count=6,
    )
    killed = stack.kill("worker")
    answers = await asked.answers()
    await stack.ready_again("worker", after=killed)

    ids = {answer["id"] for answer in answers}
    assert ids == {command.response_id for command in commands}
    for answer in answers:
        listed, call, message = answer["output"]
        assert (answer["status"], listed["type"]) == ("completed", "mcp_list_tools")
        assert call["status"] == "completed"
        assert message["content"][0]["text"].startswith(mark)
        assert message["content"][0]["text"].endswith(call["output"])
        usage = answer["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (200, 20)
    # Two turns each, of which none was asked twice.
    assert len(upstream.requests(mark)) == 12
    taken = await executions(topics, begin[TOOLS_RESULTS.name], ids)
    assert len(taken) == 6
    assert all(len(once) == 1 for once in taken.values())
    for told in asked.streams:
        done = [e["item"] for e in told if e["type"] == "response.output_item.done"]
        assert done == told[-1]["response"]["output"]


async def test_a_turn_that_said_nothing_is_asked_again_and_only_that(
    stack: Stack, topics: Topics, upstream: UpstreamProcess, asked: Asked, mark: str
) -> None:
    begin = await topics.ends(TOOLS_RESULTS.name)
    call = f'call: echo {{"message": "{mark}"}} ; {USAGE}'
    # No second turn may come before the last first one: answers are dealt in their order.
    upstream.enqueue(
        {"do": f"{call} ; fault:hold#{mark}first", "match": mark, "times": 6},
        {"do": f"say: never told ; fault:hold#{mark}", "match": mark, "times": 6},
    )
    asked.ask(f"{call} ; say: done")
    await until(lambda: len(_open(upstream, mark)) == 6, "six first turns are under way")
    upstream.release(f"{mark}first")
    await until(
        lambda: len(upstream.requests(mark)) == 12 and len(_open(upstream, mark)) == 6,
        "six second turns are under way",
    )
    killed = stack.kill("worker")
    answers = await asked.answers()
    await stack.ready_again("worker", after=killed)
    upstream.release(mark)

    for answer in answers:
        assert [item["type"] for item in answer["output"]][1:] == ["mcp_call", "message"]
        assert answer["output"][-1]["content"][0]["text"] == "done"
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (200, 20)
    assert len(upstream.requests(mark)) == 18
    taken = await executions(topics, begin, {answer["id"] for answer in answers})
    assert len(taken) == 6
    assert all(len(once) == 1 for once in taken.values())


async def test_a_stream_that_told_of_its_second_turn_fails_with_all_it_told(
    stack: Stack,
    http: ClientSession,
    client: AsyncOpenAI,
    topics: Topics,
    upstream: UpstreamProcess,
    mark: str,
) -> None:
    begin = await topics.ends(COSTS_RECORDED.name)
    call = f'call: echo {{"message": "{mark}"}} ; {USAGE}'
    upstream.enqueue(
        {"do": call, "match": mark}, {"do": f"tokens: 40 ; fault:hold@20#{mark}", "match": mark}
    )
    async with streaming(http, MODELS[0], mark, tools=TOOLS) as stream:
        await stream.until_some(25)
        killed = stack.kill("worker")
        told = await stream.rest()
    upstream.release(mark)
    await stack.ready_again("worker", after=killed)

    assert numbers(told) == list(range(len(told)))
    final = told[-1]["response"]
    assert (told[-1]["type"], final["status"]) == ("response.failed", "failed")
    listed, made, message = final["output"]
    assert (listed["type"], made["status"], message["status"]) == (
        "mcp_list_tools",
        "completed",
        "incomplete",
    )
    assert message["content"][0]["text"].startswith("w0 w1 w2")
    assert len(upstream.requests(mark)) == 2
    # The first turn as it was counted, and an estimate on top.
    assert final["usage"]["input_tokens"] > 100
    assert final["usage"]["output_tokens"] > 10

    def is_of_turns(fact: Any) -> bool:
        return bool(fact.response_id == final["id"] and fact.unit == "output_tokens")

    [line] = await topics.facts(COSTS_RECORDED.name, begin, is_of_turns)
    assert line.estimated
    kept = await client.responses.retrieve(final["id"])
    assert kept.status == "failed"
    assert kept.usage is not None
    assert kept.usage.total_tokens == final["usage"]["total_tokens"]


def _open(upstream: UpstreamProcess, mark: str) -> list[Any]:
    requests = upstream.requests(mark)
    return [one for one in requests if not one["finished"] and not one["client_closed"]]
