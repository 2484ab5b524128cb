"""Deliveries from the table to real endpoints, by one instance and by several."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import standardwebhooks

from services.kit.clock import SystemClock
from services.webhooks.domain.signing import new_secret
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from tests.integration.webhooks.parts import (
    EAGER,
    PER_ENDPOINT,
    SECRETS,
    added,
    dispatching,
    event,
    history,
    until,
)
from tests.webhook_receiver import Receiver, held


def numbered(count: int, mark: str = "resp") -> list[str]:
    return [f"{mark}_{number}" for number in range(count)]


async def queued(queue: PostgresDeliveries, names: list[str], project: str = "research") -> None:
    now = SystemClock().now()
    events = [event(name, project=project, occurred_at=now) for name in names]
    assert await queue.accept(events, at=now) == len(names)


async def test_what_is_queued_is_delivered_once_and_signed(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    secret = new_secret()
    await added(endpoints, url=receiver.url("hook"), plain_secret=secret)
    await queued(queue, numbered(30))
    async with dispatching(queue):

        async def all_delivered() -> bool:
            return {one.state for one in (await history(endpoints)).values()} == {"delivered"}

        await until(all_delivered, "all are delivered")
    assert len(receiver.received) == 30
    assert receiver.most_open <= PER_ENDPOINT
    told = [
        standardwebhooks.Webhook(secret).verify(one.body, one.headers) for one in receiver.received
    ]
    assert sorted(one["data"]["id"] for one in told) == sorted(numbered(30))
    assert {one["type"] for one in told} == {"response.completed"}


async def test_several_instances_share_the_work_without_sending_twice(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    for number in range(4):
        await added(endpoints, f"we_{number}", url=receiver.url(f"hook{number}"))
    now = SystemClock().now()
    await queue.accept([event(name, occurred_at=now) for name in numbered(25)], at=now)
    async with dispatching(queue), dispatching(queue), dispatching(queue):
        await until(lambda: len(receiver.received) >= 100, "all have come")
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 100
    assert len(receiver.received) == 100
    assert receiver.most_open <= 4 * PER_ENDPOINT


async def test_a_failed_delivery_is_repeated_with_the_same_bytes_until_it_is_taken(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    await added(endpoints, url=receiver.url("hook"))
    receiver.answer("hook", 500, 301)
    await queued(queue, ["resp_1"])
    async with dispatching(queue):

        async def delivered() -> bool:
            return (await history(endpoints))["resp_1"].state == "delivered"

        await until(delivered, "it is delivered")
    delivery = (await history(endpoints))["resp_1"]
    assert [one.status_code for one in delivery.last_attempts] == [500, 301, 204]
    assert len(receiver.received) == 3
    assert len({one.body for one in receiver.received}) == 1
    assert {one.headers["webhook-id"] for one in receiver.received} == {delivery.id}


async def test_a_delivery_that_always_fails_is_given_up(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    await added(endpoints, url=receiver.url("hook"))
    receiver.answer("hook", *[500] * 20)
    await queued(queue, ["resp_1"])
    async with dispatching(queue):

        async def failed() -> bool:
            return (await history(endpoints))["resp_1"].state == "failed"

        await until(failed, "it is given up")
    assert len(receiver.received) == EAGER.attempts


async def test_endpoints_that_hang_do_not_hold_up_the_others(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    never = asyncio.Event()
    for number in range(4):
        await added(endpoints, f"we_bad_{number}", url=receiver.url("bad"), project="bad")
    receiver.answer("bad", *[held(never)] * 1_000)
    await added(endpoints, "we_good", url=receiver.url("good"), project="good")
    now = SystemClock().now()
    await queue.accept(
        [event(name, project="bad", occurred_at=now) for name in numbered(100)], at=now
    )
    async with dispatching(queue, concurrency=4 * PER_ENDPOINT + 1, total_seconds=2):
        await until(lambda: len(receiver.at("bad")) == 4 * PER_ENDPOINT, "they hang")
        await queued(queue, numbered(20, "good"), project="good")
        async with asyncio.timeout(10):
            await until(lambda: len(receiver.at("good")) == 20, "the others go on")


async def test_what_an_instance_held_when_it_died_is_sent_by_another(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    await added(endpoints, url=receiver.url("hook"))
    now = SystemClock().now()
    await queue.accept([event("resp_1", occurred_at=now)], at=now)
    lost = await queue.claim(1, now=now, lease=timedelta(seconds=0.5))
    assert len(lost) == 1
    async with dispatching(queue):
        await until(lambda: receiver.received, "it is sent after the lease")
    assert receiver.received[0].headers["webhook-id"] == lost[0].delivery_id


async def test_an_instance_that_is_stopped_gives_back_what_it_could_not_finish(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    await added(endpoints, url=receiver.url("hook"))
    receiver.answer("hook", held(asyncio.Event()))
    await queued(queue, ["resp_1"])
    async with dispatching(queue, stop_seconds=0.1):
        await until(lambda: receiver.received, "it hangs")
    async with dispatching(queue):
        # Long before the end of the lease.
        async with asyncio.timeout(5):
            await until(lambda: len(receiver.received) == 2, "another sends it")

        async def delivered() -> bool:
            return (await history(endpoints))["resp_1"].state == "delivered"

        await until(delivered, "it is delivered")
    assert (await history(endpoints))["resp_1"].attempts == 1


async def test_a_secret_that_can_not_be_opened_is_told_and_nothing_is_sent(
    queue: PostgresDeliveries, endpoints: PostgresEndpoints, receiver: Receiver
) -> None:
    await added(endpoints, url=receiver.url("hook"))
    other = SECRETS.seal(new_secret(), endpoint_id="we_other")
    await endpoints.change("we_1", project="research", to=lambda one: replace(one, secret=other))
    await queued(queue, ["resp_1"])
    async with dispatching(queue):

        async def tried() -> bool:
            return bool((await history(endpoints))["resp_1"].last_attempts)

        await until(tried, "it is tried")
    attempt = (await history(endpoints))["resp_1"].last_attempts[0]
    assert attempt.error is not None
    assert "rotate it" in attempt.error
    assert receiver.received == []
