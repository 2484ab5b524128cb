"""Dead letters about commands that can't be run: gone from their topic, or read by no worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.topics import RESPONSES_COMMANDS
from services.kit.deadletters import DeadLetters, Record, RefusalError
from services.worker.leases.rules import CommandPlace


@dataclass
class _Trace:
    """What is left of a command: where it stood, and perhaps its head."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    topic: str = RESPONSES_COMMANDS.name
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


class CommandLetters:
    """Writes them; each method returns once the letter is durable and raises `KafkaError`."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    async def gone(self, place: CommandPlace, *, head: str | None = None) -> None:
        """Say that a command is gone; `head` is what the queue knew of it."""
        value = None if head is None else head.encode()
        trace = _Trace(place.partition, place.offset, place.response_id.encode(), value)
        reason = f"the command of {place.response_id} is gone and can't be run"
        await self._dead_letters.bury(trace, RefusalError(reason))

    async def unread(self, record: Record, *, sends: int) -> None:
        """Keep a command that no worker could read, however often it was sent."""
        reason = f"no worker could read this command, which was sent {sends} times more"
        await self._dead_letters.bury(record, RefusalError(reason), attempts=sends + 1)

    async def nameless(self, record: Record, error: BaseException) -> None:
        """Keep a command that does not say which response it is about."""
        await self._dead_letters.bury(record, error)
