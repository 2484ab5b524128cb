"""WebSocket mode: the same events as over SSE, turns with new items alone, and hard times."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketLimits
from openai.types.responses import FunctionToolParam, ResponsesServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.e2e.parts import DIALECTS
from tests.e2e.replicas import Replica
from tests.e2e.sse import Event, event_of, frames, numbers, resuming
from tests.e2e.stack import Stack
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
BOTH = [MODEL, DIALECTS["chat"]]
BETA = {"openai-beta": "responses_websockets=2026-02-06"}
PATIENCE_S = 40.0
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
LIMITS = ResponsesWebSocketLimits(
    max_lanes=4,
    max_events_per_lane=500,
    max_events=1_000,
    max_bytes_per_lane=10_000_000,
    max_bytes=20_000_000,
    max_response_bytes=None,
)
SERVER_EVENT: TypeAdapter[ResponsesServerEvent] = TypeAdapter(ResponsesServerEvent)


class Socket:
    """A connection without a client library of the API."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def order(self, text: Any, **fields: Any) -> None:
        order = {"type": "response.create", "model": MODEL, "input": text, **fields}
        await self.connection.send(orjson.dumps(order).decode())

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            text = await self.connection.recv()
        event: Event = orjson.loads(text)
        SERVER_EVENT.validate_python(event)
        return event

    async def until(self, number: int) -> list[Event]:
        told = [await self.next()]
        while told[-1]["sequence_number"] < number:
            told.append(await self.next())
        return told

    async def turn(self) -> list[Event]:
        told = [await self.next()]
        while told[-1]["type"] not in TERMINAL:
            told.append(await self.next())
        return told

    async def closed(self) -> int | None:
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        return self.connection.close_code


@asynccontextmanager
async def socket_of(
    stack: Stack, *, key: str | None = None, url: str | None = None
) -> AsyncIterator[Socket]:
    headers = {"authorization": f"Bearer {key or stack.admin_key}", **BETA}
    url = f"{(url or stack.url).replace('http', 'ws')}/v1/responses"
    async with connect(url, additional_headers=headers, max_size=None) as connection:
        yield Socket(connection)


def said(response: Event) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


@pytest.mark.parametrize("script", ["text", "unicode", "reasoning", "parallel_calls", "everything"])
async def test_events_are_those_of_the_stream_that_the_provider_gave(
    stack: Stack, upstream: UpstreamProcess, mark: str, script: str
) -> None:
    async with socket_of(stack) as socket:
        await socket.order(f"script:{script}", metadata={"mark": mark})
        told = await socket.turn()

    [request] = upstream.requests(mark)
    their_id = request["response_id"]
    path = f"{upstream.url}/v1/responses/{their_id}"
    async with ClientSession() as direct, direct.get(path, params={"stream": "true"}) as answer:
        theirs = await answer.read()
    ours = theirs.replace(their_id.encode(), told[0]["response"]["id"].encode())
    expected = [event_of(frame) for frame in frames(ours)[:-1]]
    assert told == expected
    assert numbers(told) == list(range(len(told)))


@pytest.mark.parametrize("model", BOTH)
async def test_the_official_client_calls_a_tool_and_sends_new_items_alone(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str, model: str
) -> None:
    text = 'call: get_weather {"city": "Paris"} ; say: It is {output}'
    async with client.responses.connect(extra_headers=BETA) as connection:
        await connection.response.create(
            model=model, input=text, tools=[WEATHER], store=False, safety_identifier=mark
        )
        first = await final(connection)
        [call] = [item for item in first.output if item.type == "function_call"]
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        await connection.response.create(
            model=model,
            previous_response_id=first.id,
            input=[output],
            tools=[WEATHER],
            store=False,
            safety_identifier=mark,
        )
        second = await final(connection)

    assert "sunny" in second.output_text
    assert second.previous_response_id == first.id


async def final(connection: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        async for event in connection:
            assert event.type not in ("error", "response.failed", "response.incomplete"), event
            if event.type == "response.completed":
                return event.response
    raise AssertionError("the connection ended first")


async def test_the_official_session_runs_lanes_side_by_side(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    async with (
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        slow, fast = session.lane("slow"), session.lane("fast")
        held = f"say: slow ; fault:hold#{mark}"
        await slow.send({"type": "response.create", "model": MODEL, "input": held})
        await fast.send({"type": "response.create", "model": MODEL, "input": "say: fast"})
        async with asyncio.timeout(PATIENCE_S):
            quick = await fast.get_final_response()
            upstream.release(mark)
            late = await slow.get_final_response()
    assert (quick.output_text, late.output_text) == ("fast", "slow")


async def test_a_warm_up_asks_no_model_and_the_turn_after_it_has_its_items(
    stack: Stack, upstream: UpstreamProcess, mark: str
) -> None:
    async with socket_of(stack) as socket:
        await socket.order(
            f"say: warm {mark}",
            generate=False,
            instructions=f"be brief {mark}",
            tools=[WEATHER],
            store=False,
        )
        told = await socket.turn()
        warm = told[-1]["response"]
        assert [event["type"] for event in told] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        assert upstream.requests(mark) == []
        await socket.order("say: hot", previous_response_id=warm["id"], store=False)
        told = await socket.turn()

    assert said(told[-1]["response"]) == "hot"
    [request] = upstream.requests(mark)
    assert [item["content"] for item in request["body"]["input"]] == [
        f"say: warm {mark}",
        "say: hot",
    ]
    assert request["body"]["instructions"] == f"be brief {mark}"
    assert request["body"]["tools"][0]["name"] == "get_weather"


async def test_a_chain_that_is_not_stored_goes_on_within_its_connection_alone(
    stack: Stack, upstream: UpstreamProcess, http: ClientSession
) -> None:
    async with socket_of(stack) as socket, socket_of(stack) as other:
        previous: dict[str, Any] = {}
        for word in ("one", "two"):
            await socket.order(f"say: {word}", store=False, **previous)
            last = (await socket.turn())[-1]["response"]
            previous = {"previous_response_id": last["id"]}
        await socket.order("script:recall", store=False, **previous)
        told = await socket.turn()
        assert said(told[-1]["response"]) == "say: one|one|say: two|two"

        async with http.get(f"/v1/responses/{last['id']}") as answer:
            assert answer.status == 404
        latest = {"previous_response_id": told[-1]["response"]["id"]}
        await other.order("script:recall", **latest)
        [refusal] = await other.turn()
        assert refusal["status"] == 400
        assert refusal["error"]["code"] == "previous_response_not_found"

        # What is stored from here on can be followed anywhere, with all that came before it.
        await socket.order("say: kept", **latest)
        kept = {"previous_response_id": (await socket.turn())[-1]["response"]["id"]}
        await other.order("script:recall", **kept)
        told = await other.turn()
        assert said(told[-1]["response"]).startswith("say: one|one|say: two|two|script:recall|")
        assert said(told[-1]["response"]).endswith("|say: kept|kept")


async def test_a_refusal_has_its_status_and_leaves_the_connection_open(stack: Stack) -> None:
    async with socket_of(stack) as socket:
        for fields, status, code in (
            ({"model": "nobody-serves-this"}, 404, "model_not_found"),
            ({"temperature": 9}, 400, "invalid_value"),
            ({"previous_response_id": "resp_none"}, 400, "previous_response_not_found"),
            ({"background": True}, 400, "invalid_value"),
        ):
            await socket.order("hello", **fields)
            [refusal] = await socket.turn()
            assert (refusal["status"], refusal["error"]["code"]) == (status, code)
        await socket.order("say: still here")
        assert said((await socket.turn())[-1]["response"]) == "still here"


async def test_a_key_that_is_revoked_meanwhile_gets_nothing_more(
    stack: Stack, http: ClientSession
) -> None:
    async with http.post("/v1/keys", json={"name": "socket", "project": "sockets"}) as answer:
        made = await answer.json()
    async with socket_of(stack, key=made["key"]) as socket:
        await socket.order("say: mine")
        mine = (await socket.turn())[-1]["response"]["id"]
        async with http.get(f"/v1/responses/{mine}") as answer:
            assert answer.status == 404
        async with http.delete(f"/v1/keys/{made['id']}") as answer:
            assert answer.status == 200
        await socket.order("say: more", previous_response_id=mine)
        [refusal] = await socket.turn()
        assert (refusal["status"], refusal["error"]["code"]) == (401, "invalid_api_key")
    with pytest.raises(InvalidStatus) as raised:
        async with socket_of(stack, key=made["key"]):
            pass
    assert raised.value.response.status_code == 401


async def test_a_project_s_response_can_not_be_followed_by_another(
    stack: Stack, http: ClientSession
) -> None:
    async with http.post("/v1/keys", json={"name": "other", "project": "sockets-2"}) as answer:
        made = await answer.json()
    async with socket_of(stack) as socket, socket_of(stack, key=made["key"]) as other:
        await socket.order("say: ours")
        ours = (await socket.turn())[-1]["response"]["id"]
        await other.order("script:recall", previous_response_id=ours)
        [refusal] = await other.turn()
        assert refusal["error"]["code"] == "previous_response_not_found"


async def test_what_was_cut_off_with_its_connection_goes_on_and_can_be_read(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with socket_of(stack) as socket:
        await socket.order(f"tokens: 40 ; fault:hold@20#{mark}")
        told = await socket.until(10)
        socket.connection.transport.abort()
    upstream.release(mark)
    response_id = told[0]["response"]["id"]
    async with resuming(http, response_id, after=told[-1]["sequence_number"]) as stream:
        rest = await stream.rest()
    assert numbers(told + rest) == list(range(len(told) + len(rest)))
    assert rest[-1]["type"] == "response.completed"


async def test_a_turn_whose_worker_is_killed_ends_as_failed_and_the_next_one_works(
    stack: Stack, upstream: UpstreamProcess, mark: str
) -> None:
    async with socket_of(stack) as socket:
        await socket.order(f"tokens: 40 ; fault:hold@20#{mark}", store=False)
        told = await socket.until(15)
        killed = stack.kill("worker")
        told += await socket.turn()
        upstream.release(mark)
        assert numbers(told) == list(range(len(told)))
        assert told[-1]["type"] == "response.failed"
        await stack.ready_again("worker", after=killed)
        await socket.order("say: again", store=False)
        assert said((await socket.turn())[-1]["response"]) == "again"


async def test_intake_that_is_asked_to_stop_ends_what_runs_and_says_good_bye(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with socket_of(stack) as idle, socket_of(stack) as socket:
        await socket.order(f"tokens: 40 ; fault:hold@20#{mark}")
        told = await socket.until(15)
        pid = stack.pid("intake")
        os.kill(pid, signal.SIGTERM)
        assert await idle.closed() == 1012
        upstream.release(mark)
        told += await socket.turn()
        assert told[-1]["type"] == "response.completed"
        assert numbers(told) == list(range(len(told)))
        assert await socket.closed() == 1012
    await stack.ready_again("intake", after=pid)
    async with http.get(f"/v1/responses/{told[0]['response']['id']}") as answer:
        assert (await answer.json())["status"] == "completed"


async def test_what_ran_when_intake_was_killed_is_not_lost(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    async with socket_of(stack) as socket:
        await socket.order(f"tokens: 40 ; fault:hold@20#{mark}")
        told = await socket.until(10)
        response_id = told[0]["response"]["id"]
        killed = stack.kill("intake")
        assert await socket.closed() == 1006
    await stack.ready_again("intake", after=killed)
    upstream.release(mark)
    async with resuming(http, response_id, after=told[-1]["sequence_number"]) as stream:
        rest = await stream.rest()
    assert numbers(told + rest) == list(range(len(told) + len(rest)))
    assert rest[-1]["type"] == "response.completed"
    async with socket_of(stack) as again:
        await again.order("script:recall", previous_response_id=response_id)
        assert said((await again.turn())[-1]["response"]).startswith("tokens: 40")


async def test_another_intake_goes_on_when_one_was_killed_under_a_socket(
    replicas: tuple[Replica, Replica], upstream: UpstreamProcess, mark: str
) -> None:
    first, second = replicas
    async with socket_of(first.stack, url=first.url) as socket:
        await socket.order("say: before")
        before = (await socket.turn())[-1]["response"]["id"]
        held = f"tokens: 40 ; fault:hold@20#{mark}"
        await socket.order(held, previous_response_id=before)
        told = await socket.until(10)
        first.kill()
        assert await socket.closed() == 1006
    upstream.release(mark)
    response_id = told[0]["response"]["id"]
    last = told[-1]["sequence_number"]
    async with resuming(second.http, response_id, after=last) as stream:
        rest = await stream.rest()
    assert numbers(told + rest) == list(range(len(told) + len(rest)))
    assert rest[-1]["type"] == "response.completed"

    async def projected() -> bool:
        async with second.http.get(f"/v1/responses/{response_id}") as answer:
            return answer.status == 200 and (await answer.json())["status"] == "completed"

    # What the killed one projected is another's only once Kafka has noticed.
    await found(projected, "the second intake projects it")
    async with socket_of(second.stack, url=second.url) as socket:
        await socket.order("script:recall", previous_response_id=response_id)
        heard = said((await socket.turn())[-1]["response"])
    assert heard.startswith("say: before|before|tokens: 40")
    await first.again()


async def test_many_connections_speak_at_once(stack: Stack, upstream: UpstreamProcess) -> None:
    async def talk(number: int) -> list[str]:
        heard = []
        async with socket_of(stack) as socket:
            previous: dict[str, Any] = {}
            for turn in range(3):
                await socket.order(f"say: {number}-{turn}", store=False, **previous)
                response = (await socket.turn())[-1]["response"]
                heard.append(said(response))
                previous = {"previous_response_id": response["id"]}
        return heard

    heard = await asyncio.gather(*(talk(number) for number in range(20)))
    assert heard == [[f"{number}-{turn}" for turn in range(3)] for number in range(20)]


async def test_a_socket_that_is_not_used_is_still_there(stack: Stack) -> None:
    async with socket_of(stack) as socket:
        pong = await socket.connection.ping()
        async with asyncio.timeout(PATIENCE_S):
            await pong
        await until(lambda: socket.connection.latency > 0, "a ping was answered")
        await socket.order("say: here")
        assert said((await socket.turn())[-1]["response"]) == "here"
