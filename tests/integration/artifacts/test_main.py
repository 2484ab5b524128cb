"""The service as a process: it starts, gets ready, does its work, and ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from contracts.topics import RESPONSES_LIFECYCLE
from infra.local.ports import free_port
from infra.topics import apply as apply_topics
from services.kit.codec import Stamp, encode
from services.kit.producer import Producer
from tests.integration.artifacts.conftest import NOW
from tests.integration.artifacts.facts import finished, image_item, png
from tests.integration.serving import as_intake

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 60
CALLER = as_intake("secret")


class Running:
    """A process of the service and the way to ask it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self._base = f"http://127.0.0.1:{port}"

    async def ask(self, path: str) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._base}{path}", headers=CALLER) as answer,
        ):
            return answer.status, await answer.read()

    async def until(self, path: str, contained: bytes) -> None:
        """Return once the answer is 200 and contains some bytes."""
        deadline = time.monotonic() + WAIT_SECONDS
        last: object = None
        while self.process.returncode is None and time.monotonic() < deadline:
            try:
                last = status, body = await self.ask(path)
                if status == 200 and contained in body:
                    return
            except aiohttp.ClientConnectorError as error:
                last = error
            await asyncio.sleep(0.05)
        pytest.fail(f"exit code {self.process.returncode}, last answer {last}")


@pytest.fixture
async def service(
    kafka_bootstrap: str, own_database_url: str, s3: Any, engine: object
) -> AsyncIterator[Running]:
    await apply_topics(kafka_bootstrap)
    port = free_port()
    settings = {
        "KAFKA_BOOTSTRAP": kafka_bootstrap,
        "DATABASE_URL": own_database_url,
        "S3_ENDPOINT": s3.endpoint,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
        "S3_BUCKET": f"test-{uuid4().hex}",
        "ANTIPHON_INTERNAL_TOKEN": "secret",
        "ARTIFACTS_PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.artifacts.main", env={**os.environ, **settings}, cwd=ROOT
    )
    running = Running(process, port)
    await running.until("/readyz", b'"ok"')
    yield running
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_the_service_gets_ready_serves_what_facts_tell_and_ends_cleanly(
    service: Running, kafka_bootstrap: str
) -> None:
    response_id = f"resp_{uuid4().hex}"
    producer = Producer(kafka_bootstrap, client_id="test")
    await producer.start()
    fact = finished(response_id, [image_item(png("a"))])
    stamp = Stamp(event_id=uuid4().hex, source="/test", subject=response_id, time=NOW)
    await producer.send(RESPONSES_LIFECYCLE.name, encode(fact, stamp), key=response_id)
    await producer.stop()

    await service.until(f"/v1/artifacts?response_id={response_id}", b'"artifact"')

    assert (await service.ask("/healthz"))[0] == 200
    assert b"antiphon_artifacts_uploaded_bytes_total" in (await service.ask("/metrics"))[1]
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(service.process.wait(), WAIT_SECONDS) == 0


async def test_a_bad_setting_is_named_before_anything_starts() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.artifacts.main", "--check-config"),
        env={**os.environ, "ARTIFACTS_MAX_FILES": "none"},
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )

    _, errors = await process.communicate()

    assert process.returncode == 2
    assert errors.startswith(b"ARTIFACTS_MAX_FILES: ")
