"""What a client sees when the provider fails, and what is kept of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.responses import ResponseFinishedV1
from contracts.topics import RESPONSES_LIFECYCLE
from tests.e2e.parts import DIALECTS, IMPATIENT
from tests.e2e.sse import events, numbers, streaming
from tests.e2e.topics import Ends, Topics
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
CHAT = DIALECTS["chat"]


class Fault(NamedTuple):
    """A fault of the provider, how the JSON API answers, and the code of a failed Response."""

    name: str
    status: int
    code: str | None
    failure: str
    model: str = MODEL


FAULTS = [
    Fault("400", 400, "invalid_value", "invalid_prompt"),
    Fault("context", 400, "context_length_exceeded", "invalid_prompt"),
    Fault("401", 502, "provider_authentication", "server_error"),
    Fault("403", 502, "provider_authentication", "server_error"),
    Fault("404", 404, "model_not_found", "invalid_prompt"),
    Fault("429@0", 429, "rate_limit_exceeded", "rate_limit_exceeded"),
    Fault("quota", 429, "insufficient_quota", "rate_limit_exceeded"),
    Fault("500", 502, "server_error", "server_error"),
    Fault("502", 502, None, "server_error"),
    Fault("503@0", 503, "overloaded", "server_error"),
    Fault("reset", 502, None, "server_error"),
    Fault("empty", 502, None, "server_error"),
    Fault("content_type", 502, None, "server_error"),
    Fault("hang@5", 504, None, "server_error", IMPATIENT),
    Fault("400", 400, "invalid_value", "invalid_prompt", CHAT),
    Fault("429@0", 429, "rate_limit_exceeded", "rate_limit_exceeded", CHAT),
    Fault("500", 502, "server_error", "server_error", CHAT),
    Fault("reset", 502, None, "server_error", CHAT),
]
# What can only go wrong once the answer has begun; N is after how many events.
CUTS = ["cut@8", "eof@8", "reset@8", "malformed_json@8", "truncated_json@8"]


def names(fault: Fault) -> str:
    return f"{fault.model}-{fault.name}"


async def finished(topics: Topics, begin: Ends, mark: str) -> ResponseFinishedV1:
    """The fact that states the end of the one response of the chat that `mark` names."""

    def is_ours(fact: object) -> bool:
        return isinstance(fact, ResponseFinishedV1) and fact.principal.chat == mark

    [fact] = await topics.facts(RESPONSES_LIFECYCLE.name, begin, is_ours)
    assert isinstance(fact, ResponseFinishedV1)
    return fact


def request(model: str, text: str, mark: str) -> dict[str, Any]:
    return {"model": model, "input": f"{mark} ; {text}", "metadata": {"chat_id": mark}}


@pytest.mark.parametrize("fault", FAULTS, ids=names)
async def test_a_failure_before_the_answer_is_an_http_error_and_a_failed_response_is_kept(
    client: AsyncOpenAI,
    http: ClientSession,
    topics: Topics,
    upstream: UpstreamProcess,
    mark: str,
    fault: Fault,
) -> None:
    begin = await topics.ends(RESPONSES_LIFECYCLE.name)
    body = request(fault.model, f"fault:{fault.name}", mark)
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == fault.status
        error = (await answer.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == fault.code
    assert error["message"]

    fact = await finished(topics, begin, mark)
    assert fact.status == "failed"
    kept = await client.responses.retrieve(fact.response_id)
    assert (kept.status, kept.output) == ("failed", [])
    assert kept.error is not None
    assert kept.error.code == fault.failure


@pytest.mark.parametrize("fault", FAULTS, ids=names)
async def test_a_stream_of_a_failure_is_a_response_that_failed(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str, fault: Fault
) -> None:
    body = request(fault.model, f"fault:{fault.name}", mark)
    told = [event async for event in await client.responses.create(**body, stream=True)]

    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert told[0].type == "response.created"
    last = told[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == fault.failure
    assert await client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("model", [MODEL, CHAT])
@pytest.mark.parametrize("cut", CUTS)
async def test_an_answer_that_breaks_off_keeps_what_was_said_and_is_not_begun_again(
    http: ClientSession,
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    mark: str,
    model: str,
    cut: str,
) -> None:
    body = request(model, f"tokens: 20 ; fault:{cut}", mark)
    async with http.post("/v1/responses", json={**body, "stream": True}) as answer:
        told = events(await answer.read())

    assert numbers(told) == list(range(len(told)))
    last = told[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    [item] = last["response"]["output"]
    said = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
    assert said.startswith("w0 w1")
    assert item["status"] == "incomplete"
    assert item["content"][0]["text"] == said
    assert len(upstream.requests(mark)) == 1
    kept = await client.responses.retrieve(last["response"]["id"])
    assert kept.output_text == said


async def test_an_error_event_of_the_provider_ends_in_a_response_that_failed(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    async with streaming(http, MODEL, "script:error") as stream:
        told = await stream.rest()
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["status"] == "failed"
    assert numbers(told) == list(range(len(told)))


@pytest.mark.parametrize("model", [MODEL, CHAT])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_recovers_before_its_first_byte_is_asked_again(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str, model: str, stream: bool
) -> None:
    text = f"say: {mark} ; fault:503@0x2#{mark}"
    if stream:
        told = [
            e async for e in await client.responses.create(model=model, input=text, stream=True)
        ]
        assert [event.sequence_number for event in told] == list(range(len(told)))
        last = told[-1]
        assert last.type == "response.completed"
        answer = last.response
    else:
        answer = await client.responses.create(model=model, input=text)
    assert answer.output_text == mark
    assert len(upstream.requests(mark)) == 3


async def test_a_response_that_failed_can_be_followed_by_another(
    http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess
) -> None:
    async with streaming(http, MODEL, "fault:400") as stream:
        failed = (await stream.rest())[-1]["response"]["id"]
    follow_up = await client.responses.create(
        model=MODEL, input="script:recall", previous_response_id=failed
    )
    assert follow_up.output_text == "fault:400"


async def test_an_answer_that_stalls_is_given_up(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    async with streaming(http, IMPATIENT, "tokens: 20 ; fault:stall@8,5") as stream:
        told = await stream.rest()
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["output"][0]["content"][0]["text"].startswith("w0 w1")
