"""Endpoints, events, outcomes and dispatchers, as the tests need them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from services.kit.clock import SystemClock
from services.kit.seal import Sealer
from services.webhooks.clients.resolver import Lookup
from services.webhooks.clients.sender import HttpSender
from services.webhooks.dispatcher import Dispatcher, Pace
from services.webhooks.domain.addresses import AddressRules
from services.webhooks.domain.endpoints import (
    Attempt,
    Claim,
    Delivery,
    Endpoint,
    Outcome,
    RetryRule,
)
from services.webhooks.domain.events import Event
from services.webhooks.domain.signing import new_secret
from services.webhooks.secrets import SecretKeeper
from services.webhooks.service import DeliveryQuery
from services.webhooks.store.deliveries import PostgresDeliveries
from services.webhooks.store.endpoints import PostgresEndpoints
from tests.unit.webhooks.samples import NOW
from tests.unit.webhooks.samples import endpoint as sample

PER_ENDPOINT = 3
LEASE = timedelta(seconds=30)
SECRETS = SecretKeeper(Sealer(["a secret of the installation"]))
HERE = AddressRules(private=True, http=True)
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02
RULE = RetryRule(
    attempts=6,
    first=timedelta(seconds=10),
    longest=timedelta(hours=1),
    give_up=timedelta(hours=72),
    trip=3,
    probe=timedelta(minutes=5),
)
EAGER = RetryRule(
    attempts=4,
    first=timedelta(seconds=0.1),
    longest=timedelta(seconds=0.2),
    give_up=timedelta(hours=1),
    trip=3,
    probe=timedelta(seconds=0.3),
)


def endpoint(name: str = "we_1", **changes: Any) -> Endpoint:
    """Return an endpoint with a secret that can be opened."""
    secret = SECRETS.seal(changes.pop("plain_secret", None) or new_secret(), endpoint_id=name)
    return sample(id=name, secret=secret, **changes)


async def added(endpoints: PostgresEndpoints, name: str = "we_1", **changes: Any) -> Endpoint:
    made = endpoint(name, **changes)
    assert await endpoints.add(made, most=1_000)
    return made


def event(response_id: str = "resp_1", **changes: Any) -> Event:
    values: dict[str, Any] = {
        "type": "response.completed",
        "project": "research",
        "background": True,
        "occurred_at": NOW,
    }
    return Event(response_id=response_id, **(values | changes))


def ended(claim: Claim, status: int | None, at: datetime = NOW, **changes: Any) -> Outcome:
    """Return the outcome of an attempt that was answered with a status, or not at all."""
    error = None if status else "no answer in time"
    attempt = Attempt(at=at, latency_ms=7, status_code=status, error=error)
    return Outcome(claim=claim, attempt=attempt, **changes)


async def history(endpoints: PostgresEndpoints, name: str = "we_1") -> dict[str, Delivery]:
    """The deliveries of an endpoint by their responses."""
    found = await endpoints.deliveries(name, DeliveryQuery(limit=1_000))
    return {delivery.response_id: delivery for delivery in found}


async def until(condition: Callable[[], Awaitable[object] | object], what: str) -> None:
    """Return once the condition holds; fails in time when it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert loop.time() < deadline, f"not in time: {what}"
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def sending(
    rules: AddressRules = HERE,
    *,
    total_seconds: float = 5.0,
    lookup: Lookup = socket.getaddrinfo,
) -> AsyncIterator[HttpSender]:
    sender = HttpSender(
        rules, connect_seconds=2.0, total_seconds=total_seconds, concurrency=64, lookup=lookup
    )
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop()


@asynccontextmanager
async def dispatching(
    queue: PostgresDeliveries, *, rule: RetryRule = EAGER, total_seconds: float = 5.0, **pace: Any
) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher as one instance of the service does."""
    values: dict[str, Any] = {
        "concurrency": 16,
        "lease": LEASE,
        "poll_seconds": 0.05,
        "stop_seconds": 0.5,
        "keep": timedelta(days=14),
        "sweep_seconds": 600,
    }
    async with sending(total_seconds=total_seconds) as sender:
        dispatcher = Dispatcher(
            queue,
            sender,
            SECRETS,
            rule=rule,
            pace=Pace(**(values | pace)),
            clock=SystemClock(),
        )
        await dispatcher.start()
        try:
            yield dispatcher
        finally:
            await dispatcher.stop()
