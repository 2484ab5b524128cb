"""Tails and ranges on a real broker, with the holes that logs have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from services.kit.deadletters import DeadLetters, Record
from services.kit.producer import Producer
from services.kit.tail import Tail, read_range
from tests.integration.kit.topics import MakeTopic, read_all
from tests.integration.serving import until

PATIENCE_SECONDS = 30


@asynccontextmanager
async def tailing(
    bootstrap: str,
    topic: str,
    dead_letters: DeadLetters,
    *,
    start: Literal["latest", "earliest"] = "earliest",
) -> AsyncIterator[tuple[Tail, list[bytes]]]:
    seen: list[bytes] = []

    def take(record: Record) -> None:
        if record.value == b"poison":
            raise ValueError("no message")
        if record.value == b"bug":
            raise KeyError("x")
        seen.append(record.value or b"")

    tail = Tail(
        bootstrap,
        topic=topic,
        partitions=[0],
        on_record=take,
        dead_letters=dead_letters,
        start=start,
    )
    await tail.start()
    try:
        yield tail, seen
    finally:
        await tail.stop()


async def caught_up(tail: Tail) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await tail.caught_up.wait()


async def end_with_a_marker(bootstrap: str, topic: str, value: bytes) -> None:
    """Write in a transaction, so that the last offset holds no record."""
    kafka = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
    await kafka.start()
    async with kafka.transaction():
        await kafka.send_and_wait(topic, value, partition=0)
    await kafka.stop()


async def delete_through(bootstrap: str, topic: str, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    await admin.close()


async def test_a_tail_of_an_empty_topic_has_caught_up(
    kafka_bootstrap: str, make_topic: MakeTopic, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert seen == []


async def test_a_tail_from_the_start_sees_all_and_then_what_comes(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    for value in (b"1", b"2"):
        await producer.send(topic, value, partition=0)
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert seen == [b"1", b"2"]
        await producer.send(topic, b"3", partition=0)
        await until(lambda: seen == [b"1", b"2", b"3"])
        assert tail.next_offsets == {0: 3}


async def test_a_tail_from_now_on_sees_nothing_old_and_everything_new(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    await producer.send(topic, b"old", partition=0)
    async with tailing(kafka_bootstrap, topic, dead_letters, start="latest") as (tail, seen):
        assert tail.caught_up.is_set()
        await producer.send(topic, b"new", partition=0)
        await until(lambda: seen == [b"new"])


async def test_a_tail_catches_up_although_the_last_offset_holds_no_record(
    kafka_bootstrap: str, make_topic: MakeTopic, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    await end_with_a_marker(kafka_bootstrap, topic, b"1")
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert seen == [b"1"]


async def test_a_tail_catches_up_although_all_records_are_gone(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    for value in (b"1", b"2", b"3"):
        await producer.send(topic, value, partition=0)
    await delete_through(kafka_bootstrap, topic, 3)
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert seen == []
        await producer.send(topic, b"4", partition=0)
        await until(lambda: seen == [b"4"])


async def test_a_compacted_topic_with_gaps_is_read_to_its_end(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic(
        **{
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "0",
        }
    )
    for round_ in range(6):
        for key in ("a", "b"):
            await producer.send(topic, b"%d" % round_, key=key, partition=0)
    await producer.send(topic, None, key="b", partition=0)
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert b"5" in seen


async def test_poison_and_bugs_in_a_tail_are_buried_and_the_tail_goes_on(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    for value in (b"1", b"poison", b"bug", b"2"):
        await producer.send(topic, value, partition=0)
    async with tailing(kafka_bootstrap, topic, dead_letters) as (tail, seen):
        await caught_up(tail)
        assert seen == [b"1", b"2"]
        assert tail.alive()
    buried = await read_all(kafka_bootstrap, f"{topic}.dlq")
    assert [record.value for record in buried] == [b"poison", b"bug"]


async def ranged(bootstrap: str, topic: str, *, end_offset: int | None = None) -> list[bytes]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [
            record.value or b""
            async for records in read_range(
                bootstrap, topic=topic, partition=0, since_ms=1, end_offset=end_offset
            )
            for record in records
        ]


async def test_a_range_ends_where_it_shall(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer
) -> None:
    topic = await make_topic()
    assert await ranged(kafka_bootstrap, topic) == []
    for value in (b"1", b"2", b"3"):
        await producer.send(topic, value, partition=0)
    assert await ranged(kafka_bootstrap, topic) == [b"1", b"2", b"3"]
    assert await ranged(kafka_bootstrap, topic, end_offset=2) == [b"1", b"2"]
    assert await ranged(kafka_bootstrap, topic, end_offset=0) == []


async def test_a_range_ends_although_the_last_offset_holds_no_record(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = await make_topic()
    await end_with_a_marker(kafka_bootstrap, topic, b"1")
    assert await ranged(kafka_bootstrap, topic) == [b"1"]


async def test_a_range_ends_although_nothing_stands_before_its_end(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer
) -> None:
    topic = await make_topic()
    for value in (b"1", b"2"):
        await producer.send(topic, value, partition=0)
    assert await ranged(kafka_bootstrap, topic, end_offset=5) == [b"1", b"2"]
    await delete_through(kafka_bootstrap, topic, 1)
    assert await ranged(kafka_bootstrap, topic) == [b"2"]
    await delete_through(kafka_bootstrap, topic, 2)
    assert await ranged(kafka_bootstrap, topic) == []


async def test_a_range_from_a_later_time_is_empty(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer
) -> None:
    topic = await make_topic()
    await producer.send(topic, b"1", partition=0)
    later = 4_000_000_000_000
    found = [r async for r in read_range(kafka_bootstrap, topic=topic, partition=0, since_ms=later)]
    assert found == []


async def test_a_range_that_is_left_early_closes_its_connection(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer
) -> None:
    topic = await make_topic()
    await producer.send(topic, b"1", partition=0)
    records = read_range(kafka_bootstrap, topic=topic, partition=0, since_ms=1)
    async for _ in records:
        break
    await records.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(records)
