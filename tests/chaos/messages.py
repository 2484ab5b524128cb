"""Trouble by way of Kafka itself: members that come and go, messages that come again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from contracts.topics import MAX_MESSAGE_BYTES, TOPICS

READ_TIMEOUT_S = 10.0
RECENT = 2_000
"""How far back a message may stand in its partition that comes again."""
_READ_MS = 500


async def storm(bootstrap: str, group: str, *, joins: int, seconds: float) -> None:
    """Let a further member join and leave a group several times; it handles and commits nothing."""
    topics = [topic.name for topic in TOPICS if group in topic.readers]
    for _ in range(joins):
        member = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id="chaos",
            enable_auto_commit=False,
            session_timeout_ms=6_000,
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
        )
        try:
            await asyncio.wait_for(member.start(), READ_TIMEOUT_S)
            await asyncio.sleep(seconds / joins)
        finally:
            await member.stop()


async def redeliver(bootstrap: str, topic: str, *, messages: int, seed: int, seconds: float) -> int:
    """Send old messages of a topic again, as they were and to where they stood; return how many.

    They come late, in another order, and some of them twice.
    """
    rng = random.Random(seed)
    records = await _recent(bootstrap, topic)
    chosen = [rng.choice(records) for _ in range(messages)] if records else []
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_request_size=2 * MAX_MESSAGE_BYTES
    )
    await producer.start()
    try:
        sent = []
        for record in chosen:
            again = await producer.send(
                topic,
                record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
            sent.append(again)
            await asyncio.sleep(rng.uniform(0, 2 * seconds / messages))
        results = await asyncio.gather(*sent, return_exceptions=True)
    finally:
        await producer.stop()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, KafkaError):
            raise result
    return sum(not isinstance(result, BaseException) for result in results)


async def _recent(bootstrap: str, topic: str) -> Sequence[Any]:
    """Read the last messages of each partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
    )
    await consumer.start()
    records: list[Any] = []
    try:
        [count] = [known.partitions for known in TOPICS if known.name == topic]
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        for one in partitions:
            consumer.seek(one, max(begins[one], ends[one] - RECENT // len(partitions)))
        async with asyncio.timeout(READ_TIMEOUT_S):
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for found in (await consumer.getmany(timeout_ms=_READ_MS)).values():
                    records += found
    finally:
        await consumer.stop()
    return records
