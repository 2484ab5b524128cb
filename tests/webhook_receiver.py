"""An HTTP server that receives webhooks: it keeps what came and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Delivered:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


async def _accept(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """Answers the requests of a path in turn with `script`, then with 204."""

    base_url: str = ""
    received: list[Delivered] = field(default_factory=list)
    scripts: dict[str, list[Answering]] = field(default_factory=dict)
    open_now: int = 0
    most_open: int = 0

    def url(self, path: str) -> str:
        """Return the URL of an endpoint of its own."""
        return f"{self.base_url}/{path}"

    def at(self, path: str) -> list[Delivered]:
        """Return what came to a path, the oldest first."""
        return [one for one in self.received if one.path == f"/{path}"]

    def answer(self, path: str, *answers: Answering | int) -> None:
        """Answer the next requests to a path so: a number is a status."""
        made = [_status(one) if isinstance(one, int) else one for one in answers]
        self.scripts.setdefault(f"/{path}", []).extend(made)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep a request, then answer it."""
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.received.append(Delivered(request.path, headers, await request.read()))
            script = self.scripts.get(request.path)
            return await (script.pop(0) if script else _accept)(request)
        finally:
            self.open_now -= 1


def _status(status: int) -> Answering:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="as told")

    return answer


def held(until: asyncio.Event) -> Answering:
    """Return an answer that comes when the event is set."""

    async def answer(_: web.Request) -> web.StreamResponse:
        await until.wait()
        return web.Response(status=204)

    return answer


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.base_url = f"http://{host}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
