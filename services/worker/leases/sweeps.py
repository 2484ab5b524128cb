"""Sends a command again: it is read from where it stands and copied to the end of its topic."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from contracts.topics import MAX_MESSAGE_BYTES, RESPONSES_COMMANDS
from services.kit.producer import Producer
from services.worker.leases.store import CommandPlace

logger = logging.getLogger(__name__)
_READ_SECONDS = 10.0


class Republisher:
    """Copies commands; connects only while it does so, since sweeps rarely find any."""

    def __init__(self, producer: Producer, *, bootstrap: str, client_id: str) -> None:
        self._producer = producer
        self._bootstrap = bootstrap
        self._client_id = client_id

    async def republish(self, place: CommandPlace) -> None:
        """Copy one command with its key and bytes; raises `KafkaError` when it can't."""
        partition = TopicPartition(RESPONSES_COMMANDS.name, place.partition)
        kafka: Any = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
        )
        await kafka.start()
        try:
            kafka.assign([partition])
            kafka.seek(partition, place.offset)
            async with asyncio.timeout(_READ_SECONDS):
                record = await kafka.getone(partition)
        except OffsetOutOfRangeError:
            logger.error("the command of %s is gone from its topic", place.response_id)
            return
        finally:
            await kafka.stop()
        await self._producer.send(
            RESPONSES_COMMANDS.name,
            record.value,
            key=record.key,
            headers=record.headers,
        )
