"""Dead letters as queues: what waits on a `.dlq` topic, to be shown, sent again or dropped.

A letter waits until it was sent again or dropped; how far that went is the offset of one consumer
group per topic, so nothing is ever deleted before the topic's retention ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from contracts.topics import DEAD_LETTER_HEADROOM_BYTES, MAX_MESSAGE_BYTES, TOPICS

GROUP = "antiphon-dead-letters"
_PREFIX = "antiphon-dlq-"
_WAIT_MS = 2_000


class UnknownTopicError(ValueError):
    """The registry has no topic of that name."""


@dataclass(frozen=True)
class Waiting:
    """How many dead letters of a topic wait, and how many were ever written."""

    topic: str
    waiting: int
    written: int


@dataclass(frozen=True)
class Letter:
    """One dead letter; `about` are our headers without their prefix, `headers` the original's."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    about: dict[str, str]


def letter_of(record: Any) -> Letter:
    """Tell our headers from the original message's."""
    original = tuple(header for header in record.headers if not header[0].startswith(_PREFIX))
    about = {
        name.removeprefix(_PREFIX): value.decode(errors="replace")
        for name, value in record.headers
        if name.startswith(_PREFIX)
    }
    return Letter(record.offset, record.timestamp, record.key, record.value, original, about)


def _topic(name: str) -> str:
    known = {topic.name for topic in TOPICS}
    plain = name.removesuffix(".dlq")
    if plain not in known:
        raise UnknownTopicError(f"no topic {plain!r}; known: {', '.join(sorted(known))}")
    return plain


@asynccontextmanager
async def _queue(bootstrap: str, topic: str) -> AsyncIterator[tuple[Any, TopicPartition]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
    )
    await consumer.start()
    place = TopicPartition(f"{topic}.dlq", 0)
    try:
        consumer.assign([place])
        yield consumer, place
    finally:
        await consumer.stop()


async def _bounds(consumer: Any, place: TopicPartition) -> tuple[int, int, int]:
    """Return (first offset still there, next one that waits, end)."""
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    committed = await consumer.committed(place)
    return first, max(first, committed or 0), end


async def waiting(bootstrap: str) -> list[Waiting]:
    """Count what waits for every topic of the registry; raises `KafkaError`."""
    counts = []
    for topic in TOPICS:
        async with _queue(bootstrap, topic.name) as (consumer, place):
            _, at, end = await _bounds(consumer, place)
            counts.append(Waiting(topic.name, end - at, end))
    return counts


async def show(bootstrap: str, topic: str, *, most: int) -> list[Letter]:
    """Return the first `most` letters that wait, oldest first; changes nothing."""
    async with _queue(bootstrap, _topic(topic)) as (consumer, place):
        return [letter_of(record) for record in await _read(consumer, place, most)]


async def retry(bootstrap: str, topic: str, *, most: int) -> int:
    """Send the first `most` waiting letters to their topic again; return how many.

    Each goes out with its original key, bytes and headers. A crash in between may send one twice,
    which every reader of a topic must bear anyway.
    """
    name = _topic(topic)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        max_request_size=MAX_MESSAGE_BYTES + DEAD_LETTER_HEADROOM_BYTES,
    )
    await producer.start()
    try:
        async with _queue(bootstrap, name) as (consumer, place):
            records = await _read(consumer, place, most)
            for record in records:
                letter = letter_of(record)
                await producer.send_and_wait(
                    name, letter.value, key=letter.key, headers=list(letter.headers)
                )
                await consumer.commit({place: letter.offset + 1})
            return len(records)
    finally:
        await producer.stop()


async def drop(bootstrap: str, topic: str, *, most: int) -> int:
    """Let the first `most` waiting letters wait no more; return how many."""
    async with _queue(bootstrap, _topic(topic)) as (consumer, place):
        _, at, end = await _bounds(consumer, place)
        count = min(most, end - at)
        if count:
            await consumer.commit({place: at + count})
        return count


async def _read(consumer: Any, place: TopicPartition, most: int) -> list[Any]:
    _, at, end = await _bounds(consumer, place)
    consumer.seek(place, at)
    records: list[Any] = []
    while len(records) < most and await consumer.position(place) < end:
        batch = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=most - len(records))
        for found in batch.values():
            records += found
    return records
