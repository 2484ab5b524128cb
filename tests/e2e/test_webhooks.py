"""Webhooks: the end of a background response reaches an endpoint, signed, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp import ClientSession
from openai import AsyncOpenAI
from openai.types.webhooks import WebhookEndpointWithSecret

from tests.e2e.parts import DIALECTS
from tests.e2e.stack import Stack
from tests.e2e.waiting import found, until
from tests.upstream import UpstreamProcess
from tests.webhook_receiver import Receiver, held, receiving

MODEL = DIALECTS["responses"]
STATUS_EVENTS = [
    ("say: done", "response.completed"),
    ("script:incomplete", "response.incomplete"),
    ("script:failed", "response.failed"),
]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


@pytest.fixture
async def client(client: AsyncOpenAI, http: ClientSession, mark: str) -> AsyncOpenAI:
    """An administrator of this test's own project: what ends for others is not told here."""
    body = {"name": mark, "project": mark, "scopes": ["api", "admin"]}
    async with http.post("/v1/keys", json=body) as answer:
        return client.with_options(api_key=(await answer.json())["key"])


@pytest.fixture
async def endpoint(
    client: AsyncOpenAI, receiver: Receiver, mark: str
) -> AsyncIterator[WebhookEndpointWithSecret]:
    """An endpoint of this test for all events, made and deleted with the official client."""
    made = await client.webhooks.create(
        name=mark,
        url=receiver.url(mark),
        event_types=[
            "response.completed",
            "response.failed",
            "response.incomplete",
            "response.cancelled",
        ],
    )
    yield made
    assert (await client.webhooks.delete(made.id)).deleted


async def run_in_background(client: AsyncOpenAI, prompt: str) -> str:
    response = await client.responses.create(model=MODEL, input=prompt, background=True)
    assert response.status in ("queued", "in_progress", "completed")
    return response.id


async def told(receiver: Receiver, mark: str, response_id: str, secret: str) -> Any:
    """The event of a response, as the official client takes it out of the webhook."""

    def of_response() -> list[Any]:
        return [one for one in receiver.at(mark) if response_id.encode() in one.body]

    await until(of_response, f"{response_id} was told of")
    webhook = of_response()[-1]
    return openai.OpenAI(api_key="none").webhooks.unwrap(
        webhook.body, webhook.headers, secret=secret
    )


@pytest.mark.parametrize(("prompt", "event_type"), STATUS_EVENTS)
async def test_the_end_of_a_background_response_arrives_signed(
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
    prompt: str,
    event_type: str,
) -> None:
    response_id = await run_in_background(client, prompt)
    event = await told(receiver, mark, response_id, endpoint.signing_secret)
    assert (event.type, event.object, event.data.id) == (event_type, "event", response_id)
    response = await client.responses.retrieve(response_id)
    assert response.status == event_type.removeprefix("response.")
    [webhook] = receiver.at(mark)
    assert webhook.headers["webhook-id"].startswith("wh_")
    assert webhook.headers["content-type"] == "application/json"


async def test_a_cancelled_response_is_told_of_and_a_foreground_one_is_not(
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
) -> None:
    await client.responses.create(model=MODEL, input=f"say: {mark}")
    response_id = await run_in_background(client, f"say: late ; fault:hold#{mark}")
    await client.responses.cancel(response_id)
    event = await told(receiver, mark, response_id, endpoint.signing_secret)
    assert event.type == "response.cancelled"
    assert len(receiver.at(mark)) == 1


async def test_a_failing_endpoint_gets_the_same_webhook_again(
    client: AsyncOpenAI,
    http: ClientSession,
    upstream: UpstreamProcess,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
) -> None:
    receiver.answer(mark, 500, 302)
    response_id = await run_in_background(client, "say: done")
    await until(lambda: len(receiver.at(mark)) == 3, "the webhook was sent three times")
    assert len({one.headers["webhook-id"] for one in receiver.at(mark)}) == 1
    await told(receiver, mark, response_id, endpoint.signing_secret)

    async def settled() -> dict[str, Any] | None:
        deliveries = f"/v1/webhooks/{endpoint.id}/deliveries?project={mark}"
        async with http.get(deliveries) as answer:
            [delivery] = (await answer.json())["data"]
        return delivery if delivery["status"] == "delivered" else None

    delivery = await found(settled, "the delivery is recorded")
    assert [one["status_code"] for one in delivery["last_attempts"]] == [204, 302, 500]
    assert (delivery["response_id"], delivery["attempts"]) == (response_id, 3)


async def test_what_ended_while_the_service_was_dead_is_told_after_its_restart(
    stack: Stack,
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
) -> None:
    with stack.paused("webhooks"):
        response_id = await run_in_background(client, "say: done")

        async def ended() -> bool:
            return (await client.responses.retrieve(response_id)).status == "completed"

        await found(ended, "the response has ended")
        killed = stack.kill("webhooks")
    await stack.ready_again("webhooks", after=killed)
    event = await told(receiver, mark, response_id, endpoint.signing_secret)
    assert (event.type, event.data.id) == ("response.completed", response_id)


async def test_a_webhook_that_was_being_sent_when_the_service_died_is_sent_again(
    stack: Stack,
    client: AsyncOpenAI,
    upstream: UpstreamProcess,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
) -> None:
    never = asyncio.Event()
    receiver.answer(mark, held(never))
    response_id = await run_in_background(client, "say: done")
    await until(lambda: receiver.at(mark), "the endpoint holds the webhook")
    killed = stack.kill("webhooks")
    await stack.ready_again("webhooks", after=killed)
    await until(lambda: len(receiver.at(mark)) == 2, "the webhook was sent again")
    await told(receiver, mark, response_id, endpoint.signing_secret)
    first, second = receiver.at(mark)
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


async def test_the_official_client_manages_endpoints(
    client: AsyncOpenAI,
    http: ClientSession,
    receiver: Receiver,
    endpoint: WebhookEndpointWithSecret,
    mark: str,
) -> None:
    assert endpoint.signing_secret.startswith("whsec_")
    read = await client.webhooks.retrieve(endpoint.id)
    assert (read.url, read.name) == (receiver.url(mark), mark)
    assert "signing_secret" not in read.model_dump()
    assert endpoint.id in [one.id async for one in client.webhooks.list()]
    changed = await client.webhooks.update(endpoint.id, event_types=["response.failed"])
    assert changed.event_types == ["response.failed"]
    types = await client.webhooks.event_types.list()
    assert set(types.data) >= {"response.completed", "response.cancelled"}

    receiver.answer(mark, 418)
    result = await client.webhooks.test(endpoint.id, event_type="response.completed")
    assert (result.status_code, result.event_type) == (418, "response.completed")
    rotated = await client.webhooks.rotate_secret(
        endpoint.id, keep_old_secret_active_for_24_hours=True
    )
    await client.webhooks.test(endpoint.id, event_type="response.failed")
    sample = receiver.at(mark)[-1]
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        event = client.webhooks.unwrap(sample.body, sample.headers, secret=secret)
        assert event.type == "response.failed"


async def test_only_administrators_manage_endpoints_and_see_those_of_the_project_they_name(
    stack: Stack, client: AsyncOpenAI, http: ClientSession, endpoint: WebhookEndpointWithSecret
) -> None:
    async with http.post("/v1/keys", json={"name": "user"}) as answer:
        secret = (await answer.json())["key"]
    with pytest.raises(openai.PermissionDeniedError):
        await client.with_options(api_key=secret).webhooks.list()
    elsewhere = {"project": "elsewhere"}
    with pytest.raises(openai.NotFoundError):
        await client.webhooks.retrieve(endpoint.id, extra_query=elsewhere)
    assert (await client.webhooks.list(extra_query=elsewhere)).data == []
