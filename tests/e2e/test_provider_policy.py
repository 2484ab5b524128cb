"""Limits, breakers, fallbacks and models without tools, as clients see them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.topics import RESPONSES_LIFECYCLE
from infra.local.ports import HOST
from tests.e2e.parts import DIALECTS, NARROW, SPARED, TOOLLESS
from tests.e2e.stack import Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
TOOLS = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]


async def post(http: ClientSession, text: str, **more: Any) -> tuple[int, Any, dict[str, Any]]:
    async with http.post("/v1/responses", json={"input": text, **more}) as answer:
        return answer.status, answer.headers, await answer.json()


async def test_a_client_is_told_when_the_provider_wants_to_be_asked_again(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    status, headers, body = await post(http, "fault:429@33", model=MODEL)
    assert (status, headers["retry-after"]) == (429, "33")
    assert body.keys() == {"error"}
    assert body["error"]["type"] == "rate_limit_error"


async def test_above_the_limit_of_its_provider_a_request_is_turned_away(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    held = asyncio.create_task(post(http, f"say: {mark} ; fault:hold#{mark}", model=NARROW))
    await until(lambda: upstream.requests(mark), "the provider has the first request")
    status, headers, body = await post(http, "say: second", model=NARROW)
    assert (status, headers["retry-after"]) == (503, "1")
    assert body["error"]["code"] == "provider_busy"
    upstream.release(mark)
    assert (await held)[2]["status"] == "completed"


async def test_a_provider_that_keeps_failing_is_left_alone_and_tried_again(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    for _ in range(3):
        assert (await post(http, f"{mark} ; fault:500", model=NARROW))[0] == 502
    status, headers, body = await post(http, f"say: {mark}", model=NARROW)
    assert (status, headers["retry-after"]) == (503, "1")
    assert body["error"]["code"] == "provider_unavailable"
    assert len(upstream.requests(mark)) == 3

    async def heals() -> bool:
        return (await post(http, f"say: {mark}", model=NARROW))[0] == 200

    await found(heals, "the provider is asked again")


async def test_a_background_response_outwaits_its_provider_s_limit_and_breaker(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    begin = await topics.ends(RESPONSES_LIFECYCLE.name)
    for n in range(4):
        await client.responses.create(
            model=NARROW,
            input=f"say: {n} ; fault:hang@0.3",
            background=True,
            metadata={"chat_id": mark},
        )

    def is_ours(fact: Any) -> bool:
        return bool(fact.TYPE == "antiphon.response.finished.v1" and fact.principal.chat == mark)

    facts = await topics.facts(RESPONSES_LIFECYCLE.name, begin, is_ours, count=4)
    assert {fact.status for fact in facts} == {"completed"}


@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_provider_answers_for_one_that_fails_and_is_named(
    client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str, stream: bool
) -> None:
    begin = await topics.ends(RESPONSES_LIFECYCLE.name)
    answer: Any = await client.responses.create(
        model=SPARED,
        input="say: saved ; fault:503x1",
        stream=stream,
        metadata={"chat_id": mark},
    )
    if stream:
        answer = [event async for event in answer][-1].response
    assert answer.output_text == "saved"

    def is_ours(fact: Any) -> bool:
        return bool(fact.TYPE == "antiphon.response.finished.v1" and fact.principal.chat == mark)

    [fact] = await topics.facts(RESPONSES_LIFECYCLE.name, begin, is_ours)
    assert fact.provider == "spare"


@pytest.mark.parametrize("way", [{}, {"stream": True}, {"background": True}])
async def test_tools_that_a_model_lacks_are_left_out_with_a_warning(
    http: ClientSession, upstream: UpstreamProcess, way: dict[str, Any]
) -> None:
    body = {"model": TOOLLESS, "input": "say: hello", "tools": TOOLS, **way}
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200
        assert answer.headers["warnings"].startswith("tools_dropped: ")
        text = await answer.text()
    if not way:
        assert '"antiphon_warnings":"tools_dropped: ' in text
    elif "stream" in way:
        last = [line for line in text.splitlines() if "response.completed" in line][-1]
        assert '"antiphon_warnings":"tools_dropped: ' in last
    await until(upstream.requests, "the provider was asked")
    [request] = upstream.requests()
    assert "tools" not in request["body"]


async def test_a_choice_that_demands_a_tool_is_refused_for_such_a_model(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    status, headers, body = await post(
        http, "say: hello", model=TOOLLESS, tools=TOOLS, tool_choice="required"
    )
    assert (status, body["error"]["param"]) == (400, "tool_choice")
    assert "warnings" not in headers
    assert upstream.requests() == []


async def test_tools_that_a_model_has_come_without_a_warning(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    status, headers, _ = await post(http, "say: hello", model=MODEL, tools=TOOLS)
    assert status == 200
    assert "warnings" not in headers


async def test_the_worker_counts_what_it_does(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess
) -> None:
    await post(http, "say: hello", model=MODEL)
    url = f"http://{HOST}:{stack.part('worker').port}/metrics"
    async with http.get(url) as answer:
        text = await answer.text()
    labels = f'{{model="{MODEL}",outcome="completed",provider="openai"}}'
    for line in (
        f"antiphon_worker_response_duration_seconds_count{labels}",
        'antiphon_worker_upstream_duration_seconds_count{outcome="answered",provider="openai"}',
        'antiphon_worker_provider_state{provider="narrow"} 0.0',
        "antiphon_worker_open_responses ",
        "antiphon_worker_queued ",
    ):
        assert line in text
