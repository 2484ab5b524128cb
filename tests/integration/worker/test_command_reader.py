"""Commands read back by their place on a real topic, whatever stands there by now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from contracts.topics import RESPONSES_COMMANDS
from infra.topics import apply
from services.kit.clock import SystemClock
from services.kit.codec import Stamp, encode
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.worker.leases.rules import CommandPlace
from services.worker.queue.reader import CommandReader
from tests.unit.worker.runs import job

TOPIC = RESPONSES_COMMANDS.name
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Log:
    """Writes commands and remembers where they stand."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def put(self, partition: int, *, size: int = 10) -> CommandPlace:
        """Write a command with that much text to a partition."""
        response_id = new_id("resp")
        command = job(background=True).command.model_copy(
            update={"response_id": response_id, "request": {"input": "x" * size}}
        )
        stamp = Stamp(
            event_id=response_id,
            source="/test",
            subject=response_id,
            time=SystemClock().now(),
            traceparent=PARENT,
        )
        future = await self._producer.enqueue(
            TOPIC, encode(command, stamp), key=response_id, partition=partition
        )
        return CommandPlace(response_id, partition, (await future).offset)

    async def many(self, count: int, *, partitions: int, size: int = 10) -> list[CommandPlace]:
        """Write commands to several partitions in turn."""
        return list(
            await asyncio.gather(*(self.put(n % partitions, size=size) for n in range(count)))
        )


@pytest.fixture
async def log(kafka_bootstrap: str) -> AsyncIterator[Log]:
    await apply(kafka_bootstrap, topics=[RESPONSES_COMMANDS])
    producer = Producer(kafka_bootstrap, client_id="test")
    await producer.start()
    yield Log(producer)
    await producer.stop()


@pytest.fixture
async def reader(kafka_bootstrap: str) -> AsyncIterator[CommandReader]:
    made = CommandReader(kafka_bootstrap, client_id="test")
    await made.start()
    yield made
    await made.stop()


async def delete_before(bootstrap: str, place: CommandPlace) -> None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        partition = TopicPartition(TOPIC, place.partition)
        await admin.delete_records({partition: RecordsToDelete(before_offset=place.offset)})
    finally:
        await admin.close()


async def test_scattered_commands_are_found_again_and_again(
    log: Log, reader: CommandReader
) -> None:
    places = await log.many(1_500, partitions=3)
    for wanted in (places[::97], places[:5], [places[-1]], places[10:400]):
        found = await reader.read(wanted)
        assert found.keys() == {place.response_id for place in wanted}
        assert {one.traceparent for one in found.values()} == {PARENT}


async def test_commands_larger_than_a_fetch_are_read_whole(log: Log, reader: CommandReader) -> None:
    places = await log.many(6, partitions=2, size=500_000)
    found = await reader.read(places[::-1])
    assert found.keys() == {place.response_id for place in places}


async def test_what_was_written_after_the_first_read_is_read_by_the_next(
    log: Log, reader: CommandReader
) -> None:
    first = await log.put(0)
    await reader.read([first])
    second = await log.put(0)
    assert second.response_id in await reader.read([second])


async def test_another_command_at_the_place_is_not_taken_for_it(
    log: Log, reader: CommandReader
) -> None:
    place = await log.put(0)
    other = CommandPlace("resp_other", place.partition, place.offset)
    assert await reader.read([other]) == {}


async def test_what_is_gone_is_left_out_and_the_rest_is_read(
    log: Log, reader: CommandReader, kafka_bootstrap: str
) -> None:
    old, new, beside = await log.put(4), await log.put(4), await log.put(5)
    await delete_before(kafka_bootstrap, new)
    never = CommandPlace("resp_never", 4, new.offset + 1_000)
    found = await reader.read([old, new, never, beside])
    assert found.keys() == {new.response_id, beside.response_id}
    assert (await reader.read([beside])).keys() == {beside.response_id}
