"""Liveness on a real broker: a reader that stands still is noticed, and damage stops nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from services.kit.batches import Received
from services.kit.clock import SystemClock
from services.kit.deadletters import DeadLetters, Record
from services.kit.health import ProgressWatch
from services.kit.producer import Producer
from services.kit.tail import Tail, read_range
from tests.integration.kit.test_consumers import Handling, committed, consuming, put
from tests.integration.kit.topics import MakeTopic, read_all
from tests.integration.serving import PATIENCE_SECONDS, until

BOUND_SECONDS = 0.5
WHOLE, HURT = b"resp_FLIPME", b"resp_FLIPYE"


async def turns(watch: ProgressWatch, wanted: bool) -> None:
    """Wait until a watch says so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await watch.moving() is not wanted:  # noqa: ASYNC110 - time alone makes it stuck
            await asyncio.sleep(0.02)


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every batch that holds a certain word come from the broker with a wrong bit."""

    def flipped(data: bytes) -> Any:
        return MemoryRecords(bytes(data).replace(WHOLE, HURT))

    monkeypatch.setattr(fetcher, "MemoryRecords", flipped)


async def test_a_handler_that_hangs_is_noticed_even_when_nothing_is_left_to_fetch(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    go_on = asyncio.Event()
    seen: list[int] = []

    async def handle(batch: list[Received]) -> None:
        seen.append(len(batch))
        await go_on.wait()

    async with consuming(kafka_bootstrap, topic, handle, dead_letters) as (consumers, _):
        watch = ProgressWatch(consumers, SystemClock(), seconds=BOUND_SECONDS)
        await turns(watch, wanted=True)
        await put(producer, topic, "a", "b")
        await until(lambda: seen)
        await turns(watch, wanted=False)
        assert consumers.lag() == 2
        go_on.set()
        await turns(watch, wanted=True)
        await until(lambda: consumers.lag() == 0)


async def test_a_consumer_that_fetches_no_more_is_noticed(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    handle = Handling()
    async with consuming(kafka_bootstrap, topic, handle, dead_letters) as (consumers, _):
        await put(producer, topic, "a")
        await until(lambda: handle.seen == ["a"])
        watch = ProgressWatch(consumers, SystemClock(), seconds=BOUND_SECONDS)
        consumer = consumers._subscribers[0][0].consumer
        consumer.pause(*consumer.assignment())
        await put(producer, topic, "b")
        await turns(watch, wanted=False)
        consumer.resume(*consumer.assignment())
        await turns(watch, wanted=True)
        await until(lambda: handle.seen == ["a", "b"])


async def test_a_tail_that_reads_no_more_is_noticed(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    seen: list[bytes | None] = []

    def take(record: Record) -> None:
        seen.append(record.value)

    tail = Tail(
        kafka_bootstrap, topic=topic, partitions=[0], on_record=take, dead_letters=dead_letters
    )
    await tail.start()
    try:
        watch = ProgressWatch(tail, SystemClock(), seconds=BOUND_SECONDS)
        await producer.send(topic, b"a", partition=0)
        await until(lambda: seen == [b"a"])
        await turns(watch, wanted=True)
        tail._kafka.pause(*tail._partitions)
        await producer.send(topic, b"b", partition=0)
        await turns(watch, wanted=False)
        tail._kafka.resume(*tail._partitions)
        await turns(watch, wanted=True)
    finally:
        await tail.stop()


@pytest.mark.usefixtures("damage")
async def test_a_damaged_batch_becomes_a_dead_letter_and_nothing_else_is_lost(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic(partitions=2)
    handle = Handling()
    wanted = [f"other{number}" for number in range(20)]
    await put(producer, topic, "a", WHOLE.decode(), "c", partition=0)
    await put(producer, topic, *wanted, partition=1)
    async with consuming(kafka_bootstrap, topic, handle, dead_letters) as (consumers, fatal):
        await until(lambda: len(handle.seen) == len(wanted) + 2)
        await until(lambda: consumers.lag() == 0)
    assert fatal == []
    assert [one for one in handle.seen if one in ("a", "c")] == ["a", "c"]
    assert [one for one in handle.seen if one.startswith("other")] == wanted
    [letter] = await read_all(kafka_bootstrap, f"{topic}.dlq")
    assert letter.value == f"damaged: {topic}[0] is damaged from 1 to 1".encode()
    assert dict(letter.headers)["antiphon-dlq-offset"] == b"1"
    assert await committed(kafka_bootstrap, topic) == len(wanted)


@pytest.mark.usefixtures("damage")
async def test_tails_and_ranges_go_on_behind_damage(
    kafka_bootstrap: str, make_topic: MakeTopic, producer: Producer, dead_letters: DeadLetters
) -> None:
    topic = await make_topic()
    for value in (b"a", WHOLE, b"c"):
        await producer.send(topic, value, partition=0)
    seen: list[bytes] = []

    def take(record: Record) -> None:
        if (record.value or b"").startswith(b"damaged"):
            raise ValueError("no message")
        seen.append(record.value or b"")

    tail = Tail(
        kafka_bootstrap,
        topic=topic,
        partitions=[0],
        on_record=take,
        dead_letters=dead_letters,
        start="earliest",
    )
    await tail.start()
    try:
        await until(lambda: seen == [b"a", b"c"])
    finally:
        await tail.stop()
    found = [
        record.value
        async for records in read_range(kafka_bootstrap, topic=topic, partition=0, since_ms=0)
        for record in records
    ]
    assert found[::2] == [b"a", b"c"]
    assert len(found) == 3
