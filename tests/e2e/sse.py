"""Server-sent events as they come over the wire, and the requests that bring them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import ClientResponse, ClientSession

from tests.e2e.waiting import BOUND_S, POLL_S

DONE = b"data: [DONE]"
END = b"\n\n"
Event = dict[str, Any]


def frames(stream: bytes) -> list[bytes]:
    """Split a whole stream into its events, comments left out."""
    assert stream.endswith(END)
    return [f for f in stream.removesuffix(END).split(END) if not f.startswith(b":")]


def event_of(frame: bytes) -> Event:
    """The object in an event."""
    lines = [line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line[:5] == b"data:"]
    event: Event = orjson.loads(b"\n".join(lines))
    return event


def events(stream: bytes) -> list[Event]:
    """The objects of a whole stream, which must end as the API's streams do."""
    *told, last = frames(stream)
    assert last == DONE
    return [event_of(frame) for frame in told]


def numbers(told: list[Event]) -> list[int]:
    """The sequence numbers of events."""
    return [event["sequence_number"] for event in told]


class Reader:
    """Reads a stream event by event."""

    def __init__(self, answer: ClientResponse) -> None:
        self._answer = answer
        self.told: list[Event] = []

    async def until(self, number: int) -> None:
        """Read on until the event with that sequence number has come."""
        while not self.told or self.told[-1]["sequence_number"] < number:
            assert await self._next(), "the stream ended early"

    async def until_some(self, number: int) -> None:
        """Read on until the event with that sequence number has come, or the stream ends."""
        while not self.told or self.told[-1]["sequence_number"] < number:
            if not await self._next():
                return

    async def rest(self) -> list[Event]:
        """Read to the end and return all events from the first one on."""
        while await self._next():
            pass
        return self.told

    async def _next(self) -> bool:
        frame = b""
        while not frame.endswith(END):
            line = await self._answer.content.readline()
            if not line:
                raise ConnectionError("the connection ended within a stream")
            frame += line
            if frame == b"\n":
                frame = b""
        if frame == DONE + END:
            return False
        if not frame.startswith(b":"):
            self.told.append(event_of(frame.removesuffix(END)))
        return True


@asynccontextmanager
async def streaming(
    http: ClientSession, model: str, text: str, **parameters: Any
) -> AsyncIterator[Reader]:
    """Ask for a streamed response and read it within the block."""
    body = {"model": model, "input": text, "stream": True, **parameters}
    async with http.post("/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        yield Reader(answer)


@asynccontextmanager
async def resuming(
    http: ClientSession, response_id: str, *, after: int | None = None
) -> AsyncIterator[Reader]:
    """Ask for the stream of a response that exists and read it within the block.

    Comes again while it is told so, as after a replica died whose work others take up.
    """
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    deadline = asyncio.get_running_loop().time() + BOUND_S
    while True:
        async with http.get(f"/v1/responses/{response_id}", params=query) as answer:
            late = asyncio.get_running_loop().time() > deadline
            if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and not late:
                await asyncio.sleep(POLL_S)
                continue
            assert answer.status == HTTPStatus.OK, await answer.text()
            yield Reader(answer)
            return
