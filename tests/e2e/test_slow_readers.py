"""Silence and slowness: signs of life in an idle stream, and a reader who slows only himself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from aiohttp import ClientError, ClientResponse, ClientSession, TCPConnector

from tests.e2e.parts import DIALECTS
from tests.e2e.sse import DONE, END, Event, event_of, numbers, streaming
from tests.e2e.stack import Stack
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
HEARTBEAT = b": heartbeat"
PATIENCE_S = 40.0
WORDS = 80_000
"""Their events are more than a reader's share in memory and all that sockets hold on the way."""
TINY = 4_096


async def signs_of_life(answer: ClientResponse, count: int) -> list[bytes]:
    """Read until so many heartbeats came one after the other; return all other frames."""
    frames: list[bytes] = []
    beats = 0
    async with asyncio.timeout(PATIENCE_S):
        while beats < count:
            frame = (await answer.content.readuntil(END)).removesuffix(END)
            beats = beats + 1 if frame == HEARTBEAT else 0
            if frame != HEARTBEAT:
                frames.append(frame)
    return frames


@pytest.mark.parametrize("model", [MODEL, DIALECTS["chat"]])
@pytest.mark.parametrize("held", ["hold", "hold@20"])
async def test_a_silent_stream_shows_that_it_lives_to_old_readers_and_new_ones(
    http: ClientSession, upstream: UpstreamProcess, mark: str, model: str, held: str
) -> None:
    body = {"model": model, "input": f"tokens: 40 ; fault:{held}#{mark}", "stream": True}
    body["metadata"] = {"mark": mark}
    async with http.post("/v1/responses", json=body) as answer:
        frames = await signs_of_life(answer, 2)
        assert frames or held == "hold"
        # A stream that has not begun has no id yet to ask for.
        if frames:
            told = orjson.loads(frames[0].split(b"data: ", 1)[1])
            query = {"stream": "true"}
            url = f"/v1/responses/{told['response']['id']}"
            async with http.get(url, params=query) as again:
                assert await signs_of_life(again, 2) == frames
                upstream.release(mark)
                assert b"response.completed" in await again.read()
        upstream.release(mark)
        assert b"response.completed" in await answer.read()


def small(address: Any) -> socket.socket:
    """A socket whose kernel takes little of what its program does not read."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY)
    return made


async def whole(http: ClientSession, response_id: str, after: int | None = None) -> list[Event]:
    """All events of a response behind `after`, read fast, and on from where a stream broke off."""
    told: list[Event] = []
    while True:
        query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
        read = bytearray()
        with suppress(ClientError):
            async with http.get(f"/v1/responses/{response_id}", params=query) as answer:
                async for chunk in answer.content.iter_any():
                    read += chunk
        got = [frame for frame in bytes(read).split(END)[:-1] if not frame.startswith(b":")]
        told += [event_of(frame) for frame in got if frame != DONE]
        if got and got[-1] == DONE:
            return told
        after = told[-1]["sequence_number"] if told else after


@asynccontextmanager
async def lazy(stack: Stack) -> AsyncIterator[ClientSession]:
    """A client that takes from the wire only what it is asked for."""
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    connector = TCPConnector(socket_factory=small)
    async with ClientSession(
        stack.url, connector=connector, headers=headers, read_bufsize=TINY
    ) as session:
        yield session


async def test_a_reader_that_does_not_read_slows_only_itself_and_can_come_again(
    stack: Stack, http: ClientSession, upstream: UpstreamProcess
) -> None:
    text = f"tokens: {WORDS}"
    async with lazy(stack) as slow, streaming(slow, MODEL, text) as stream:
        await stream.until(0)
        response_id = stream.told[0]["response"]["id"]
        # Another reader of the same response has all of it while the first one sleeps.
        async with asyncio.timeout(PATIENCE_S):
            told = await whole(http, response_id)
        every = list(range(len(told)))
        assert numbers(told) == every
        assert len(told) > WORDS

        with pytest.raises((ClientError, ConnectionError)):
            await stream.rest()
        seen = numbers(stream.told)
    assert seen == every[: len(seen)]
    assert len(seen) < len(every)
    async with asyncio.timeout(PATIENCE_S):
        assert seen + numbers(await whole(http, response_id, seen[-1])) == every
