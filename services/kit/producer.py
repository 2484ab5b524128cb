"""One Kafka producer per process: durable sends, bounded in size and time, no lost futures."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from contracts.topics import DEAD_LETTER_HEADROOM_BYTES, MAX_MESSAGE_BYTES

logger = logging.getLogger(__name__)

_SLICE_SECONDS = 0.02

Headers = Sequence[tuple[str, bytes]]


class Producer:
    """Sends messages with acks=all; the order of sends to one partition is kept by the caller.

    `linger_ms` stays 0: packs are batched before they get here.
    """

    def __init__(self, bootstrap: str, *, client_id: str, request_timeout_ms: int = 15_000) -> None:
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "client_id": client_id,
            "acks": "all",
            "linger_ms": 0,
            "max_batch_size": MAX_MESSAGE_BYTES,
            "max_request_size": MAX_MESSAGE_BYTES + DEAD_LETTER_HEADROOM_BYTES,
            "request_timeout_ms": request_timeout_ms,
            "retry_backoff_ms": 50,
        }
        self._kafka: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        # Producers take turns in different orders, so that they do not all meet at one partition.
        self._first_slice = os.getpid()

    async def start(self) -> None:
        """Connect; raises `KafkaError` when no broker answers."""
        self._kafka = AIOKafkaProducer(**self._options)
        await self._kafka.start()

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        if self._kafka is not None:
            await self._kafka.stop()

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: str | bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        within_seconds: float | None = None,
    ) -> None:
        """Return once all in-sync replicas have the message; raises `KafkaError` when they have
        not, `TimeoutError` when that is not known `within_seconds`: it may come there later.
        """
        future = await self.enqueue(topic, value, key=key, partition=partition, headers=headers)
        if within_seconds is None:
            await future
            return
        # A timer by itself is a fifth of what `asyncio.timeout` costs each message.
        timer = asyncio.get_running_loop().call_later(within_seconds, _expire, future)
        try:
            await future
        finally:
            timer.cancel()

    async def enqueue(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: str | bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[Any]:
        """Buffer the message and return the future of its acknowledgement, which logs its error."""
        if self._kafka is None:
            raise RuntimeError("the producer is not started")
        future: asyncio.Future[Any] = await self._kafka.send(
            topic,
            value=value,
            key=key.encode() if isinstance(key, str) else key,
            partition=partition,
            headers=list(headers),
        )
        future.add_done_callback(_log_failure)
        return future

    async def spread(self, topic: str) -> int:
        """Return the partition for a message whose order among others means nothing.

        It changes every 20 ms: what is sent at about the same time travels in one batch, and over
        time every partition gets its share.
        """
        count = self._partitions.get(topic)
        if count is None:
            count = self._partitions[topic] = await self.partitions(topic)
        slice_number = int(asyncio.get_running_loop().time() / _SLICE_SECONDS)
        return (slice_number + self._first_slice) % count

    async def partitions(self, topic: str) -> int:
        """Return how many partitions the cluster has for `topic`."""
        if self._kafka is None:
            raise RuntimeError("the producer is not started")
        return len(await self._kafka.partitions_for(topic))


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("Kafka did not acknowledge a message in time"))


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and isinstance(error := future.exception(), KafkaError):
        logger.warning("a message was not acknowledged: %r", error)
