"""Providers over real sockets: every fault is an error with what a client shall be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from contracts.providers import Dialect, ProviderConfig
from services.kit.ids import new_id
from services.worker.chat.turn import TurnEnd
from services.worker.errors import RequestRefusedError, UpstreamError
from services.worker.providers.client import UpstreamClient
from services.worker.providers.turns import ChatTurns, ResponsesTurns
from services.worker.runs.passthrough import Passthrough
from tests.unit.worker.runs import Written, check_stream, job
from tests.upstream import UpstreamProcess

MAX_EVENT_BYTES = 1 << 20
MAX_RESPONSE_BYTES = 200_000


@asynccontextmanager
async def connected(
    base_url: str, *, dialect: Dialect = "responses", **timeouts: Any
) -> AsyncIterator[UpstreamClient]:
    config = ProviderConfig(name="scripted", base_url=base_url, dialect=dialect, **timeouts)
    client = UpstreamClient(config, api_key="sk-test", max_response_bytes=MAX_RESPONSE_BYTES)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def body(text: str, **parameters: Any) -> bytes:
    return orjson.dumps({"model": "gpt-5.1", "input": text, **parameters})


async def pipe(client: UpstreamClient, text: str) -> tuple[Passthrough, Written]:
    out = Written()
    made = Passthrough(job(), out, max_event_bytes=MAX_EVENT_BYTES)
    await made.run(client, body(text, stream=True))
    return made, out


async def turn(client: UpstreamClient, text: str, **request: Any) -> tuple[list[Any], TurnEnd]:
    if client.config.dialect == "chat":
        turns: Any = ChatTurns(client, max_event_bytes=MAX_EVENT_BYTES, new_id=new_id)
    else:
        turns = ResponsesTurns(client, max_event_bytes=MAX_EVENT_BYTES)
    items = [{"type": "message", "role": "user", "content": text}]
    steps = [step async for step in turns.turn(request, items, model="gpt-5.1")]
    end = steps.pop()
    assert isinstance(end, TurnEnd)
    return steps, end


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        ("400", 400, False),
        ("context", 400, False),
        ("401", 502, False),
        ("403", 502, False),
        ("404", 404, False),
        ("429", 429, True),
        ("quota", 429, False),
        ("500", 502, True),
        ("502", 502, True),
        ("503", 503, True),
        ("reset", 502, True),
        ("malformed_json", 502, True),
        ("truncated_json", 502, True),
        ("cut@1", 502, True),
    ],
)
async def test_a_refusal_or_a_break_is_an_error_of_the_right_kind(
    scripted_upstream: UpstreamProcess, fault: str, status: int, retryable: bool
) -> None:
    async with connected(scripted_upstream.base_url) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.read_json("/responses", body(f"fault:{fault}"))
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert "sk-test" not in caught.value.message


async def test_the_provider_says_when_to_come_again(scripted_upstream: UpstreamProcess) -> None:
    async with connected(scripted_upstream.base_url) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.read_json("/responses", body("fault:429@7"))
    assert caught.value.retry_after_seconds == 7


async def test_a_provider_that_is_not_there_is_an_error_that_may_heal() -> None:
    async with connected("http://127.0.0.1:1") as client:
        with pytest.raises(UpstreamError) as caught:
            await client.read_json("/responses", body("x"))
    assert caught.value.retryable


async def test_a_provider_that_hangs_is_given_up_in_time(
    scripted_upstream: UpstreamProcess,
) -> None:
    url = scripted_upstream.base_url
    async with connected(url, first_byte_timeout_seconds=0.1) as client:
        with pytest.raises(UpstreamError) as caught:
            await pipe(client, "fault:hang@30")
        assert (caught.value.status, caught.value.retryable) == (504, True)


async def test_a_whole_answer_has_all_the_time_and_is_not_asked_for_twice(
    scripted_upstream: UpstreamProcess,
) -> None:
    url = scripted_upstream.base_url
    async with connected(url, first_byte_timeout_seconds=0.1, total_timeout_seconds=1.0) as client:
        await client.read_json("/responses", body("say: slow ; fault:hang@0.3"))
        with pytest.raises(UpstreamError) as caught:
            await client.read_json("/responses", body("fault:hang@30"))
        assert (caught.value.status, caught.value.retryable) == (504, False)


async def test_a_stream_that_stalls_is_given_up_in_time(scripted_upstream: UpstreamProcess) -> None:
    async with connected(scripted_upstream.base_url, idle_timeout_seconds=0.2) as client:
        with pytest.raises(UpstreamError) as caught:
            await pipe(client, "say: one two ; fault:stall@4,30")
        assert caught.value.status == 504


async def test_a_stream_that_never_ends_is_given_up_in_time(
    scripted_upstream: UpstreamProcess,
) -> None:
    url = scripted_upstream.base_url
    async with connected(url, idle_timeout_seconds=5.0, total_timeout_seconds=0.5) as client:
        with pytest.raises(UpstreamError) as caught:
            await pipe(client, "tokens: 1000 ; delay: 0.05")
        assert caught.value.status == 504


async def test_a_stream_that_drips_is_not_silent(scripted_upstream: UpstreamProcess) -> None:
    async with connected(scripted_upstream.base_url, idle_timeout_seconds=0.3) as client:
        made, _ = await pipe(client, "tokens: 12 ; delay: 0.05")
    assert made.terminal is not None


async def test_an_answer_that_is_too_large_is_refused(scripted_upstream: UpstreamProcess) -> None:
    async with connected(scripted_upstream.base_url) as client:
        with pytest.raises(UpstreamError, match="too large"):
            await client.read_json("/responses", body("script:huge 400000"))


@pytest.mark.parametrize(
    "fault",
    [
        "split@1",
        "split@7",
        "awkward",
        "crlf",
        "cr",
        "bom",
        "comments",
        "keepalive",
        "no_space",
        "no_names",
        "no_done",
        "crlf ; fault:split@3",
        "cr ; fault:split@1 ; fault:no_done",
    ],
)
@pytest.mark.parametrize("dialect", ["responses", "chat"])
async def test_however_a_provider_writes_its_events_they_arrive(
    scripted_upstream: UpstreamProcess, fault: str, dialect: Dialect
) -> None:
    text = f"say: grüße an ☃ 日本 ; fault:{fault}"
    async with connected(scripted_upstream.base_url, dialect=dialect) as client:
        if dialect == "responses":
            made, out = await pipe(client, text)
            assert made.terminal is not None
            events = [*out.events, made.terminal]
            assert [e["sequence_number"] for e in events] == list(range(len(events)))
            if fault != "keepalive":
                check_stream(events)
            [message] = made.terminal["response"]["output"]
        else:
            _, end = await turn(client, text)
            assert end.status == "completed"
            [message] = end.output
    assert message["content"][0]["text"] == "grüße an ☃ 日本"


@pytest.mark.parametrize(
    "fault",
    ["cut@4", "eof@4", "reset@4", "malformed_json@4", "truncated_json@4", "content_type", "empty"],
)
async def test_a_stream_that_breaks_is_an_error(
    scripted_upstream: UpstreamProcess, fault: str
) -> None:
    async with connected(scripted_upstream.base_url) as client:
        with pytest.raises(UpstreamError):
            await pipe(client, f"say: one two three ; fault:{fault}")


@pytest.mark.parametrize("fault", ["cut@2", "reset@2", "malformed_json@2", "content_type"])
async def test_a_chat_that_breaks_is_an_error(
    scripted_upstream: UpstreamProcess, fault: str
) -> None:
    async with connected(scripted_upstream.base_url, dialect="chat") as client:
        with pytest.raises(UpstreamError):
            await turn(client, f"say: one two three ; fault:{fault}")


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": 5},
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"tool_calls": 5}}]},
        {"choices": [{"delta": {"tool_calls": [5]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": {}, "function": 1}]}}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"refusal": 5}}]},
        {"choices": [{"delta": {"content": "x"}, "logprobs": 1}]},
        {"choices": [{"delta": {"content": "x"}, "finish_reason": {}}]},
        {"choices": [], "usage": "much"},
    ],
)
async def test_a_chunk_of_another_shape_is_the_provider_s_fault(
    scripted_upstream: UpstreamProcess, chunk: dict[str, Any]
) -> None:
    stream = b"data: " + orjson.dumps(chunk) + b"\n\ndata: [DONE]\n\n"
    raw = {
        "status": 200,
        "headers": {"content-type": "text/event-stream"},
        "body": stream.decode(),
    }
    scripted_upstream.enqueue({"raw": raw})
    async with connected(scripted_upstream.base_url, dialect="chat") as client:
        asked = turn(client, "anything", include=["message.output_text.logprobs"])
        assert await outcome_of(asked) in ("refused", "failed", "completed")


async def outcome_of(asked: Awaitable[tuple[list[Any], TurnEnd]]) -> str:
    try:
        _, end = await asked
    except RequestRefusedError:
        return "the client's fault"
    except UpstreamError:
        return "refused"
    # What can be passed over is passed over: then the turn ended too early, or it ended.
    return end.status


async def test_what_chat_completions_can_not_express_is_refused_by_name(
    scripted_upstream: UpstreamProcess,
) -> None:
    async with connected(scripted_upstream.base_url, dialect="chat") as client:
        with pytest.raises(RequestRefusedError):
            await turn(client, "x", tools=[{"type": "function"}])


async def test_a_stream_that_is_left_frees_its_connection(
    scripted_upstream: UpstreamProcess,
) -> None:
    async with connected(scripted_upstream.base_url, max_connections=1) as client:
        for _ in range(3):
            task = asyncio.create_task(pipe(client, "say: one two ; fault:stall@3,30"))
            async with asyncio.timeout(10):
                while not task.done() and not _reading(client):  # noqa: ASYNC110 - sockets set no event
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
        made, _ = await pipe(client, "say: still here")
        assert made.terminal is not None


def _reading(client: UpstreamClient) -> bool:
    session = client._session
    assert session is not None
    connector: Any = session.connector
    return bool(connector._acquired)
