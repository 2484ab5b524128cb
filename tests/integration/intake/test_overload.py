"""More than there is room for, on real sockets: refused before memory grows, and not for others."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from contracts.config import ApiKeyChangedV1
from services.intake.admission import records
from services.kit.codec import Stamp, encode
from services.kit.http import HttpServer
from tests.integration.intake.sockets import Sockets
from tests.integration.serving import address, served, until
from tests.unit.intake.apps import ADMIN, START, Intake
from tests.unit.kit.records import Message

BODY = orjson.dumps({"model": "gpt-5.1", "input": "hello", "stream": True})
LARGE = orjson.dumps({"model": "gpt-5.1", "input": "x" * 200_000, "stream": True})
SEATS = 20
REFUSED = 3_000
AT_ONCE = 30
MOST_GROWTH_BYTES = 24 * 1024 * 1024


def learn(intake: Intake, name: str) -> str:
    """Give the keys of an intake one more and return its secret."""
    secret = records.new_secret()
    record: ApiKeyChangedV1 = records.created(
        secret, project="default", now=START, name=name, user=None
    )
    stamp = Stamp(event_id=name, source="/test", subject=name, time=START)
    intake.keys._learn(Message(encode(record, stamp)))
    return secret


@asynccontextmanager
async def listening(
    intake: Intake, *, stall_seconds: float = 30.0
) -> AsyncIterator[tuple[aiohttp.ClientSession, HttpServer]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        served(intake.app, stall_seconds=stall_seconds) as server,
        aiohttp.ClientSession(address(server), connector=connector) as session,
    ):
        yield session, server


def as_key(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def ask(session: aiohttp.ClientSession, secret: str, body: bytes = BODY) -> tuple[int, Any]:
    async with session.post("/v1/responses", data=body, headers=as_key(secret)) as answer:
        return answer.status, (await answer.json(), answer.headers)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_key_that_takes_all_it_can_get_leaves_seats_to_others_and_memory_alone() -> None:
    intake = Intake(max_open=SEATS, max_body_bytes=1_000_000)
    greedy, modest = learn(intake, "greedy"), learn(intake, "modest")
    async with listening(intake) as (session, _):
        opened = [asyncio.create_task(ask(session, greedy)) for _ in range(SEATS)]
        await until(lambda: sum(task.done() for task in opened) == SEATS - 16)
        assert intake.responses.open_requests == 16

        for _ in range(AT_ONCE):
            await ask(session, greedy, LARGE)
        gc.collect()
        before = rss_bytes()
        for _ in range(REFUSED // AT_ONCE):
            answers = await asyncio.gather(*(ask(session, greedy, LARGE) for _ in range(AT_ONCE)))
            for status, (body, headers) in answers:
                assert status == 429
                assert body["error"]["code"] == "too_many_open_requests"
                assert headers["retry-after"] == "1"
        gc.collect()
        assert rss_bytes() - before < MOST_GROWTH_BYTES

        other = asyncio.create_task(ask(session, modest))
        await until(lambda: intake.responses.open_requests == 17)
        for task in (*opened, other):
            task.cancel()
        await until(lambda: intake.responses.open_requests == 0)


async def test_bodies_that_have_no_room_are_refused_until_those_before_are_on_the_log() -> None:
    intake = Intake(max_body_bytes=1_000_000, max_bodies_bytes=300_000, accept_seconds=1.0)
    intake.producer.held = True
    async with listening(intake) as (session, _):
        first = asyncio.create_task(ask(session, ADMIN, LARGE))
        await until(lambda: intake.seats.body_bytes == len(LARGE))
        status, (body, headers) = await ask(session, ADMIN, LARGE)
        assert (status, body["error"]["code"]) == (429, "server_overloaded")
        assert headers["retry-after"] == "1"
        # Kafka takes nothing: the client is told so, and its body is no more in memory.
        status, (body, headers) = await first
        assert (status, body["error"]["code"]) == (503, "service_unavailable")
        assert headers["retry-after"] == "2"
        await until(lambda: intake.seats.open == 0)
        assert intake.seats.body_bytes == 0

        intake.producer.held = False
        waiting = asyncio.create_task(ask(session, ADMIN, LARGE))
        await until(lambda: intake.responses.open_requests == 1)
        # An open request holds a seat, but not what it asked.
        assert (intake.seats.open, intake.seats.body_bytes) == (1, 0)
        waiting.cancel()
        await until(lambda: intake.seats.open == 0)


async def test_a_client_that_does_not_send_the_rest_of_its_body_loses_its_seat() -> None:
    intake = Intake()
    async with listening(intake, stall_seconds=0.3) as (_, server):
        head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n"
        head += "content-length: 500\r\n\r\nhalf"
        made = socket.create_connection(("127.0.0.1", server.port))
        made.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(made, head.encode())
        await until(lambda: intake.seats.open == 1)
        async with asyncio.timeout(10):
            # The connection is cut: nothing, or a reset.
            with suppress(ConnectionError):
                assert await loop.sock_recv(made, 1_000) == b""
        made.close()
        await until(lambda: intake.seats.open == 0)


async def test_one_key_does_not_take_all_websockets() -> None:
    sockets = Sockets(max_connections=10)
    await sockets.server.start()
    greedy, modest = learn(sockets.intake, "greedy"), learn(sockets.intake, "modest")
    try:
        async with AsyncExitStack() as opened:
            for secret in (*[greedy] * 8, modest):
                headers = as_key(secret)
                await opened.enter_async_context(connect(sockets.url, additional_headers=headers))
            with pytest.raises(InvalidStatus) as caught:
                await connect(sockets.url, additional_headers=as_key(greedy))
            assert caught.value.response.status_code == 429
            assert b"too_many_open_requests" in (caught.value.response.body or b"")
    finally:
        await sockets.server.stop()
