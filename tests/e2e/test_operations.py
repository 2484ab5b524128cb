"""What operators and careful clients rely on: health, metrics, request ids, background work."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import SERVICES, Stack
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess

MODEL = DIALECTS["responses"]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_tells_its_health_and_its_metrics(stack: Stack, service: str) -> None:
    origin = f"http://127.0.0.1:{stack.part(service).port}"
    async with ClientSession(origin) as anybody:
        for path in ("/healthz", "/readyz"):
            async with anybody.get(path) as answer:
                assert answer.status == 200
                assert (await answer.json())["status"] == "ok"
        async with anybody.get("/metrics") as answer:
            assert answer.status == 200
            assert "# TYPE" in await answer.text()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/models"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/artifacts"),
        ("GET", "/v1/costs"),
        ("GET", "/v1/mcp/servers"),
        ("GET", "/healthz"),
        ("GET", "/v1/nothing"),
    ],
)
async def test_every_answer_has_a_request_id_of_its_own(
    http: ClientSession, upstream: UpstreamProcess, method: str, path: str
) -> None:
    body = {"model": MODEL, "input": "say: hi"} if method == "POST" else None
    seen = set()
    for _ in range(2):
        async with http.request(method, path, json=body) as answer:
            assert answer.status < 500
            seen.add(answer.headers["x-request-id"])
    assert len(seen) == 2


@pytest.mark.parametrize("model", DIALECTS.values())
async def test_a_background_response_is_queued_at_once_and_completes(
    client: AsyncOpenAI, upstream: UpstreamProcess, model: str
) -> None:
    created = await client.responses.create(
        model=model, input="What is the capital of France?", background=True
    )
    assert (created.status, created.background, created.output) == ("queued", True, [])

    async def completed() -> bool:
        status = (await client.responses.retrieve(created.id)).status
        assert status in ("queued", "in_progress", "completed")
        return status == "completed"

    await found(completed, "the background response completes")
    assert (await client.responses.retrieve(created.id)).output_text


async def test_a_background_response_that_is_held_up_is_in_progress(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str
) -> None:
    created = await client.responses.create(
        model=MODEL, input=f"say: late ; fault:hold#{mark}", background=True
    )

    async def status(wanted: str) -> bool:
        return (await client.responses.retrieve(created.id)).status == wanted

    await found(lambda: status("in_progress"), "the response is in progress")
    upstream.release(mark)
    await found(lambda: status("completed"), "the response completes")
    assert (await client.responses.retrieve(created.id)).output_text == "late"


@pytest.mark.parametrize("model", [DIALECTS["responses"], DIALECTS["chat"]])
async def test_a_background_response_can_be_cancelled_while_the_provider_works(
    client: AsyncOpenAI, upstream: UpstreamProcess, mark: str, model: str
) -> None:
    created = await client.responses.create(
        model=model, input=f"say: never ; fault:hold#{mark}", background=True
    )
    await until(lambda: upstream.requests(mark), "the provider has the request")
    cancelled = await client.responses.cancel(created.id)
    assert cancelled.status == "cancelled"
    # The provider is told by the end of the connection.
    await until(lambda: upstream.requests(mark)[0]["client_closed"], "the provider is left")
    upstream.release(mark)
    assert (await client.responses.retrieve(created.id)).status == "cancelled"
    assert len(upstream.requests(mark)) == 1
