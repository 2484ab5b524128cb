"""What was deleted is gone: on every route, and in the object store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI, BadRequestError

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess, samples

MODEL = DIALECTS["responses"]


async def artifacts_of(http: ClientSession, response_id: str) -> list[dict[str, Any]]:
    async with http.get("/v1/artifacts", params={"response_id": response_id}) as answer:
        data: list[dict[str, Any]] = (await answer.json())["data"]
        return data


def in_store(stack: Stack, content: bytes) -> Callable[[], bool]:
    """Return what looks whether the object store has this content, under the hash of it."""
    name = hashlib.sha256(content).hexdigest()
    return lambda: any((stack.home / "data").rglob(name))


async def test_nothing_of_a_deleted_response_is_readable_on_any_route(
    client: AsyncOpenAI, http: ClientSession, stack: Stack, upstream: UpstreamProcess, mark: str
) -> None:
    stream = await client.responses.create(
        model=MODEL, input=f"script:image {mark}", stream=True, metadata={"chat_id": mark}
    )
    events = [event async for event in stream]
    response_id = events[0].response.id  # type: ignore[union-attr]
    [artifact] = await found(lambda: artifacts_of(http, response_id), "the artifact is listed")
    stored = in_store(stack, samples.png(mark))
    assert stored()
    readable = [
        f"/v1/responses/{response_id}",
        f"/v1/responses/{response_id}?stream=true",
        f"/v1/responses/{response_id}?stream=true&starting_after=2",
        f"/v1/responses/{response_id}/input_items",
        f"/v1/artifacts/{artifact['id']}",
        f"/v1/artifacts/{artifact['id']}/content",
    ]
    for path in readable:
        async with http.get(path) as answer:
            assert answer.status == 200, path

    await client.responses.delete(response_id)

    async def gone() -> bool:
        return not await artifacts_of(http, response_id) and not stored()

    await found(gone, "artifact and bytes are gone")
    for path in readable:
        async with http.get(path) as answer:
            assert answer.status == 404, path
            body = await answer.text()
            assert mark not in body
    for method, path in (("POST", f"/v1/responses/{response_id}/cancel"), ("DELETE", readable[0])):
        async with http.request(method, path) as answer:
            assert answer.status == 404, path
    with pytest.raises(BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="more", previous_response_id=response_id)
    assert caught.value.param == "previous_response_id"


async def test_a_file_keeps_the_bytes_that_a_deleted_response_made_and_the_other_way_round(
    client: AsyncOpenAI, http: ClientSession, stack: Stack, upstream: UpstreamProcess, mark: str
) -> None:
    image = samples.png(mark)
    stored = in_store(stack, image)
    file = await client.files.create(file=("same.png", image), purpose="vision")
    first, second = [
        await client.responses.create(model=MODEL, input=f"script:image {mark}") for _ in range(2)
    ]
    for response_id in (first.id, second.id):
        await found(partial(artifacts_of, http, response_id), "the artifact is listed")
    await client.responses.delete(first.id)
    await client.files.delete(file.id)
    [artifact] = await artifacts_of(http, second.id)
    async with http.get(f"/v1/artifacts/{artifact['id']}/content") as answer:
        assert await answer.read() == image

    file = await client.files.create(file=("same.png", image), purpose="vision")
    await client.responses.delete(second.id)

    async def response_gone() -> bool:
        return not await artifacts_of(http, second.id)

    await found(response_gone, "the artifact is gone")
    assert (await client.files.content(file.id)).content == image
    assert stored()
    await client.files.delete(file.id)
    assert not stored()
