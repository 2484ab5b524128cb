"""Uploads on their way through intake: piece by piece, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.intake.api.forward import Forwarder
from services.intake.clients import ArtifactFiles, HttpClients
from services.intake.errors import ApiError
from tests.e2e.waiting import until
from tests.integration.serving import address, served
from tests.unit.intake.apps import ADMIN, Intake

PIECE = b"x" * 65_536


class Owner:
    """Takes uploads as it is told to, and remembers what came."""

    def __init__(self) -> None:
        self.received = 0
        self.broken = False
        self.headers: dict[str, str] = {}
        self.refuses = False
        self.reads = asyncio.Event()
        self.reads.set()

    async def take(self, request: web.Request) -> web.Response:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        if self.refuses:
            return web.json_response({"error": {"message": "no"}}, status=413)
        try:
            async for chunk in request.content.iter_chunked(len(PIECE)):
                self.received += len(chunk)
                await self.reads.wait()
        except (aiohttp.ClientError, ConnectionError, OSError):
            self.broken = True
            raise
        return web.json_response({"bytes": self.received})


@asynccontextmanager
async def serving(owner: Owner) -> AsyncIterator[aiohttp.ClientSession]:
    """Intake before an owner of files."""
    app = web.Application(client_max_size=1)
    app.router.add_post("/v1/files", owner.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    clients, bare = HttpClients(), Intake()
    forwarder = Forwarder(clients, bare.keys, internal_token="internal")
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    intake = Intake(routes=forwarder.routes({"/v1/files": url}))
    await clients.start()
    headers = {"authorization": f"Bearer {ADMIN}", "content-type": "multipart/form-data; x=y"}
    try:
        async with (
            served(intake.app) as server,
            aiohttp.ClientSession(address(server), headers=headers) as session,
        ):
            yield session
    finally:
        await clients.stop()
        await runner.cleanup()


class Sending:
    """A body that is sent as far as it is let, and counts how far that was."""

    def __init__(self, pieces: int, *, until_told: int) -> None:
        self._pieces = pieces
        self._until_told = until_told
        self.go_on = asyncio.Event()
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(self._pieces):
            if number == self._until_told:
                await self.go_on.wait()
            yield PIECE
            self.sent += len(PIECE)


async def test_the_owner_has_the_first_bytes_before_the_last_are_sent() -> None:
    owner, body = Owner(), Sending(40, until_told=3)
    async with serving(owner) as session:
        asked = asyncio.ensure_future(session.post("/v1/files", data=body))
        await until(lambda: owner.received == 3 * len(PIECE), "the owner has the first bytes")
        body.go_on.set()
        async with await asked as answer:
            assert (answer.status, await answer.json()) == (200, {"bytes": 40 * len(PIECE)})
    assert owner.headers["authorization"] == "Bearer internal"
    assert owner.headers["content-type"] == "multipart/form-data; x=y"
    assert owner.headers["x-antiphon-project"] == "default"


async def test_a_client_is_read_no_faster_than_the_owner_takes_it() -> None:
    owner, body = Owner(), Sending(2_000, until_told=2_000)
    owner.reads.clear()
    async with serving(owner) as session:
        asked = asyncio.ensure_future(session.post("/v1/files", data=body))
        before = -1
        while body.sent > before:
            before = body.sent
            await asyncio.wait([asked], timeout=0.3)
        assert body.sent < 32 * 1024 * 1024
        owner.reads.set()
        body.go_on.set()
        async with await asked as answer:
            assert (await answer.json())["bytes"] == 2_000 * len(PIECE)


@pytest.mark.parametrize("length", [None, 40 * len(PIECE)])
async def test_a_refusal_reaches_the_client_before_its_body_is_sent(length: int | None) -> None:
    owner, body = Owner(), Sending(40, until_told=3)
    owner.refuses = True
    headers = {} if length is None else {"content-length": str(length)}
    async with serving(owner) as session:
        async with session.post("/v1/files", data=body, headers=headers) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["message"] == "no"
        assert owner.headers.get("content-length") == headers.get("content-length")
        owner.refuses = False
        async with session.post("/v1/files", data=b"small") as answer:
            assert await answer.json() == {"bytes": 5}


async def test_an_upload_that_breaks_off_breaks_off_at_the_owner() -> None:
    owner, body = Owner(), Sending(40, until_told=3)
    async with serving(owner) as session:
        asked = asyncio.ensure_future(session.post("/v1/files", data=body))
        await until(lambda: owner.received == 3 * len(PIECE), "the owner has the first bytes")
        asked.cancel()
        await asyncio.wait([asked])
        await until(lambda: owner.broken, "the owner knows")


async def test_nothing_of_an_upload_without_a_key_reaches_the_owner() -> None:
    owner = Owner()
    async with serving(owner) as session:
        headers = {"authorization": "Bearer wrong"}
        async with session.post("/v1/files", data=PIECE, headers=headers) as answer:
            assert answer.status == 401
    assert owner.headers == {}


async def test_a_question_about_files_that_nobody_answers_says_to_try_again() -> None:
    clients = HttpClients()
    await clients.start()
    try:
        directory = ArtifactFiles(clients, base_url="http://127.0.0.1:1", internal_token="x")
        with pytest.raises(ApiError) as caught:
            await directory.named(["file-1"], project="default")
    finally:
        await clients.stop()
    assert (caught.value.status, caught.value.retry_after_seconds) == (503, 2)


async def test_an_answer_of_another_shape_counts_as_none() -> None:
    async def answer(request: web.Request) -> Any:
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_post("/internal/files", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clients = HttpClients()
    await clients.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        directory = ArtifactFiles(clients, base_url=url, internal_token="x")
        with pytest.raises(ApiError):
            await directory.named(["file-1"], project="default")
    finally:
        await clients.stop()
        await runner.cleanup()
