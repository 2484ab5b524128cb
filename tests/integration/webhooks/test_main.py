"""The service as a process: it starts, gets ready, does its work, and ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import psutil
import pytest
import standardwebhooks

from contracts.topics import RESPONSES_LIFECYCLE
from infra.local.ports import free_port
from infra.topics import apply as apply_topics
from services.kit.clock import SystemClock
from services.kit.codec import Stamp, encode
from services.kit.producer import Producer
from tests.integration.serving import as_intake
from tests.integration.webhooks.parts import until
from tests.unit.webhooks.test_subscribers import fact
from tests.webhook_receiver import Receiver

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 60
MOST_RSS_BYTES = 160 * 1024 * 1024
CALLER = as_intake("secret", scopes="admin")


class Running:
    """A process of the service and the way to ask it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.base = f"http://127.0.0.1:{port}"

    async def status(self, path: str) -> int:
        assert self.process.returncode is None
        try:
            async with aiohttp.ClientSession() as session, session.get(self.base + path) as answer:
                return answer.status
        except aiohttp.ClientConnectorError:
            return 0

    async def has_counted(self) -> bool:
        """Whether one delivery was made and one attempt, which was good."""
        url = f"{self.base}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            metrics = await answer.text()
        attempts = r'^antiphon_webhooks_attempts_total\{[^}]*result="delivered"\} 1\.0$'
        queued = r"^antiphon_webhooks_queued_total\{[^}]*\} 1\.0$"
        return all(re.search(one, metrics, re.MULTILINE) for one in (attempts, queued))

    async def is_ready(self) -> bool:
        return await self.status("/readyz") == 200


@pytest.fixture
async def service(
    kafka_bootstrap: str, own_database_url: str, engine: object
) -> AsyncIterator[Running]:
    await apply_topics(kafka_bootstrap)
    port = free_port()
    settings = {
        "KAFKA_BOOTSTRAP": kafka_bootstrap,
        "DATABASE_URL": own_database_url,
        "ANTIPHON_INTERNAL_TOKEN": "secret",
        "WEBHOOKS_PORT": str(port),
        "WEBHOOKS_ALLOW_HTTP": "true",
        "WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.webhooks.main", env={**os.environ, **settings}, cwd=ROOT
    )
    running = Running(process, port)
    await until(running.is_ready, "the service is ready")
    yield running
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_a_fact_becomes_a_webhook_and_the_service_ends_cleanly(
    service: Running, kafka_bootstrap: str, receiver: Receiver
) -> None:
    async with (
        aiohttp.ClientSession(service.base, headers=CALLER) as intake,
        intake.post("/v1/webhooks", json={"url": receiver.url("hook")}) as answer,
    ):
        secret = (await answer.json())["signing_secret"]
    producer = Producer(kafka_bootstrap, client_id="test")
    await producer.start()
    now = SystemClock().now()
    wanted = f"resp_{uuid4().hex}"
    # Somebody waited for the first, the second is told twice.
    for name, background in ((f"{wanted}_foreground", False), (wanted, True), (wanted, True)):
        data = fact(name, background=background, finished_at=now)
        stamp = Stamp(event_id=uuid4().hex, source="/test", subject=name, time=now)
        await producer.send(RESPONSES_LIFECYCLE.name, encode(data, stamp), key=name)
    await producer.stop()
    await until(lambda: receiver.received, "the webhook has come")
    [webhook] = receiver.received
    told = standardwebhooks.Webhook(secret).verify(webhook.body, webhook.headers)
    assert (told["type"], told["data"]) == ("response.completed", {"id": wanted})

    assert await service.status("/healthz") == 200
    await until(service.has_counted, "the metrics tell of one webhook")
    assert psutil.Process(service.process.pid).memory_info().rss < MOST_RSS_BYTES
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(service.process.wait(), WAIT_SECONDS) == 0


async def test_a_bad_setting_is_named_before_anything_starts() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.webhooks.main", "--check-config"),
        env={**os.environ, "WEBHOOKS_ALLOW_NETWORKS": "everywhere"},
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"WEBHOOKS_ALLOW_NETWORKS" in told
