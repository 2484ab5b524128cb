"""Clients that stop reading: what waits for them is bounded, and so is how long it waits."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import orjson
import pytest

from contracts.packs import Entry
from tests.integration.intake.sockets import Sockets, event, listening
from tests.integration.serving import until
from tests.unit.intake.apps import ADMIN

BODY = orjson.dumps({"model": "gpt-5.1", "input": "hello", "stream": True})
TINY = 4_096
PIECE = event("response.output_text.delta", 0, delta="x" * 800)
PIECES = 30_000


def small(address: Any) -> socket.socket:
    """A socket whose kernel takes little of what its program does not read."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY)
    return made


async def fill(sockets: Sockets, response_id: str) -> None:
    """Let far more come than any buffer on the way holds, in a pace that is no reader's fault."""
    for index in range(PIECES):
        entry = Entry(response_id.encode(), 1, index, PIECE)
        sockets.intake.publish(entry)
        await asyncio.sleep(0)
        if sockets.intake.hub.followers == 0:
            return


def buffered(sockets: Sockets) -> int:
    """What waits in memory for all readers."""
    followers = sockets.intake.hub._followers.values()
    return sum(one._bytes for some in followers for one in some)


async def test_a_stream_that_nobody_reads_is_cut_and_held_no_longer() -> None:
    headers = {"authorization": f"Bearer {ADMIN}"}
    connector = aiohttp.TCPConnector(socket_factory=small)
    async with (
        listening(stall_seconds=0.5) as sockets,
        aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=TINY) as session,
    ):
        url = sockets.url.replace("ws", "http", 1)
        asked = asyncio.ensure_future(session.post(url, data=BODY))
        command = await sockets.accepted(1)
        filling = asyncio.create_task(fill(sockets, command["response_id"]))
        answer = await asked
        await filling
        assert buffered(sockets) <= 1_000
        await until(lambda: sockets.intake.responses.open_requests == 0)
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_a_socket_that_nobody_reads_is_cut_and_held_no_longer() -> None:
    async with listening(stall_seconds=0.5) as sockets:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY)
        made.settimeout(0)
        address = ("127.0.0.1", sockets.server.port)
        await asyncio.get_running_loop().sock_connect(made, address)
        async with sockets.client(sock=made, max_queue=1, close_timeout=0.1) as client:
            await client.order()
            command = await sockets.accepted(1)
            await fill(sockets, command["response_id"])
            assert buffered(sockets) <= 1_000
            await until(lambda: sockets.intake.responses.open_requests == 0)


async def test_a_socket_that_falls_behind_is_closed_so_that_it_can_come_again() -> None:
    async with listening() as sockets, sockets.client() as client:
        await client.order()
        command = await sockets.accepted(1)
        # All at once: more than its share before it could read any of it.
        entries = [Entry(command["response_id"].encode(), 1, index, PIECE) for index in range(10)]
        sockets.intake.publish(*entries)
        assert await client.closed() == 1013
        await until(lambda: sockets.intake.responses.open_requests == 0)
