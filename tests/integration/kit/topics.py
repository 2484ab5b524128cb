"""Topics of one test alone, and what stands on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.kit.deadletters import DeadLetters
from services.kit.producer import Producer
from tests.integration.serving import PATIENCE_SECONDS

MakeTopic = Callable[..., Awaitable[str]]


async def read_all(bootstrap: str, topic: str, *, partition: int = 0) -> list[Any]:
    """Return every record of a partition as it is now."""
    kafka = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await kafka.start()
    try:
        place = TopicPartition(topic, partition)
        kafka.assign([place])
        end = (await kafka.end_offsets([place]))[place]
        records: list[Any] = []
        while await kafka.position(place) < end:
            for batch in (await kafka.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await kafka.stop()


@pytest.fixture
async def make_topic(kafka_bootstrap: str) -> AsyncIterator[MakeTopic]:
    """Return a maker of topics, each with a topic for its dead letters."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    made: list[str] = []

    async def make(*, partitions: int = 1, **config: str) -> str:
        name = f"test-{uuid4().hex[:12]}"
        both = [
            NewTopic(name, partitions, 1, topic_configs=config),
            NewTopic(f"{name}.dlq", 1, 1),
        ]
        made.extend(topic.name for topic in both)
        await admin.create_topics(both)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not {name, f"{name}.dlq"} <= set(await admin.list_topics()):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.02)
        return name

    yield make
    if made:
        await admin.delete_topics(made)
    await admin.close()


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    made = Producer(kafka_bootstrap, client_id="test")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def dead_letters(producer: Producer) -> DeadLetters:
    return DeadLetters(producer, service="test")
