"""Adapters to the outside: artifact facts on Kafka."""

from __future__ import annotations

from contracts.artifacts import ArtifactExpiredV1, ArtifactStoredV1
from contracts.event import Contract
from contracts.topics import ARTIFACTS_EXPIRED, ARTIFACTS_STORED
from services.artifacts.domain import Artifact
from services.artifacts.service import GoneReason
from services.kit.clock import Clock
from services.kit.codec import Stamp, encode
from services.kit.producer import Producer

_SOURCE = "/artifacts"


class KafkaAnnouncer:
    """Implements `service.Announcer`: one fact a message, keyed by the artifact id."""

    def __init__(self, producer: Producer, clock: Clock) -> None:
        self._producer = producer
        self._clock = clock

    async def stored(self, artifact: Artifact, *, traceparent: str | None) -> None:
        """Announce an artifact; raises `KafkaError` when no fact became durable."""
        fact = ArtifactStoredV1(
            artifact_id=artifact.id,
            response_id=artifact.response_id,
            item_id=artifact.item_id,
            principal=artifact.principal,
            kind=artifact.kind,
            filename=artifact.filename,
            content_type=artifact.content_type,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
        )
        # A later attempt may put other bytes in the same place: that is another fact.
        event_id = f"{artifact.id}-stored-{artifact.sha256[:16]}"
        await self._send(ARTIFACTS_STORED.name, fact, artifact.id, event_id, traceparent)

    async def expired(
        self, artifact: Artifact, reason: GoneReason, *, traceparent: str | None
    ) -> None:
        """Announce that an artifact is gone; raises as `stored` does."""
        fact = ArtifactExpiredV1(
            artifact_id=artifact.id,
            response_id=artifact.response_id,
            principal=artifact.principal,
            reason=reason,
        )
        event_id = f"{artifact.id}-expired-{artifact.sha256[:16]}"
        await self._send(ARTIFACTS_EXPIRED.name, fact, artifact.id, event_id, traceparent)

    async def _send(
        self, topic: str, fact: Contract, key: str, event_id: str, traceparent: str | None
    ) -> None:
        stamp = Stamp(
            event_id=event_id,
            source=_SOURCE,
            subject=key,
            time=self._clock.now(),
            traceparent=traceparent,
        )
        await self._producer.send(topic, encode(fact, stamp), key=key)
