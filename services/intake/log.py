"""How intake puts a message on the log so that it can't be lost."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.errors import KafkaError

from services.intake.errors import unavailable
from services.kit.clock import Clock
from services.kit.codec import Stamp
from services.kit.producer import Producer
from services.kit.telemetry import current_traceparent


@dataclass
class Log:
    """The log as intake writes it; an acknowledgement is waited for `accept_seconds`."""

    producer: Producer
    clock: Clock
    accept_seconds: float

    async def durable(self, topic: str, value: bytes, key: str) -> None:
        """Send a message and return once it can't be lost; raises `ApiError` (503)."""
        try:
            partition = await self.producer.spread(topic)
            await self.producer.send(
                topic,
                value,
                key=key,
                partition=partition,
                within_seconds=self.accept_seconds,
            )
        except (KafkaError, TimeoutError) as error:
            raise unavailable("The request could not be made durable, try again.") from error

    def stamp(self, event_id: str, response_id: str) -> Stamp:
        """Return the stamp of a message about a response, as of now."""
        return Stamp(
            event_id=event_id,
            source="/intake",
            subject=response_id,
            time=self.clock.now(),
            traceparent=current_traceparent(),
        )
