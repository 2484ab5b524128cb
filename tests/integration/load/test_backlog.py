"""Many background responses, handed in to a server that refuses some for a while."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.load.backlog import Backlog


class Server:
    """Accepts background responses; its answers are as told."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.stored: dict[str, dict[str, object]] = {}
        self._numbers = itertools.count(1)

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["background"] is True
        if self.refusals:
            return web.json_response({}, status=self.refusals.pop())
        answer = {"id": f"resp_{next(self._numbers)}", "status": "completed"}
        self.stored[answer["id"]] = {**answer, "output": body["input"]}
        return web.json_response(answer)

    async def retrieve(self, request: web.Request) -> web.Response:
        found = self.stored.get(request.match_info["id"])
        return web.json_response(found or {}, status=200 if found else 404)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    behind = Server()
    app = web.Application()
    app.router.add_post("/v1/responses", behind.create)
    app.router.add_get("/v1/responses/{id}", behind.retrieve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield behind, f"http://127.0.0.1:{port}/v1"
    await runner.cleanup()


async def test_all_are_handed_in_and_looked_at(server: tuple[Server, str]) -> None:
    behind, url = server
    behind.refusals = [503]
    async with Backlog.opened(url, "key") as backlog:
        await backlog.submit(20, "model")
        assert len(backlog.ids) == len(behind.stored) == 20
        assert await backlog.check() == {"completed": 20}
        assert not backlog.errors


async def test_lost_foreign_and_unfinished_responses_are_told_apart(
    server: tuple[Server, str],
) -> None:
    behind, url = server
    async with Backlog.opened(url, "key") as backlog:
        await backlog.submit(4, "model")
        behind.stored[backlog.ids[0]]["status"] = "failed"
        behind.stored[backlog.ids[1]]["output"] = "token=0000000009"
        del behind.stored[backlog.ids[2]]
        assert await backlog.check() == {
            "failed": 1,
            "foreign": 1,
            "http_404": 1,
            "completed": 1,
        }


async def test_a_refusal_for_good_is_an_error(server: tuple[Server, str]) -> None:
    behind, url = server
    behind.refusals = [400]
    async with Backlog.opened(url, "key") as backlog:
        await backlog.submit(2, "model")
        assert backlog.errors == {"refused_400": 1}
        assert len(backlog.ids) == 1
