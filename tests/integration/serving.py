"""Applications of ours behind their real server, the headers of intake's requests, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from services.kit.http import HttpServer

PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def served(app: Any, **bounds: Any) -> AsyncIterator[HttpServer]:
    """Serve an application for the block; `bounds` are the server's."""
    server = HttpServer(app, host="127.0.0.1", port=0, **{"drain_seconds": 1, **bounds})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def address(server: HttpServer) -> str:
    """Return where a server is, without a slash at the end."""
    return f"http://127.0.0.1:{server.port}"


def as_intake(
    token: str, *, project: str = "research", scopes: str = "", key_id: str = "key_1"
) -> dict[str, str]:
    """Return the headers with which intake asks an owner on behalf of a key."""
    return {
        "authorization": f"Bearer {token}",
        "x-antiphon-key-id": key_id,
        "x-antiphon-project": project,
        "x-antiphon-scopes": scopes,
    }


async def until(holds: Callable[[], Any]) -> None:
    """Return once a condition holds in this process; raises `TimeoutError` in the end."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is observed has no event
            await asyncio.sleep(0.01)
