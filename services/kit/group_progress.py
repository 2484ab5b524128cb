"""How far a consumer group is, for who must know whether something is still to come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from contracts.topics import Topic
from services.kit.clock import Clock

_TIMEOUT_SECONDS = 3.0
_KEEP_SECONDS = 0.5


class GroupProgress:
    """Asks the brokers, each time anew: for rare questions, not for every request.

    Questions wait for each other, and an answer is good for half a second, so that no number of
    them is a load. It knows of partitions too that no member of the group reads at the moment.
    """

    def __init__(
        self, bootstrap: str, *, group: str, topics: Sequence[Topic], clock: Clock
    ) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._places = [
            TopicPartition(topic.name, number)
            for topic in topics
            for number in range(topic.partitions)
        ]
        self._clock = clock
        self._lock = asyncio.Lock()
        self._read_before_ms = 0
        self._behind_until = 0.0

    async def has_read(self, before_ms: int) -> bool:
        """Whether the group has handled all that was written before a time.

        `before_ms` is milliseconds since the epoch. False also when the brokers do not say.
        """
        async with self._lock:
            if before_ms <= self._read_before_ms:
                return True
            if self._clock.monotonic() < self._behind_until:
                return False
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    has_read = await self._ask(before_ms)
            except (KafkaError, OSError, TimeoutError):
                has_read = False
            if has_read:
                self._read_before_ms = before_ms
            else:
                self._behind_until = self._clock.monotonic() + _KEEP_SECONDS
            return has_read

    async def _ask(self, before_ms: int) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        try:
            await admin.start()
            await consumer.start()
            read = await admin.list_consumer_group_offsets(self._group, partitions=self._places)
            later = await consumer.offsets_for_times(dict.fromkeys(self._places, before_ms))
            ends = await consumer.end_offsets(self._places)
            begins = await consumer.beginning_offsets(self._places)
        finally:
            await consumer.stop()
            await admin.close()
        for place in self._places:
            found, committed = later.get(place), read.get(place)
            needed = ends[place] if found is None else found.offset
            # What was dropped, as too old, nobody will read; a group begins at the beginning.
            if max(committed.offset if committed else 0, begins[place]) < needed:
                return False
        return True
