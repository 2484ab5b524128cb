"""Intake's application behind its real server, spoken to over real WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from contracts.packs import Entry, Flag
from services.intake.api.app import IntakeApp
from services.intake.api.create import CreateEndpoint
from services.intake.api.websocket import SocketBounds, WebSocketEndpoint
from services.intake.sockets.lanes import Contexts
from services.intake.sockets.sessions import Sessions
from services.kit.http import HttpServer
from services.kit.websockets import WebSocketBounds
from tests.integration.serving import PATIENCE_SECONDS, until
from tests.unit.intake.apps import ADMIN, Intake

Event = dict[str, Any]


class Sockets:
    """An intake that listens, and the worker behind it, played by hand."""

    def __init__(
        self,
        *,
        max_connections: int = 10,
        max_seconds: float = 60.0,
        max_message_bytes: int = 100_000,
        context_bytes: int = 1_000_000,
        drain_seconds: float = 5.0,
        stall_seconds: float = 30.0,
    ) -> None:
        self.intake = Intake()
        self.contexts = Contexts(max_bytes=context_bytes)
        bounds = SocketBounds(max_connections, max_seconds, max_message_bytes)
        sockets = WebSocketEndpoint(
            Sessions(self.intake.responses, self.intake.shelf, self.contexts),
            self.intake.keys,
            bounds,
        )
        create = CreateEndpoint(
            self.intake.responses, self.intake.keys, max_body_bytes=max_message_bytes
        )
        self.server = HttpServer(
            IntakeApp(create, [], sockets),
            host="127.0.0.1",
            port=0,
            drain_seconds=drain_seconds,
            stall_seconds=stall_seconds,
            sockets=WebSocketBounds(
                max_message_bytes=max_message_bytes, ping_seconds=20, stall_seconds=stall_seconds
            ),
        )

    @property
    def url(self) -> str:
        """Where the WebSocket is."""
        return f"ws://127.0.0.1:{self.server.port}/v1/responses"

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        """Open a connection for the block."""
        headers = {"authorization": f"Bearer {ADMIN}"}
        async with connect(self.url, additional_headers=headers, **options) as opened:
            yield Client(opened)

    @property
    def commands(self) -> list[Event]:
        """What is on the log, in order."""
        return [self.intake.producer.command(n) for n in range(len(self.intake.producer.messages))]

    async def accepted(self, count: int) -> Event:
        """Wait until so many orders are on the log and return the last command."""
        await until(lambda: len(self.intake.producer.messages) >= count)
        return self.commands[count - 1]

    def stopping(self) -> asyncio.Task[None]:
        """Begin to stop the server."""
        return asyncio.create_task(self.server.stop())

    def say(self, response_id: str, text: str, *, status: str = "completed") -> None:
        """Let the worker tell a whole response."""
        message = {"type": "message", "role": "assistant", "content": text}
        begun = {"id": response_id, "object": "response", "status": "in_progress", "output": []}
        ended = begun | {"status": status, "output": [message]}
        self.publish(response_id, event("response.created", 0, response=begun), index=0)
        self.publish(
            response_id,
            event("response.output_text.delta", 1, delta=text)
            + event(f"response.{status}", 2, response=ended),
            index=1,
            last=True,
        )

    def publish(
        self, response_id: str, block: bytes, *, index: int = 0, last: bool = False
    ) -> None:
        """Let a block of events come from the worker."""
        flags = Flag.LAST if last else Flag.NONE
        self.intake.publish(Entry(response_id.encode(), 1, index, block, flags))


class Client:
    """One connection as clients of the API use it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def order(self, text: str = "hello", **fields: Any) -> None:
        """Ask for a response."""
        order = {"type": "response.create", "model": "gpt-5.1", "input": text, **fields}
        await self.socket.send(orjson.dumps(order).decode())

    async def next(self) -> Event:
        """The next event."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = await self.socket.recv()
        assert isinstance(told, str)
        return dict(orjson.loads(told))

    async def turn(self) -> list[Event]:
        """The events of one response, or the one error in its place."""
        events = [await self.next()]
        while events[-1]["type"] not in (
            "response.completed",
            "response.incomplete",
            "response.failed",
            "error",
        ):
            events.append(await self.next())
        return events

    async def closed(self) -> int | None:
        """Wait for the end of the connection and return its code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.socket.wait_closed()
        return self.socket.close_code


def event(kind: str, number: int, **fields: Any) -> bytes:
    """One event as a worker sends it."""
    told = {"type": kind, "sequence_number": number, **fields}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(told))


@asynccontextmanager
async def listening(**bounds: Any) -> AsyncIterator[Sockets]:
    """Let an intake listen within the block."""
    sockets = Sockets(**bounds)
    await sockets.server.start()
    try:
        yield sockets
    finally:
        await sockets.server.stop()
