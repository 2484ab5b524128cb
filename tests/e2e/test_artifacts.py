"""Files in answers become artifacts, and go when their response goes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from contracts.topics import ARTIFACTS_EXPIRED, ARTIFACTS_STORED
from tests.e2e.parts import DIALECTS
from tests.e2e.topics import Topics
from tests.e2e.waiting import found
from tests.upstream import UpstreamProcess, samples

MODEL = DIALECTS["responses"]


async def listed(http: ClientSession, response_id: str) -> list[dict[str, Any]]:
    async with http.get("/v1/artifacts", params={"response_id": response_id}) as answer:
        assert answer.status == 200
        artifacts: list[dict[str, Any]] = (await answer.json())["data"]
        return artifacts


async def artifact_of(http: ClientSession, response_id: str) -> dict[str, Any]:
    """The one artifact of a response, as soon as there is one."""
    [artifact] = await found(lambda: listed(http, response_id), "the artifact is listed")
    return artifact


async def content(http: ClientSession, artifact_id: str) -> tuple[int, bytes]:
    async with http.get(f"/v1/artifacts/{artifact_id}/content") as answer:
        return answer.status, await answer.read()


async def draw(client: AsyncOpenAI, script: str, prompt: str) -> str:
    response = await client.responses.create(model=MODEL, input=f"script:{script} {prompt}")
    assert [item.type for item in response.output] == ["image_generation_call", "message"]
    return response.id


@pytest.mark.parametrize("script", ["image", "image_big"])
async def test_an_image_in_an_answer_is_listed_and_downloaded_with_equal_bytes(
    client: AsyncOpenAI,
    http: ClientSession,
    topics: Topics,
    upstream: UpstreamProcess,
    mark: str,
    script: str,
) -> None:
    begin = await topics.ends(ARTIFACTS_STORED.name)
    response_id = await draw(client, script, mark)
    artifact = await artifact_of(http, response_id)

    status, image = await content(http, artifact["id"])
    assert status == 200
    assert image[:4] == b"\x89PNG"
    assert artifact["size_bytes"] == len(image)
    assert artifact["sha256"] == hashlib.sha256(image).hexdigest()
    assert (artifact["kind"], artifact["content_type"]) == ("image", "image/png")
    if script == "image":
        assert image == samples.png(mark)

    def is_ours(fact: Any) -> bool:
        return bool(fact.artifact_id == artifact["id"])

    [fact] = await topics.facts(ARTIFACTS_STORED.name, begin, is_ours)
    assert (fact.response_id, fact.sha256) == (response_id, artifact["sha256"])


async def test_a_file_that_code_made_is_an_artifact_too(
    client: AsyncOpenAI, http: ClientSession, upstream: UpstreamProcess, mark: str
) -> None:
    response = await client.responses.create(
        model=MODEL,
        input=f"script:code_interpreter {mark}",
        include=["code_interpreter_call.outputs"],
    )
    artifact = await artifact_of(http, response.id)
    assert await content(http, artifact["id"]) == (200, samples.png(mark))


async def test_deleting_a_response_deletes_its_artifact_but_not_an_equal_one(
    client: AsyncOpenAI,
    http: ClientSession,
    topics: Topics,
    upstream: UpstreamProcess,
    mark: str,
) -> None:
    begin = await topics.ends(ARTIFACTS_EXPIRED.name)
    first_response, second_response = [await draw(client, "image", mark) for _ in range(2)]
    first = await artifact_of(http, first_response)
    second = await artifact_of(http, second_response)
    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]

    await client.responses.delete(first_response)
    [fact] = await topics.facts(
        ARTIFACTS_EXPIRED.name, begin, lambda fact: fact.artifact_id == first["id"]
    )
    assert fact.reason == "response_deleted"

    async def gone() -> bool:
        return (await content(http, first["id"]))[0] == 404

    # The fact is out a moment before the record is gone, so that a crash can't swallow it.
    await found(gone, "the artifact is gone")
    assert await listed(http, first_response) == []
    assert await content(http, second["id"]) == (200, samples.png(mark))
