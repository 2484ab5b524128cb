"""Commits offsets behind the work: in order, together, and never in the way of the next batch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.kit.deadletters import Record

logger = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.2


@dataclass(eq=False)
class Batch:
    """Records that were fetched together, and whether they are handled."""

    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    done: bool = False
    records: int = 0


class Offsets:
    """The batches of one consumer under way.

    A batch is committed once it and all that were fetched before it are handled; commits are at
    least 200 ms apart. `consumer` gives the aiokafka consumer, None before it runs.
    """

    def __init__(self, consumer: Callable[[], Any]) -> None:
        self._consumer = consumer
        self._open: deque[Batch] = deque()
        self._ready: dict[TopicPartition, int] = {}
        self._wake = asyncio.Event()

    @property
    def unhandled(self) -> int:
        """How many records were fetched and are not handled."""
        return sum(batch.records for batch in self._open if not batch.done)

    def begin(self, records: Iterable[Record]) -> Batch:
        """Note a batch in the order of fetching."""
        batch = Batch()
        for record in records:
            batch.next_offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
            batch.records += 1
        self._open.append(batch)
        return batch

    def done(self, batch: Batch) -> None:
        """Note that a batch is handled; it will be committed in its turn."""
        batch.done = True
        while self._open and self._open[0].done:
            self._ready.update(self._open.popleft().next_offsets)
            self._wake.set()

    async def run(self) -> None:
        """Commit for ever what becomes ready."""
        while True:
            await self._wake.wait()
            await self.flush()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def flush(self) -> None:
        """Commit what is ready now; what fails is repeated with the next commit."""
        self._wake.clear()
        consumer = self._consumer()
        if consumer is None or not self._ready:
            return
        ready, self._ready = self._ready, {}
        mine = consumer.assignment()
        offsets = {partition: offset for partition, offset in ready.items() if partition in mine}
        if not offsets:
            return
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            # The partition went to another member: it repeats the batch, which is idempotent.
            logger.info("a commit came too late, its batch will be repeated: %r", error)
        except KafkaError as error:
            logger.warning("a commit failed, a later one covers it: %r", error)
            self._ready = {**offsets, **self._ready}
