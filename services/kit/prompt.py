"""FastStream's Kafka consumers, prompter: no sleep between polls, and records as they came."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from aiokafka import AIOKafkaConsumer
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER

from contracts.topics import MAX_MESSAGE_BYTES
from services.kit.damage import EnduringConsumer

_WAIT_MS = 1_000
_LEAST_GATHERED_SECONDS = 0.02


class _PromptConsumer(EnduringConsumer):
    """Waits for records: FastStream sleeps a whole poll interval after an empty poll.

    Batches are at least `pace_seconds` apart; what comes in between makes the next one larger.
    """

    pace_seconds = 0.0
    _polled_at = 0.0

    async def getmany(
        self, *partitions: Any, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[Any, Any]:
        loop = asyncio.get_running_loop()
        pause = self._polled_at + self.pace_seconds - loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        while True:
            records: dict[Any, Any] = await super().getmany(
                *partitions, timeout_ms=max(timeout_ms, _WAIT_MS), max_records=max_records
            )
            if records:
                self._polled_at = loop.time()
                return records


class PromptBroker(KafkaBroker):
    """A broker whose consumers are prompt."""

    async def start(self) -> None:
        """Connect, and start all subscribers."""
        await self.connect()
        config = self.config.broker_config
        builder = cast("partial[AIOKafkaConsumer]", config.builder)
        config.builder = partial(_PromptConsumer, **builder.keywords)
        await super().start()


def fetching(pace_seconds: float) -> dict[str, Any]:
    """Let the broker gather what comes within the pace: each answer costs both sides."""
    if pace_seconds < _LEAST_GATHERED_SECONDS:
        return {}
    return {"fetch_min_bytes": MAX_MESSAGE_BYTES, "fetch_max_wait_ms": int(pace_seconds * 1000)}


def position_of(consumer: Any, partition: Any) -> int | None:
    """Return the offset that a consumer reads next, None before that is known."""
    assigned = consumer._subscription.subscription.assignment  # noqa: SLF001 - `position` waits
    state = assigned.state_value(partition)
    return state.position if state is not None and state.has_valid_position else None


async def parse(message: Any, _original: Any) -> KafkaMessage:
    """Wrap what was polled as a message."""
    # FastStream's own parser decodes every header: one that is no UTF-8 would stop the consumer.
    return KafkaMessage(raw_message=message, body=b"", consumer=FAKE_CONSUMER)


async def pass_records(message: Any, _original: Any) -> Any:
    """Give handlers the records as they were polled."""
    return message.raw_message
