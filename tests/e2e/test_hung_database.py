"""A database that answers nothing, neither yes nor no: what needs it is refused soon."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import ClientSession, ClientTimeout
from openai import AsyncOpenAI

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]
# The stack accepts within 2 s; the connection that hangs is given 2 s to be closed.
REFUSED_WITHIN_S = 7.0
Asked = tuple[str, str, dict[str, Any]]


async def test_a_database_that_hangs_is_refused_as_soon_as_a_log_that_does(
    stack: Stack, http: ClientSession, client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    before = await client.responses.create(model=MODEL, input="say: before")
    talk = await client.conversations.create()
    response, conversation = f"/v1/responses/{before.id}", f"/v1/conversations/{talk.id}"
    # Each process has connections that are open when the server stops.
    assert await client.responses.retrieve(before.id) == before
    body: dict[str, Any] = {"model": MODEL, "input": f"say: {mark}"}
    new = "/v1/responses"
    asked: dict[str, Asked] = {
        "previous": ("POST", new, {"json": {**body, "previous_response_id": before.id}}),
        "conversation": ("POST", new, {"json": {**body, "conversation": talk.id}}),
        "key": ("POST", new, {"json": body, "headers": {"idempotency-key": mark}}),
        "retrieve": ("GET", response, {}),
        "resume": ("GET", f"{response}?stream=true", {}),
        "input items": ("GET", f"{response}/input_items", {}),
        "cancel": ("POST", f"{response}/cancel", {}),
        "delete": ("DELETE", response, {}),
        "conversation read": ("GET", conversation, {}),
        "items": ("GET", f"{conversation}/items", {}),
        "changed": ("POST", conversation, {"json": {"metadata": {"a": "b"}}}),
    }

    async def ask(what: str) -> tuple[int, float, str | None, str]:
        method, path, more = asked[what]
        began = time.monotonic()
        async with http.request(method, path, timeout=ClientTimeout(60), **more) as answer:
            text = await answer.text()
            retry_after = answer.headers.get("retry-after")
            return answer.status, time.monotonic() - began, retry_after, text

    with stack.paused("postgres"):
        # More than the pool has connections, and again when all of them were given up.
        for _ in range(2):
            told = await asyncio.gather(*(ask(what) for what in asked))
            for what, (status, seconds, retry_after, text) in zip(asked, told, strict=True):
                assert (what, status) == (what, 503), text
                assert '"service_unavailable"' in text
                assert int(retry_after or 0) > 0
                assert seconds < REFUSED_WITHIN_S, what
        # What needs nothing that is stored is accepted, and run when the database is back.
        background = {"model": MODEL, "input": f"say: {mark}", "background": True}
        async with http.post(new, json=background) as answer:
            assert answer.status == 200
            accepted = (await answer.json())["id"]

    async def ended() -> bool:
        status, _, _, text = await ask("retrieve")
        assert status in (200, 503), text
        return status == 200 and (await client.responses.retrieve(accepted)).status == "completed"

    await found(ended, "the database is used again")
    for what in ("previous", "key", "conversation", "items", "changed", "input items"):
        status, _, _, text = await ask(what)
        assert (what, status) == (what, 200), text
    assert len(upstream.requests(mark)) == 4
