"""How far a group is, asked from the brokers while nobody reads for it."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from contracts.topics import Topic
from services.kit.clock import SystemClock
from services.kit.group_progress import GroupProgress
from services.kit.producer import Producer
from tests.integration.kit.topics import MakeTopic
from tests.integration.serving import PATIENCE_SECONDS

FAR_AHEAD_MS = 60_000


def now_ms() -> int:
    return int(SystemClock().now().timestamp() * 1000)


async def commit(bootstrap: str, group: str, topic: str, *offsets: int) -> None:
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await reader.start()
    try:
        places = {TopicPartition(topic, n): OffsetAndMetadata(o, "") for n, o in enumerate(offsets)}
        reader.assign(list(places))
        await reader.commit(places)
    finally:
        await reader.stop()


async def test_a_group_has_read_what_it_committed_and_no_more(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer
) -> None:
    name = await make_topic(partitions=2)
    topic = Topic(name=name, key="", partitions=2, retention_ms=-1, owner=(), description="")

    def progress(bootstrap: str = kafka_bootstrap) -> GroupProgress:
        # A new one each time: an answer is kept for a moment.
        return GroupProgress(bootstrap, group=name, topics=[topic], clock=SystemClock())

    before = now_ms()
    # Nothing is there, nothing was ever committed; a new broker has no coordinator at first.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await progress().has_read(before + FAR_AHEAD_MS):
            pass
    for partition in (0, 1):
        await producer.send(name, b"message", key="key", partition=partition)
    assert await progress().has_read(before - 1)
    assert not await progress().has_read(now_ms() + 1)
    await commit(kafka_bootstrap, name, name, 1, 0)
    assert not await progress().has_read(now_ms() + 1)
    await commit(kafka_bootstrap, name, name, 1, 1)
    asked = progress()
    assert await asked.has_read(now_ms() + 1)
    assert await asked.has_read(before)
    assert not await progress("127.0.0.1:1").has_read(before)
