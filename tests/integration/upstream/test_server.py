"""The server as the openai client sees it: both dialects, stored responses and control."""

import asyncio

import orjson
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.upstream import ScriptedUpstream, UpstreamProcess
from tests.upstream.answers import Json
from tests.upstream.scripts import HOSTED, SCRIPTS

MODEL = "gpt-5.1"
ONLY_RESPONSES = {*HOSTED, "custom_tool", "everything"}
FAILING_CHAT = {"failed", "failed_early", "error"}
TOOL: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


async def chat_chunks(client: AsyncOpenAI, text: str) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("name", sorted((*SCRIPTS, *HOSTED)))
async def test_the_strict_client_reads_every_script_of_responses(
    client: AsyncOpenAI, name: str
) -> None:
    stream = await client.responses.create(model=MODEL, input=f"script:{name}", stream=True)
    events = [event async for event in stream]
    if name == "error":
        assert events[-1].type == "error"
        return
    response = await client.responses.create(model=MODEL, input=f"script:{name}")
    final = getattr(events[-1], "response")  # noqa: B009  # not every variant has it
    assert final.status == response.status
    assert [item.type for item in final.output] == [item.type for item in response.output]
    assert final.output_text == response.output_text
    assert final.usage == response.usage


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - ONLY_RESPONSES - FAILING_CHAT))
async def test_chunks_and_completion_of_a_chat_say_the_same(client: AsyncOpenAI, name: str) -> None:
    chunks = await chat_chunks(client, f"script:{name}")
    whole = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": f"script:{name}"}]
    )
    (choice,) = whole.choices
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == (choice.message.content or "")
    assert "".join(delta.refusal or "" for delta in deltas) == (choice.message.refusal or "")
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    calls: dict[int, list[str]] = {}
    for part in (call for delta in deltas for call in delta.tool_calls or ()):
        assert part.function is not None
        calls.setdefault(part.index, []).append(part.function.arguments or "")
    expected = [call.function.arguments for call in choice.message.tool_calls or ()]  # type: ignore[union-attr]  # only functions here
    assert ["".join(parts) for parts in calls.values()] == expected
    thoughts = (choice.message.model_extra or {}).get("reasoning_content", "")
    streamed = [(delta.model_extra or {}).get("reasoning_content", "") for delta in deltas]
    assert "".join(streamed) == thoughts


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text", "stop"),
        ("incomplete", "length"),
        ("content_filter", "content_filter"),
        ("parallel_calls", "tool_calls"),
    ],
)
async def test_a_chat_finishes_for_every_reason(
    client: AsyncOpenAI, name: str, reason: str
) -> None:
    chunks = await chat_chunks(client, f"script:{name}")
    assert chunks[-2].choices[0].finish_reason == reason


async def test_a_chat_that_fails_midway_ends_in_an_error_chunk(http: ClientSession) -> None:
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "script:error rate_limit_exceeded"}],
    }
    async with http.post("/v1/chat/completions", json=body) as answer:
        frames = (await answer.read()).decode().strip().split("\n\n")
    error = orjson.loads(frames[-2].removeprefix("data: "))
    assert error["error"]["code"] == "rate_limit_exceeded"


async def test_a_script_without_chat_form_is_refused_in_a_chat(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError, match="only for /v1/responses"):
        await chat_chunks(client, "script:image")


async def test_a_tool_loop_runs_in_the_chat_dialect(client: AsyncOpenAI) -> None:
    text = 'call: get_weather {"city": "Paris"} ; call: get_weather {"city": "Rome"}'
    first = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        tools=[TOOL],  # type: ignore[list-item]  # a plain dict
    )
    message = first.choices[0].message
    calls = message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls"
    outputs = [
        {"role": "tool", "tool_call_id": call.id, "content": f"sunny {number}"}
        for number, call in enumerate(calls)
    ]
    second = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}, message.model_dump(), *outputs],  # type: ignore[list-item]  # as above
        tools=[TOOL],  # type: ignore[list-item]  # as above
    )
    expected = "get_weather -> sunny 0\nget_weather -> sunny 1"
    assert second.choices[0].message.content == expected


async def test_a_chain_by_previous_response_id_remembers(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="say: blue")
    second = await client.responses.create(
        model=MODEL, input="script:recall", previous_response_id=first.id
    )
    third = await client.responses.create(
        model=MODEL, input="script:recall", previous_response_id=second.id
    )
    assert second.output_text == "say: blue|blue"
    assert third.output_text == "say: blue|blue|script:recall|say: blue|blue"


async def test_a_stored_response_is_retrieved_replayed_and_deleted(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=MODEL, input="say: one two")
    assert await client.responses.retrieve(created.id) == created
    stream = await client.responses.retrieve(created.id, stream=True, starting_after=4)
    assert [event.sequence_number async for event in stream] == [5, 6, 7, 8, 9]
    await client.responses.delete(created.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(created.id)


async def test_a_background_response_is_queued_then_running_then_done(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model=MODEL, input="say: hi", background=True)
    states = [(await client.responses.retrieve(created.id)).status for _ in range(3)]
    assert [created.status, *states] == ["queued", "in_progress", "completed", "completed"]


async def test_only_a_running_background_response_can_be_cancelled(client: AsyncOpenAI) -> None:
    running = await client.responses.create(model=MODEL, input="say: hi", background=True)
    assert (await client.responses.cancel(running.id)).status == "cancelled"
    assert (await client.responses.retrieve(running.id)).status == "cancelled"
    plain = await client.responses.create(model=MODEL, input="say: hi")
    with pytest.raises(BadRequestError):
        await client.responses.cancel(plain.id)


async def test_models_are_listed_and_unknown_ones_refused(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert MODEL in listed
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(NotFoundError, match="does not exist"):
        await client.responses.create(model="unknown-1", input="hi")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"input": "hi"}', "model"),
        (b'{"model": "m"}', "input"),
        (b'{"model": "m", "input": "hi", "_internal": 1}', "_internal"),
        (b'{"model": "m", "input": [{"role": "user"}]}', "input"),
    ],
)
async def test_a_bad_request_gets_the_error_shape(
    http: ClientSession, body: bytes, param: str | None
) -> None:
    async with http.post("/v1/responses", data=body) as answer:
        assert answer.status == 400
        assert answer.headers["x-request-id"].startswith("req_")
        error = (await answer.json())["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_unknown_parameters_pass_and_a_wrong_key_does_not() -> None:
    body = {"model": MODEL, "input": "say: hi", "top_k": 40}
    async with (
        ScriptedUpstream(lenient=True, api_key="right") as upstream,
        ClientSession(upstream.url) as http,
    ):
        statuses = []
        for key in ("right", "wrong"):
            headers = {"authorization": f"Bearer {key}"}
            async with http.post("/v1/responses", json=body, headers=headers) as answer:
                statuses.append(answer.status)
    assert statuses == [200, 401]


async def test_every_request_is_recorded_with_headers_and_body(
    upstream: ScriptedUpstream, client: AsyncOpenAI, http: ClientSession
) -> None:
    await client.responses.create(model=MODEL, input="say: hi", extra_headers={"x-mine": "1"})
    (exchange,) = upstream.requests
    assert exchange.headers["authorization"] == "Bearer key"
    assert exchange.headers["x-mine"] == "1"
    assert exchange.body == {"model": MODEL, "input": "say: hi"}
    assert (exchange.status, exchange.finished, exchange.client_closed) == (200, True, False)
    async with http.get("/_requests", params={"match": "x-mine"}) as answer:
        assert [entry["path"] for entry in await answer.json()] == ["/v1/responses"]


async def test_queued_answers_are_used_in_order_and_by_match(
    upstream: ScriptedUpstream, client: AsyncOpenAI, http: ClientSession
) -> None:
    entries = [{"do": "say: for foxes", "match": "fox", "times": 2}, "say: first"]
    async with http.post("/_script", json=entries) as answer:
        assert answer.status == 200
    texts = [
        (await client.responses.create(model=MODEL, input=asked)).output_text
        for asked in ("anything", "a fox", "the fox", "no fox left")
    ]
    assert texts == ["first", "for foxes", "for foxes", "echo: no fox left"]
    raw = {"status": 418, "headers": {"x-tea": "1"}, "body": "short and stout"}
    upstream.enqueue({"raw": raw})
    async with http.post("/v1/responses", json={"model": MODEL, "input": "tea"}) as answer:
        assert (answer.status, answer.headers["x-tea"]) == (418, "1")
        assert await answer.text() == "short and stout"


async def test_an_entry_that_cannot_be_queued_is_refused(http: ClientSession) -> None:
    async with http.post("/_script", json={"surprise": 1}) as answer:
        assert answer.status == 400


async def test_reset_forgets_requests_queued_answers_and_responses(
    upstream: ScriptedUpstream, client: AsyncOpenAI, http: ClientSession
) -> None:
    created = await client.responses.create(model=MODEL, input="say: hi")
    upstream.enqueue("say: queued")
    async with http.post("/_reset") as answer:
        assert answer.status == 200
    assert upstream.requests == []
    assert (await client.responses.create(model=MODEL, input="hi")).output_text == "echo: hi"
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(created.id)


async def test_ids_are_unique_and_with_a_tag_repeatable() -> None:
    seen: list[list[str]] = []
    for tag in ("aa", "aa", None):
        async with (
            ScriptedUpstream(tag=tag) as upstream,
            AsyncOpenAI(base_url=upstream.base_url, api_key="k") as client,
        ):
            made = [await client.responses.create(model=MODEL, input="hi") for _ in range(2)]
            seen.append([id_ for response in made for id_ in (response.id, response.output[0].id)])  # type: ignore[misc]  # messages have ids
    assert seen[0] == seen[1] != seen[2]
    assert len(set(seen[0])) == len(seen[0])


async def test_the_error_script_is_a_500_when_nothing_streams(client: AsyncOpenAI) -> None:
    with pytest.raises(InternalServerError):
        await client.responses.create(model=MODEL, input="script:error")


async def test_the_upstream_runs_as_a_process_and_is_controlled_over_http() -> None:
    def use() -> None:
        with (
            UpstreamProcess("--tag", "cc") as upstream,
            OpenAI(base_url=upstream.base_url, api_key="key") as client,
        ):
            upstream.enqueue("fault:hold#key ; say: queued")
            upstream.release("key")
            response = client.responses.create(model=MODEL, input="hi")
            assert (response.id, response.output_text) == ("resp_cc00000001", "queued")
            assert upstream.wait_until(lambda stats: stats["finished"] == 1)["held"] == 0
            assert [request["body"]["input"] for request in upstream.requests("hi")] == ["hi"]
            upstream.reset()
            assert upstream.requests() == []

    await asyncio.to_thread(use)


async def test_a_background_response_goes_on_without_a_reader_and_runs_once_per_key(
    client: AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    asked: Json = {"model": MODEL, "input": "tokens: 5 ; fault:hold@6#gate", "background": True}
    key = {"Idempotency-Key": "once"}
    begun = await client.responses.create(**asked, extra_headers=key)
    again = await client.responses.create(**asked, extra_headers=key)
    assert begun.id == again.id
    states = [(await client.responses.retrieve(begun.id)).status for _ in range(3)]
    assert states == ["in_progress"] * 3
    upstream.release("gate")
    assert (await client.responses.retrieve(begun.id)).status == "completed"
    stream = await client.responses.retrieve(begun.id, stream=True, starting_after=3)
    assert [event.sequence_number async for event in stream][:3] == [4, 5, 6]
    assert [exchange.run for exchange in upstream.requests][:3] == [True, False, False]
    assert upstream.ledger.stats.runs == 1
