"""Streams: the provider's events as they are, whole, in order, and again on demand."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.e2e.parts import DIALECTS
from tests.e2e.sse import DONE, END, Event, events, frames, numbers, resuming, streaming
from tests.upstream import UpstreamProcess
from tests.upstream.scripts import HOSTED, SCRIPTS

MODEL = DIALECTS["responses"]
CHAT = DIALECTS["chat"]
ALL_SCRIPTS = sorted({*SCRIPTS, *HOSTED} - {"error"})
CHAT_SCRIPTS = sorted({*SCRIPTS} - {"custom_tool", "everything", "failed", "failed_early", "error"})
# How providers may write the same events.
WIRES = [
    *("crlf", "cr", "bom", "comments", "multiline", "no_space", "no_names", "no_done"),
    *("awkward", "split@1", "split@7"),
]


async def stream_of(http: ClientSession, text: str, **parameters: Any) -> bytes:
    body = {"model": MODEL, "input": text, "stream": True, **parameters}
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        return await answer.read()


async def stream_of_provider(upstream: UpstreamProcess, mark: str) -> tuple[bytes, bytes]:
    """The id and the stream of the one response that the provider gave for the mark."""
    [request] = upstream.requests(mark)
    response_id = request["response_id"]
    path = f"{upstream.url}/v1/responses/{response_id}"
    async with ClientSession() as direct, direct.get(path, params={"stream": "true"}) as answer:
        return response_id.encode(), await answer.read()


@pytest.mark.parametrize("script", ALL_SCRIPTS)
async def test_a_stream_is_the_provider_s_byte_for_byte_but_for_the_id_of_the_response(
    http: ClientSession, upstream: UpstreamProcess, mark: str, script: str
) -> None:
    ours = await stream_of(http, f"script:{script}", metadata={"mark": mark})
    their_id, theirs = await stream_of_provider(upstream, mark)

    told = events(ours)
    our_id = told[0]["response"]["id"].encode()
    assert our_id != their_id
    assert frames(ours.replace(our_id, their_id)) == frames(theirs)
    assert numbers(told) == list(range(len(told)))
    async with http.get(f"/v1/responses/{our_id.decode()}") as answer:
        assert await answer.json() == told[-1]["response"]


@pytest.mark.parametrize("script", CHAT_SCRIPTS)
async def test_a_chat_provider_s_stream_is_one_that_the_strict_client_takes_for_real(
    client: AsyncOpenAI, upstream: UpstreamProcess, script: str
) -> None:
    stream = await client.responses.create(model=CHAT, input=f"script:{script}", stream=True)
    told = [event async for event in stream]

    assert [event.sequence_number for event in told] == list(range(len(told)))
    last = told[-1]
    assert last.type in ("response.completed", "response.incomplete")
    done = [event.item for event in told if event.type == "response.output_item.done"]
    assert done == last.response.output
    assert await client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("wire", WIRES)
async def test_events_arrive_the_same_however_the_provider_writes_them(
    http: ClientSession, upstream: UpstreamProcess, mark: str, wire: str
) -> None:
    text = f"script:unicode ; fault:{wire}"
    ours = await stream_of(http, text, metadata={"mark": mark})
    their_id, theirs = await stream_of_provider(upstream, mark)

    our_id = events(ours)[0]["response"]["id"].encode()
    assert events(ours.replace(our_id, their_id)) == events(theirs)


async def test_no_event_is_torn_into_two_chunks_and_the_last_chunk_ends_the_stream(
    http: ClientSession, upstream: UpstreamProcess
) -> None:
    body = {"model": MODEL, "input": "tokens: 60 ; delay: 0.002", "stream": True}
    chunks = [b""]
    async with http.post("/v1/responses", json=body) as answer:
        async for data, ended in answer.content.iter_chunks():
            chunks[-1] += data
            if ended:
                chunks.append(b"")
    *whole, rest = chunks
    assert rest == b""
    assert all(chunk.endswith(END) for chunk in whole)
    assert whole[-1].endswith(DONE + END)
    # They come as they are made, not at the end.
    assert len(whole) > 10


async def test_signs_of_life_among_the_events_leave_no_gap_in_the_numbers(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\ndata: {orjson.dumps({'type': kind, **fields}).decode()}\n\n"

    response = {"id": "resp_u", "object": "response", "status": "in_progress", "output": []}
    finished = response | {"status": "completed"}
    body = (
        event("response.created", sequence_number=0, response=response)
        + event("response.in_progress", sequence_number=1, response=response)
        + event("keepalive")
        + event("response.completed", sequence_number=2, response=finished)
    )
    raw = {"headers": {"content-type": "text/event-stream"}, "body": body}
    upstream.enqueue({"raw": raw, "match": mark})

    told = events(await stream_of(http, mark))
    numbered = [event for event in told if "sequence_number" in event]
    assert numbers(numbered) == list(range(len(numbered)))
    assert [e["type"] for e in told if e["type"] != "keepalive"] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]


async def test_events_without_numbers_get_some(
    http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    response = {"id": "resp_u", "object": "response", "status": "in_progress", "output": []}
    kinds = ["response.created", "response.in_progress", "response.completed"]
    body = b"".join(
        b"data: %b\n\n" % orjson.dumps({"type": kind, "response": response}) for kind in kinds
    )
    raw = {"headers": {"content-type": "text/event-stream"}, "body": body.decode()}
    upstream.enqueue({"raw": raw, "match": mark})

    told = events(await stream_of(http, mark))
    assert [(event["type"], event["sequence_number"]) for event in told] == [
        (kind, number) for number, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("model", [MODEL, CHAT])
@pytest.mark.parametrize("after", [None, 0, 7])
async def test_a_finished_stream_is_told_again_from_any_event_on(
    http: ClientSession, upstream: UpstreamProcess, model: str, after: int | None
) -> None:
    async with streaming(http, model, "tokens: 12") as stream:
        told = await stream.rest()
    response_id = told[0]["response"]["id"]

    async with resuming(http, response_id, after=after) as again:
        assert await again.rest() == told[0 if after is None else after + 1 :]


@pytest.mark.parametrize("model", [MODEL, CHAT])
async def test_a_second_reader_joins_a_stream_that_is_under_way(
    http: ClientSession, upstream: UpstreamProcess, mark: str, model: str
) -> None:
    async with streaming(http, model, f"tokens: 20 ; fault:hold@12#{mark}") as first:
        await first.until(6)
        response_id = first.told[0]["response"]["id"]
        async with (
            resuming(http, response_id) as second,
            resuming(http, response_id, after=3) as third,
        ):
            await second.until(6)
            await third.until(6)
            upstream.release(mark)
            whole = await first.rest()
            assert numbers(whole) == list(range(len(whole)))
            assert await second.rest() == whole
            assert await third.rest() == whole[4:]


async def test_the_official_client_resumes_a_stream_that_it_left(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    text = f"tokens: 20 ; fault:hold@12#{mark}"
    seen: list[Event] = []
    async with await client.responses.create(model=MODEL, input=text, stream=True) as stream:
        async for event in stream:
            seen.append(event.to_dict())
            if event.sequence_number == 5:
                break
    upstream.release(mark)

    response_id = seen[0]["response"]["id"]
    rest = await client.responses.retrieve(response_id, stream=True, starting_after=5)
    seen += [event.to_dict() async for event in rest]
    assert numbers(seen) == list(range(len(seen)))
    assert seen[-1]["type"] == "response.completed"
    assert (await client.responses.retrieve(response_id)).output_text.endswith("w18 w19")


@pytest.mark.parametrize("model", [MODEL, CHAT])
async def test_the_client_s_own_helper_follows_a_stream_again(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    async with client.responses.stream(model=model, input="say: hello once more") as first:
        told = [event async for event in first]
        final = await first.get_final_response()
    async with client.responses.stream(response_id=final.id, starting_after=3) as again:
        assert [event.type for event in told[4:]] == [event.type async for event in again]
        assert (await again.get_final_response()).output_text == "hello once more"


async def test_a_response_that_was_not_streamed_has_no_stream(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess
) -> None:
    created = await client.responses.create(model=MODEL, input="say: hi")
    async with http.get(f"/v1/responses/{created.id}?stream=true") as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "stream"
