"""Readers that see every message of a partition, without a group: tails and catch-up reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Literal

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from contracts.topics import MAX_MESSAGE_BYTES
from services.kit.damage import EnduringConsumer
from services.kit.deadletters import DeadLetters, Record
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_WAIT_MS = 1_000
_PAUSE_AFTER_ERROR_SECONDS = 0.5
_IDLE_POLLS = 3
_SILENT_POLLS = 30

OnRecord = Callable[[Record], None]


def _consumer(bootstrap: str, reset: str) -> Any:
    return EnduringConsumer(
        bootstrap_servers=bootstrap,
        client_id="antiphon-tail",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset=reset,
        max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
        fetch_max_wait_ms=500,
    )


class Tail:
    """Follows partitions of one topic from now on, or from the beginning of a compacted topic.

    `on_record` is called from the event loop for each record, in order, and must not block; a
    record for which it raises is a dead letter. The assignment is never changed.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        topic: str,
        partitions: Sequence[int],
        on_record: OnRecord,
        dead_letters: DeadLetters,
        start: Literal["latest", "earliest"] = "latest",
    ) -> None:
        self._partitions = [TopicPartition(topic, partition) for partition in partitions]
        self._on_record = on_record
        self._dead_letters = dead_letters
        self._start_at = start
        self._bootstrap = bootstrap
        self._kafka: Any = None
        self._tasks = TaskSet()
        self._ends: dict[Any, int] = {}
        self.next_offsets: dict[int, int] = {}
        self.caught_up = asyncio.Event()

    async def start(self) -> None:
        """Connect and fix the position; what is written after this returns will be seen."""
        self._kafka = _consumer(self._bootstrap, self._start_at)
        await self._kafka.start()
        self._kafka.assign(self._partitions)
        self._ends = await self._kafka.end_offsets(self._partitions)
        if self._start_at == "latest":
            for partition, end in self._ends.items():
                self._kafka.seek(partition, end)
        for partition in self._partitions:
            self.next_offsets[partition.partition] = await self._kafka.position(partition)
        self._note_progress()
        self._tasks.spawn(self._run(), name=f"tail {self._partitions}")

    async def stop(self) -> None:
        """Stop following and disconnect."""
        await self._tasks.stop()
        if self._kafka is not None:
            await self._kafka.stop()

    def alive(self) -> bool:
        """Whether the reading task still runs."""
        return len(self._tasks) == 1

    def progress(self) -> object:
        """Return another value after each batch that was read."""
        return tuple(self.next_offsets.values())

    async def waiting(self) -> int | None:
        """Return what is not read, as the broker knows now; None before the start."""
        if self._kafka is None:
            return None
        ends: dict[Any, int] = await self._kafka.end_offsets(self._partitions)
        return sum(
            max(0, end - self.next_offsets.get(place.partition, end)) for place, end in ends.items()
        )

    def _note_progress(self) -> None:
        if not self.caught_up.is_set() and all(
            self.next_offsets[partition.partition] >= end for partition, end in self._ends.items()
        ):
            self.caught_up.set()

    async def _run(self) -> None:
        while True:
            try:
                batches = await self._kafka.getmany(timeout_ms=_WAIT_MS)
                for partition, records in batches.items():
                    for record in records:
                        await self._take(record)
                    self.next_offsets[partition.partition] = records[-1].offset + 1
                if not self.caught_up.is_set():
                    await self._catch_up(idle=not batches)
            except Exception as error:
                # A tail that ended would leave its process deaf, and nobody would notice.
                expected = isinstance(error, KafkaError)
                logger.warning(
                    "a tail could not read and tries again: %r", error, exc_info=not expected
                )
                await asyncio.sleep(_PAUSE_AFTER_ERROR_SECONDS)

    async def _catch_up(self, *, idle: bool) -> None:
        # Compaction leaves gaps: the position tells the truth, not the last record. When the last
        # records are gone no fetch moves the position: then an idle poll means the end.
        for partition in self._partitions:
            position = await self._kafka.position(partition)
            if idle and self._kafka.highwater(partition) is not None:
                position = max(position, self._ends[partition])
            self.next_offsets[partition.partition] = position
        self._note_progress()

    async def _take(self, record: Record) -> None:
        try:
            self._on_record(record)
        except Exception as error:
            # Who joins while the dead letter is written must know how far the others have got.
            self.next_offsets[record.partition] = record.offset + 1
            try:
                await self._dead_letters.bury(record, error)
            except KafkaError as failure:
                logger.error("a dead letter could not be written: %r", failure)


async def read_range(
    bootstrap: str,
    *,
    topic: str,
    partition: int,
    since_ms: int,
    end_offset: int | None = None,
) -> AsyncGenerator[Sequence[Record], None]:
    """Yield the records of a partition from a time on, up to an offset or the end as it is now.

    `since_ms` is milliseconds since the epoch. `end_offset` is exclusive. Raises `KafkaError`.
    """
    place = TopicPartition(topic, partition)
    kafka = _consumer(bootstrap, "earliest")
    try:
        await kafka.start()
        kafka.assign([place])
        end = end_offset
        if end is None:
            end = (await kafka.end_offsets([place]))[place]
        found = (await kafka.offsets_for_times({place: since_ms}))[place]
        if found is None or found.offset >= end:
            return
        kafka.seek(place, found.offset)
        idle_polls, silent_polls, answered_at = 0, 0, None
        while await kafka.position(place) < end and idle_polls < _IDLE_POLLS:
            batches = await kafka.getmany(timeout_ms=_WAIT_MS)
            for records in batches.values():
                wanted = [record for record in records if record.offset < end]
                if wanted:
                    yield wanted
            if batches:
                idle_polls = silent_polls = 0
                continue
            # Either the broker is slow, or the last records are gone. It must answer this:
            await kafka.end_offsets([place])
            if kafka.last_poll_timestamp(place) != answered_at:
                answered_at = kafka.last_poll_timestamp(place)
                idle_polls += 1
                continue
            # What is there and does not come must not be taken for nothing.
            silent_polls += 1
            if silent_polls >= _SILENT_POLLS:
                raise KafkaTimeoutError(f"no records came from {topic} {partition}")
    finally:
        await kafka.stop()
