"""Dead letters as queues: what waits on a `.dlq` topic, to be shown, sent again or dropped.

A letter waits until it was sent again or dropped; which those are is noted with the offset of one
consumer group, so nothing is ever deleted before the topic's retention ends.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from contracts.topics import DEAD_LETTER_HEADROOM_BYTES, MAX_MESSAGE_BYTES, TOPICS
from services.kit.letterbox import GROUP, Handled, Waiting, handled, letters_of, waiting

__all__ = ["Letter", "UnknownTopicError", "Waiting", "Wanted", "drop", "retry", "show", "waiting"]

_PREFIX = "antiphon-dlq-"
_WAIT_MS = 2_000
_AT_ONCE = 20
_SILENT_POLLS = 5


class UnknownTopicError(ValueError):
    """The registry has no topic of that name."""


@dataclass(frozen=True)
class Letter:
    """One dead letter; `about` are our headers without their prefix, `headers` the original's."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    about: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant: all that wait, or those that match whatever is given."""

    offsets: Collection[int] = field(default=())
    reason: str | None = None
    service: str | None = None
    key: str | None = None

    def matches(self, letter: Letter) -> bool:
        """Whether a letter is meant; `reason` is a part of the letter's, in any case."""
        about = letter.about
        return (
            (not self.offsets or letter.offset in self.offsets)
            and (self.reason is None or self.reason.lower() in about.get("reason", "").lower())
            and (self.service is None or self.service == about.get("service"))
            and (self.key is None or letter.key == self.key.encode())
        )


EVERY = Wanted()


def letter_of(record: Any) -> Letter:
    """Tell our headers from the original message's."""
    original = tuple(header for header in record.headers if not header[0].startswith(_PREFIX))
    about = {
        name.removeprefix(_PREFIX): (value or b"").decode(errors="replace")
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


class _Queue:
    """The letters of one topic that wait, and the note of those that were handled."""

    def __init__(self, consumer: Any, place: TopicPartition, done: Handled) -> None:
        self._consumer = consumer
        self._place = place
        self._done = done

    async def letters(self, wanted: Wanted) -> AsyncGenerator[Letter, None]:
        """Yield what waits and is meant, oldest first, up to the end as it is now."""
        consumer, place = self._consumer, self._place
        first = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, max(first, self._done.before))
        silent = 0
        while await consumer.position(place) < end and silent < _SILENT_POLLS:
            batches = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=_AT_ONCE)
            silent = 0 if batches else silent + 1
            for record in (one for records in batches.values() for one in records):
                if record.offset >= end:
                    return
                letter = letter_of(record)
                if record.offset not in self._done and wanted.matches(letter):
                    yield letter

    async def note(self, letter: Letter) -> None:
        """Let a letter wait no more; raises `TooScatteredError`."""
        done = self._done.with_one(letter.offset)
        await self._consumer.commit({self._place: OffsetAndMetadata(done.before, done.note)})
        self._done = done


@asynccontextmanager
async def _queue(bootstrap: str, topic: str) -> AsyncIterator[_Queue]:
    done = (await handled(bootstrap, [topic]))[topic]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
    )
    await consumer.start()
    try:
        consumer.assign([letters_of(topic)])
        yield _Queue(consumer, letters_of(topic), done)
    finally:
        await consumer.stop()


async def show(bootstrap: str, topic: str, *, most: int, wanted: Wanted = EVERY) -> list[Letter]:
    """Return the first `most` letters that wait, oldest first; changes nothing."""
    found: list[Letter] = []
    async with (
        _queue(bootstrap, _topic(topic)) as queue,
        aclosing(queue.letters(wanted)) as letters,
    ):
        async for letter in letters:
            if len(found) >= most:
                break
            found.append(letter)
    return found


async def retry(bootstrap: str, topic: str, *, most: int, wanted: Wanted = EVERY) -> int:
    """Send the first `most` waiting letters to their topic again; return how many.

    Each goes to its original partition with its original key, bytes and headers. A crash in between
    may send one twice, which every reader of a topic must bear anyway.
    """
    name = _topic(topic)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        max_request_size=MAX_MESSAGE_BYTES + DEAD_LETTER_HEADROOM_BYTES,
    )
    await producer.start()
    sent = 0
    try:
        partitions = await producer.partitions_for(name)
        async with _queue(bootstrap, name) as queue, aclosing(queue.letters(wanted)) as letters:
            async for letter in letters:
                if sent >= most:
                    break
                await producer.send_and_wait(
                    name,
                    letter.value,
                    key=letter.key,
                    partition=_partition(letter, partitions),
                    headers=list(letter.headers),
                )
                await queue.note(letter)
                sent += 1
    finally:
        await producer.stop()
    return sent


def _partition(letter: Letter, partitions: Collection[int]) -> int | None:
    """Return where the letter was; None lets its key decide when there is no such partition."""
    told = letter.about.get("partition", "")
    return int(told) if told.isdigit() and int(told) in partitions else None


async def drop(bootstrap: str, topic: str, *, most: int, wanted: Wanted = EVERY) -> int:
    """Let the first `most` waiting letters wait no more; return how many."""
    dropped = 0
    async with (
        _queue(bootstrap, _topic(topic)) as queue,
        aclosing(queue.letters(wanted)) as letters,
    ):
        async for letter in letters:
            if dropped >= most:
                break
            await queue.note(letter)
            dropped += 1
    return dropped
