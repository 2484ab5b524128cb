"""Processes that are killed and servers that hang: what was accepted is answered, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession
from openai import AsyncOpenAI

from contracts.topics import RESPONSES_LIFECYCLE
from tests.e2e.parts import DIALECTS
from tests.e2e.sse import numbers, resuming, streaming
from tests.e2e.stack import SERVICES, Stack
from tests.e2e.topics import Topics
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
REQUESTS = 20


def held(upstream: UpstreamProcess, mark: str) -> int:
    """How many requests with the mark the provider has and holds back."""
    return sum(
        not request["finished"] and not request["client_closed"]
        for request in upstream.requests(mark)
    )


async def ids_finished(topics: Topics, begin: Any, mark: str, *, count: int) -> list[str]:
    """The ids of `count` responses of the chat that `mark` names, in the order of their facts."""

    def is_ours(fact: Any) -> bool:
        return bool(fact.TYPE == "antiphon.response.finished.v1" and fact.principal.chat == mark)

    facts = await topics.facts(RESPONSES_LIFECYCLE.name, begin, is_ours, count=count)
    return [fact.response_id for fact in facts]


async def test_requests_outlive_their_worker_and_none_is_answered_twice(
    stack: Stack, client: AsyncOpenAI, topics: Topics, upstream: UpstreamProcess, mark: str
) -> None:
    begin = await topics.ends(RESPONSES_LIFECYCLE.name)
    asked = [
        asyncio.create_task(
            client.responses.create(
                model=MODEL,
                input=f"say: answer {number} ; fault:hold#{mark}",
                metadata={"chat_id": mark},
            )
        )
        for number in range(REQUESTS)
    ]
    await until(lambda: held(upstream, mark) == REQUESTS, "the provider has all requests")

    killed = stack.kill("worker")
    await stack.ready_again("worker", after=killed)
    upstream.release(mark)
    answers = await asyncio.gather(*asked)

    assert [answer.output_text for answer in answers] == [f"answer {n}" for n in range(REQUESTS)]
    ids = [answer.id for answer in answers]
    assert sorted(await ids_finished(topics, begin, mark, count=REQUESTS)) == sorted(ids)
    requests = upstream.requests(mark)
    # Each was asked before the end of the first worker, which no answer reached, and once after.
    assert len(requests) == 2 * REQUESTS
    assert sum(request["finished"] for request in requests) == REQUESTS
    # A repeated fact would have come by the time of a later one.
    last = await client.responses.create(model=MODEL, input="say: last", metadata={"chat_id": mark})
    finished = await ids_finished(topics, begin, mark, count=REQUESTS + 1)
    assert sorted(finished) == sorted([*ids, last.id])


async def test_a_stream_whose_worker_is_killed_ends_as_failed_with_what_was_said(
    stack: Stack, http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    async with streaming(http, MODEL, f"tokens: 40 ; fault:hold@20#{mark}") as stream:
        await stream.until(15)
        killed = stack.kill("worker")
        told = await stream.rest()
    upstream.release(mark)

    assert numbers(told) == list(range(len(told)))
    last = told[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    said = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
    assert said.startswith("w0 w1 w2")
    assert last["response"]["output"][0]["content"][0]["text"] == said
    assert len(upstream.requests(mark)) == 1
    kept = await client.responses.retrieve(last["response"]["id"])
    assert (kept.status, kept.output_text) == ("failed", said)
    await stack.ready_again("worker", after=killed)


async def test_a_stream_whose_worker_is_killed_before_the_first_word_is_answered_after_all(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with streaming(http, MODEL, f"tokens: 5 ; fault:hold@2#{mark}") as stream:
        await stream.until(1)
        await until(lambda: held(upstream, mark) == 1, "the provider holds the stream")
        killed = stack.kill("worker")
        await stack.ready_again("worker", after=killed)
        upstream.release(mark)
        told = await stream.rest()

    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "w0 w1 w2 w3 w4"
    assert len({e["response"]["id"] for e in told if "response" in e}) == 1


async def test_a_client_goes_on_with_its_stream_after_intake_was_killed(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with streaming(http, MODEL, f"tokens: 40 ; fault:hold@20#{mark}") as stream:
        await stream.until(10)
        killed = stack.kill("intake")
        with pytest.raises((ClientError, ConnectionError)):
            await stream.rest()
    seen = stream.told
    await stack.ready_again("intake", after=killed)

    response_id = seen[0]["response"]["id"]
    after = seen[-1]["sequence_number"]
    async with resuming(http, response_id, after=after) as again:
        upstream.release(mark)
        seen += await again.rest()
    assert numbers(seen) == list(range(len(seen)))
    assert seen[-1]["type"] == "response.completed"
    assert seen[-1]["response"]["output"][0]["content"][0]["text"].endswith("w38 w39")
    assert len(upstream.requests(mark)) == 1


async def test_nothing_is_accepted_that_kafka_has_not_acknowledged(
    stack: Stack, http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    before = await client.responses.create(model=MODEL, input="say: before")
    assert await client.responses.retrieve(before.id) == before
    with stack.paused("kafka"):
        for stream in (False, True):
            body = {"model": MODEL, "input": f"say: {mark}", "stream": stream}
            async with http.post("/v1/responses", json=body) as answer:
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) > 0
                error = (await answer.json())["error"]
                assert (error["type"], error["code"]) == ("server_error", "service_unavailable")
        # What is stored can be read meanwhile.
        assert await client.responses.retrieve(before.id) == before

    async def works() -> bool:
        body = {"model": MODEL, "input": "say: after"}
        async with http.post("/v1/responses", json=body) as answer:
            return answer.status == 200

    await found(works, "requests are accepted again")


async def test_what_was_refused_while_kafka_was_dead_is_not_run_when_it_is_back(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    killed = stack.kill("kafka")

    async def ask() -> int:
        body = {"model": MODEL, "input": f"say: {mark}"}
        async with http.post("/v1/responses", json=body) as answer:
            return answer.status

    told = await asyncio.gather(*(ask() for _ in range(5)))
    await stack.ready_again("kafka", after=killed)
    await _answers(http)
    # A Kafka that is back within the time of a request serves it.
    assert set(told) <= {200, 503}
    assert len(upstream.requests(mark)) == told.count(200)


async def test_a_stream_under_way_outlives_its_kafka(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with streaming(http, MODEL, f"tokens: 40 ; fault:hold@20#{mark}") as stream:
        await stream.until(10)
        killed = stack.kill("kafka")
        await stack.ready_again("kafka", after=killed)
        upstream.release(mark)
        told = await stream.rest()
    assert numbers(told) == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    await _answers(http)


async def test_every_service_finds_its_database_again_after_that_was_killed(
    stack: Stack, http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    before = await client.responses.create(model=MODEL, input="say: before")
    killed = stack.kill("postgres")
    await stack.ready_again("postgres", after=killed)
    await _answers(http)
    assert await client.responses.retrieve(before.id) == before
    for service in SERVICES:
        await _is_ready(stack, service)


async def _is_ready(stack: Stack, service: str) -> None:
    address = f"http://127.0.0.1:{stack.part(service).port}/readyz"

    async def is_ready() -> bool:
        async with ClientSession() as anybody, anybody.get(address) as answer:
            return answer.status == 200

    await found(is_ready, f"{service} is ready")


async def _answers(http: ClientSession) -> None:
    """Wait until a request is answered and its response can be read."""

    async def works() -> bool:
        async with http.post("/v1/responses", json={"model": MODEL, "input": "hi"}) as answer:
            if answer.status != 200:
                return False
            response_id = (await answer.json())["id"]
        async with http.get(f"/v1/responses/{response_id}") as answer:
            return answer.status == 200 and (await answer.json())["status"] == "completed"

    await found(works, "requests are answered again")
