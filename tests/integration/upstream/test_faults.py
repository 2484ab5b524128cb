"""Faults on demand, seen from the other end of the socket."""

import asyncio
import time

import orjson
import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from tests.upstream import ScriptedUpstream
from tests.upstream.answers import Json

MODEL = "gpt-5.1"
PATH = "/v1/responses"


def asking(text: str, *, stream: bool = False) -> Json:
    return {"model": MODEL, "input": text, "stream": stream}


async def body_of(http: ClientSession, text: str, *, stream: bool) -> bytes:
    """All bytes of an answer that ends properly."""
    async with http.post(PATH, json=asking(text, stream=stream)) as answer:
        assert answer.status == 200
        return await answer.read()


async def received_until_cut(http: ClientSession, text: str) -> bytes:
    """The bytes of a stream up to the moment its connection broke."""
    received = bytearray()
    async with http.post(PATH, json=asking(text, stream=True)) as answer:
        try:
            async for data in answer.content.iter_any():
                received += data
        except (ClientPayloadError, ClientConnectionError):
            return bytes(received)
    raise AssertionError(f"the stream ended properly: {received!r}")


def events_in(body: bytes) -> list[Json]:
    """The events of a well-formed stream, whatever its line ends."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]
    return [orjson.loads(line) for line in data if line != b"[DONE]"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("400", 400, "invalid_value"),
        ("context", 400, "context_length_exceeded"),
        ("401", 401, "invalid_api_key"),
        ("403", 403, "permission_denied"),
        ("404", 404, "model_not_found"),
        ("429", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
        ("500", 500, "server_error"),
        ("503", 503, "overloaded"),
    ],
)
async def test_error_statuses_reach_the_client_with_their_code(
    client: AsyncOpenAI, fault: str, status: int, code: str
) -> None:
    with pytest.raises(APIStatusError) as refused:
        await client.responses.create(model=MODEL, input=f"fault:{fault}")
    assert (refused.value.status_code, refused.value.code) == (status, code)


async def test_rate_limits_say_when_to_retry(http: ClientSession) -> None:
    async with http.post(PATH, json=asking("fault:429@7")) as answer:
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("7", "7000")
    async with http.post(PATH, json=asking("fault:503@0.5")) as answer:
        assert answer.headers["retry-after"] == "0.5"


async def test_a_gateway_error_is_a_page_and_not_json(http: ClientSession) -> None:
    async with http.post(PATH, json=asking("fault:502")) as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")


async def test_an_unknown_fault_is_refused_by_name(http: ClientSession) -> None:
    async with http.post(PATH, json=asking("fault:nope")) as answer:
        assert (await answer.json())["error"]["code"] == "unknown_fault"


async def test_the_first_attempts_fail_and_the_next_one_works(http: ClientSession) -> None:
    async def statuses(text: str) -> list[int]:
        found = []
        for _ in range(3):
            async with http.post(PATH, json=asking(text)) as answer:
                found.append(answer.status)
        return found

    assert await statuses("fault:503x2 ; say: a") == [503, 503, 200]
    assert await statuses("fault:503x2 ; say: b") == [503, 503, 200]
    assert await statuses("fault:429x1#shared ; say: c") == [429, 200, 200]
    assert await statuses("fault:429x1#shared ; say: d") == [200, 200, 200]


async def test_a_reset_gives_no_answer_at_all(
    upstream: ScriptedUpstream, client: AsyncOpenAI
) -> None:
    with pytest.raises(APIConnectionError):
        await client.responses.create(model=MODEL, input="fault:reset")
    await upstream.wait_until(lambda: upstream.ledger.stats.open_requests == 0)
    (exchange,) = upstream.requests
    assert (exchange.severed, exchange.client_closed) == (True, False)
    assert upstream.ledger.stats.client_disconnects == 0


@pytest.mark.parametrize("fault", ["cut@5", "reset@5"])
async def test_a_cut_stream_breaks_after_that_many_events(
    upstream: ScriptedUpstream, http: ClientSession, fault: str
) -> None:
    received = await received_until_cut(http, f"fault:{fault} ; script:text")
    assert len(events_in(received)) == 5
    assert upstream.requests[0].events_sent == 5


async def test_a_cut_document_stops_in_the_middle(http: ClientSession) -> None:
    with pytest.raises(ClientPayloadError):
        await body_of(http, "fault:cut", stream=False)


async def test_a_stream_can_end_cleanly_before_its_last_event(http: ClientSession) -> None:
    body = await body_of(http, "fault:eof@4 ; script:text", stream=True)
    assert len(events_in(body)) == 4
    assert b"[DONE]" not in body


async def test_a_truncated_stream_ends_within_an_event(http: ClientSession) -> None:
    body = await body_of(http, "fault:truncated_json@2 ; script:text", stream=True)
    with pytest.raises(orjson.JSONDecodeError):
        events_in(body)
    assert not body.endswith(b"\n\n")


async def test_broken_json_arrives_between_good_events(http: ClientSession) -> None:
    body = await body_of(http, "fault:malformed_json@2 ; script:text", stream=True)
    frames = body.split(b"\n\n")
    with pytest.raises(orjson.JSONDecodeError):
        events_in(frames[2])
    assert events_in(frames[1] + b"\n" + frames[3])[1]["sequence_number"] == 2


async def test_garbage_arrives_between_good_events(http: ClientSession) -> None:
    body = await body_of(http, "fault:malformed_sse@2 ; script:text", stream=True)
    assert b"\xff\xfe" in body
    assert events_in(body)[-1]["type"] == "response.completed"


@pytest.mark.parametrize("fault", ["malformed_json", "truncated_json"])
async def test_a_document_can_be_no_json(http: ClientSession, fault: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(await body_of(http, f"fault:{fault}", stream=False))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_can_be_empty_or_a_page(http: ClientSession, stream: bool) -> None:
    assert await body_of(http, "fault:empty", stream=stream) == b""
    async with http.post(PATH, json=asking("fault:content_type", stream=stream)) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")


@pytest.mark.parametrize(
    "fault", ["crlf", "cr", "split@1", "split@7", "awkward", "comments", "no_space", "no_names"]
)
async def test_awkward_streams_still_carry_every_event(http: ClientSession, fault: str) -> None:
    plain = events_in(await body_of(http, "script:unicode", stream=True))
    awkward = events_in(await body_of(http, f"script:unicode ; fault:{fault}", stream=True))
    assert [event["type"] for event in awkward] == [event["type"] for event in plain]
    text = plain[-1]["response"]["output"][0]["content"]
    assert awkward[-1]["response"]["output"][0]["content"] == text


@pytest.mark.parametrize(
    "fault", ["crlf", "split@1", "awkward", "comments", "multiline", "no_space", "no_names"]
)
async def test_the_official_client_reads_awkward_streams(client: AsyncOpenAI, fault: str) -> None:
    text = f"script:unicode ; fault:{fault}"
    stream = await client.responses.create(model=MODEL, input=text, stream=True)
    assert [event.type async for event in stream][-1] == "response.completed"


async def test_a_stream_can_lack_its_end_marker_and_have_untyped_events(
    http: ClientSession,
) -> None:
    body = await body_of(http, "say: hi ; fault:no_done ; fault:keepalive", stream=True)
    assert b"[DONE]" not in body
    assert body.count(b"event: keepalive\n") == sum(b"response." in f for f in body.split(b"\n\n"))


async def test_a_huge_event_is_one_delta(http: ClientSession) -> None:
    events = events_in(await body_of(http, "fault:huge", stream=True))
    deltas = [event["delta"] for event in events if "delta" in event]
    assert [len(delta) for delta in deltas] == [700 * 1024]


async def test_a_hang_delays_the_first_byte_and_a_slow_stream_every_event(
    http: ClientSession,
) -> None:
    started = time.monotonic()
    await body_of(http, "fault:hang@0.1 ; say: hi", stream=False)
    assert time.monotonic() - started >= 0.1
    started = time.monotonic()
    count = len(events_in(await body_of(http, "fault:slow@0.01 ; say: hi", stream=True)))
    assert time.monotonic() - started >= 0.01 * (count - 1)
    started = time.monotonic()
    await body_of(http, "fault:stall@3,0.1 ; say: hi", stream=True)
    assert time.monotonic() - started >= 0.1


async def test_held_answers_wait_for_their_release(
    upstream: ScriptedUpstream, http: ClientSession
) -> None:
    first = asyncio.create_task(body_of(http, "fault:hold#one ; say: 1", stream=False))
    second = asyncio.create_task(body_of(http, "fault:hold@3#two ; say: 2", stream=True))
    await upstream.wait_until(lambda: upstream.ledger.stats.held == 2)
    async with http.post("/_release", params={"key": "one"}) as answer:
        assert answer.status == 200
    assert b'"completed"' in await first
    assert not second.done()
    streaming = [exchange for exchange in upstream.requests if exchange.stream]
    assert [exchange.events_sent for exchange in streaming] == [3]
    upstream.release()
    assert events_in(await second)[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_is_noticed(
    upstream: ScriptedUpstream, http: ClientSession, stream: bool
) -> None:
    fault = "stall@2,60" if stream else "hang@60"
    asked = asyncio.create_task(body_of(http, f"fault:{fault} ; script:text", stream=stream))
    await upstream.wait_until(lambda: upstream.ledger.stats.open_requests == 1)
    if stream:
        await upstream.wait_until(lambda: upstream.ledger.stats.events_sent == 2)
        assert upstream.ledger.stats.open_streams == 1
    asked.cancel()
    await upstream.wait_until(lambda: upstream.ledger.stats.client_disconnects == 1)
    (exchange,) = upstream.requests
    assert (exchange.client_closed, exchange.finished) == (True, False)
    assert (upstream.ledger.stats.open_streams, upstream.ledger.stats.open_requests) == (0, 0)


async def test_faults_are_counted_and_shown_in_the_stats(http: ClientSession) -> None:
    async with http.post(PATH, json=asking("fault:503")):
        pass
    async with http.get("/_stats") as answer:
        stats = await answer.json()
    assert stats["faults"] == {"503": 1}
    assert stats["by_status"] == {"503": 1}
    assert stats["by_path"] == {"POST /v1/responses": 1}
