"""Intake's application behind its real server and real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from starlette.routing import BaseRoute
from yarl import URL

from contracts.packs import Flag
from services.intake.api.forward import Forwarder
from services.intake.clients import HttpClients
from services.kit.http import HttpServer
from tests.integration.serving import address, served, until
from tests.unit.intake.apps import ADMIN, Intake, last_json

PATIENCE_SECONDS = 20
HEADERS = {"authorization": f"Bearer {ADMIN}"}
BODY = orjson.dumps({"model": "gpt-5.1", "input": "hello"})
STREAMED = orjson.dumps({"model": "gpt-5.1", "input": "hello", "stream": True})


@asynccontextmanager
async def serving(intake: Intake) -> AsyncIterator[tuple[aiohttp.ClientSession, HttpServer]]:
    async with (
        served(intake.app) as server,
        aiohttp.ClientSession(address(server), headers=HEADERS) as session,
    ):
        yield session, server


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_limit_is_answered_and_the_connection_goes_on(chunked: bool) -> None:
    intake = Intake(max_body_bytes=100_000)
    async with serving(intake) as (session, _):
        body: Any = pieces(60, 100_000) if chunked else BytesIO(b"x" * 6_000_000)
        async with session.post("/v1/responses", data=body) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "request_too_large"
        async with session.post("/v1/responses", data=b"{") as answer:
            assert answer.status == 400
    assert intake.producer.messages == []


async def test_a_json_answer_arrives_whole() -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=BODY))
        await until(lambda: intake.producer.messages)
        intake.publish(last_json(intake, b'{"id": 1}'))
        answer = await asked
        assert (answer.status, await answer.read()) == (200, b'{"id": 1}')
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_stream_arrives_as_it_is_made() -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=STREAMED))
        await until(lambda: intake.producer.messages)
        intake.publish(intake.entry(b"data: 1\n\n"))
        answer = await asked
        assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
        intake.publish(intake.entry(b"data: 2\n\n", index=1, flags=Flag.LAST))
        assert await answer.read() == b"data: 2\n\ndata: [DONE]\n\n"


async def test_a_client_that_hangs_up_leaves_nothing_behind() -> None:
    intake = Intake()
    async with serving(intake) as (session, _):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=STREAMED))
        await until(lambda: intake.producer.messages)
        intake.publish(intake.entry(b"data: 1\n\n"))
        answer = await asked
        await answer.content.readuntil(b"\n\n")
        answer.close()
        await until(lambda: intake.responses.open_requests == 0)
        assert intake.hub.followers == 0


async def test_a_stop_ends_streams_that_stay_open_within_its_bound() -> None:
    intake = Intake()
    async with serving(intake) as (session, server):
        asked = asyncio.ensure_future(session.post("/v1/responses", data=STREAMED))
        await until(lambda: intake.producer.messages)
        intake.publish(intake.entry(b"data: 1\n\n"))
        answer = await asked
        async with asyncio.timeout(5):
            await server.stop()
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


class Owner:
    """An owner over real sockets; `gone` tells that a client's leaving reached it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.headers: list[Any] = []
        self.gone = asyncio.Event()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.raw_path)
        self.headers.append(request.headers)
        if request.path.endswith("/endless"):
            return await self._endless(request)
        answer = web.json_response({"method": request.method}, headers={"x-total": "3"})
        answer.enable_compression()
        return answer

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65_536)
                # Faster than any owner in a process of its own it would leave no time to notice.
                await asyncio.sleep(0.001)
        finally:
            self.gone.set()


@asynccontextmanager
async def owned() -> AsyncIterator[tuple[aiohttp.ClientSession, Owner]]:
    owner = Owner()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", owner.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    clients = HttpClients()
    await clients.start()
    bare = Intake()
    forwarder = Forwarder(clients, bare.keys, internal_token="internal")
    routes: list[BaseRoute] = forwarder.routes({"/v1/costs": f"http://127.0.0.1:{port}"})
    try:
        async with serving(Intake(routes=routes)) as (session, _):
            yield session, owner
    finally:
        await clients.stop()
        await runner.cleanup()


async def test_an_owner_s_answer_comes_back_as_it_is() -> None:
    async with owned() as (session, owner):
        url = "/v1/costs/a%20b?group_by=model&x=%2F"
        async with session.get(URL(url, encoded=True)) as answer:
            assert await answer.json() == {"method": "GET"}
            assert answer.headers["x-total"] == "3"
        async with session.head("/v1/costs") as answer:
            assert answer.status == 200
        assert owner.paths[0] == url
        assert owner.headers[0]["authorization"] == "Bearer internal"


async def test_dots_in_any_writing_do_not_reach_the_owner() -> None:
    async with owned() as (session, owner):
        for path in ("/v1/costs/%2e%2e/%2e%2e/metrics", "/v1/costs/..%2f..%2fmetrics"):
            async with session.get(URL(path, encoded=True)) as answer:
                assert answer.status == 404
        assert owner.paths == []


async def test_a_client_that_leaves_a_forwarded_answer_ends_it_at_the_owner() -> None:
    async with owned() as (session, owner):
        async with session.get("/v1/costs/endless") as answer:
            await answer.content.readexactly(100_000)
            answer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await owner.gone.wait()
