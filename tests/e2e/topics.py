"""The topics of a running stack: how far they reach, what came since, and messages of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.event import Contract
from contracts.topics import MAX_MESSAGE_BYTES, TOPICS
from services.kit.codec import decode
from services.kit.deadletters import Record

BOUND_S = 30.0
PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}
Ends = Mapping[int, int]


class Topics:
    """Reads without a group, so that nobody notices."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    async def ends(self, topic: str) -> Ends:
        """The end of each partition, the offset that its next record will have."""
        async with self._consumer() as consumer:
            ends = await consumer.end_offsets(_places(topic))
            return {place.partition: end for place, end in ends.items()}

    async def since(
        self, topic: str, begin: Ends, wanted: Callable[[Record], bool], *, count: int = 1
    ) -> list[Record]:
        """Wait for `count` wanted records after `begin`; raises TimeoutError."""
        found: list[Record] = []
        async with self._consumer() as consumer:
            places = _places(topic)
            consumer.assign(places)
            for place in places:
                consumer.seek(place, begin[place.partition])
            async with asyncio.timeout(BOUND_S):
                while len(found) < count:
                    batches = await consumer.getmany(timeout_ms=500)
                    found += [r for records in batches.values() for r in records if wanted(r)]
        return found

    async def facts(
        self,
        topic: str,
        begin: Ends,
        wanted: Callable[[Any], bool],
        *,
        count: int = 1,
        distinct: bool = False,
    ) -> Sequence[Any]:
        """Wait for `count` messages whose contract is wanted and return these contracts.

        With `distinct` a fact that is stated again, under its id, is left out, as readers do: who
        died in between may have stated it already.
        """
        seen: set[str] = set()

        def is_wanted(record: Record) -> bool:
            envelope = decode(record.value or b"")
            if not wanted(envelope.data) or (distinct and envelope.id in seen):
                return False
            seen.add(envelope.id)
            return True

        return [contract_of(r) for r in await self.since(topic, begin, is_wanted, count=count)]

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: str,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Write one message as it is."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", max_request_size=MAX_MESSAGE_BYTES
        )
        await producer.start()
        try:
            await producer.send_and_wait(
                topic, value, key=key.encode(), partition=partition, headers=headers
            )
        finally:
            await producer.stop()

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=None,
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


def contract_of(record: Record) -> Contract:
    """The contract in a message."""
    return decode(record.value or b"").data


def _places(topic: str) -> list[TopicPartition]:
    # A dead-letter topic has one partition.
    number = PARTITIONS.get(topic, 1)
    return [TopicPartition(topic, partition) for partition in range(number)]
