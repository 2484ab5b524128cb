"""Dead letters: a message that cannot be handled is kept whole, with the reason in its headers."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import Protocol

from opentelemetry import metrics

from services.kit.producer import Producer

logger = logging.getLogger(__name__)
_MAX_HEADER_BYTES = 8_000


class Record(Protocol):
    """What a consumer gives: the parts of aiokafka's ConsumerRecord that we use."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class RefusalError(Exception):
    """A message that will never be handled, however often it is tried: a dead letter, no retry."""


class DeadLetters:
    """Writes to `<topic>.dlq`; one per service."""

    def __init__(self, producer: Producer, *, service: str) -> None:
        self._producer = producer
        self._service = service
        self._count = metrics.get_meter("antiphon").create_counter(
            "antiphon.dead_letters", description="Messages moved to a dead-letter topic"
        )

    async def bury(self, record: Record, error: BaseException, *, attempts: int = 1) -> None:
        """Copy the record with its bytes and headers unchanged; returns once that is durable.

        Raises `KafkaError` when it can't be written: then the original must not be committed.
        """
        reason = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        headers = [
            *record.headers,
            ("antiphon-dlq-reason", reason.encode(errors="replace")[:_MAX_HEADER_BYTES]),
            ("antiphon-dlq-stack", trace.encode(errors="replace")[-_MAX_HEADER_BYTES:]),
            ("antiphon-dlq-service", self._service.encode()),
            ("antiphon-dlq-topic", record.topic.encode()),
            ("antiphon-dlq-partition", str(record.partition).encode()),
            ("antiphon-dlq-offset", str(record.offset).encode()),
            ("antiphon-dlq-attempts", str(attempts).encode()),
        ]
        await self._producer.send(
            f"{record.topic}.dlq", record.value, key=record.key, headers=headers
        )
        kind = type(error).__name__
        self._count.add(1, {"topic": record.topic, "service": self._service, "reason": kind})
        logger.error(
            "dead letter from %s[%d]@%d: %s", record.topic, record.partition, record.offset, reason
        )
