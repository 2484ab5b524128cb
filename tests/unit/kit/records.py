"""Messages as a consumer gets them, and dead letters that are only remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.event import Contract, Envelope
from contracts.principal import Principal
from contracts.responses import ResponseDeletedV1
from services.kit.deadletters import DeadLetters, Record
from services.kit.producer import Producer

TOPIC = "responses.lifecycle"
OWNER = Principal(project="proj_a", key_id="key_a")


@dataclass
class Message:
    """The parts of aiokafka's ConsumerRecord that the kit reads."""

    value: bytes | None
    offset: int = 0
    topic: str = TOPIC
    partition: int = 0
    timestamp: int = 0
    key: bytes | None = b"resp_1"
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Graveyard(DeadLetters):
    """Remembers what was buried: offset, error and attempts."""

    buried: list[tuple[int, BaseException, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(Producer("nowhere:0", client_id="test"), service="test")

    async def bury(self, record: Record, error: BaseException, *, attempts: int = 1) -> None:
        self.buried.append((record.offset, error, attempts))

    @property
    def offsets(self) -> list[int]:
        return [offset for offset, _, _ in self.buried]


def fact(response_id: str) -> Contract:
    return ResponseDeletedV1(response_id=response_id, principal=OWNER)


def encoded(data: Contract, *, subject: str = "resp_1") -> bytes:
    envelope = Envelope.of(
        data,
        event_id=f"{subject}:deleted",
        source="/test",
        subject=subject,
        time=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
    )
    return envelope.encode()


def message(response_id: str, offset: int) -> Message:
    """A good message about the response."""
    return Message(encoded(fact(response_id), subject=response_id), offset)
