"""What a queued response needs to be known by, and how urgent its service tier makes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from contracts.responses import RunResponseV1
from services.worker.leases.rules import Claim, CommandPlace

URGENT, NORMAL, PATIENT = 1, 2, 3
_PRIORITIES = {"priority": URGENT, "fast": URGENT, "flex": PATIENT}


def priority_of(command: RunResponseV1) -> int:
    """Return the class of a background response; lower runs earlier.

    `priority` and `fast` go before everything else, `flex` after it; every other tier, and none,
    is normal.
    """
    tier = command.service_tier or (command.request or {}).get("service_tier")
    return _PRIORITIES.get(tier, NORMAL) if isinstance(tier, str) else NORMAL


@dataclass(frozen=True, slots=True)
class Parked:
    """A background response that waits: where its command stands, and what decides its turn.

    `head` is the command as JSON without request and history: enough to end the response as failed
    when its command can't be read any more.
    """

    place: CommandPlace
    key_id: str
    priority: int
    accepted_at: datetime
    head: str

    @classmethod
    def of(cls, command: RunResponseV1, place: CommandPlace) -> Parked:
        """Return the entry of a command."""
        bulky: dict[str, object] = {"request": None, "history": [], "payload": None, "files": None}
        head = command.model_copy(update=bulky)
        return cls(
            place,
            command.principal.key_id,
            priority_of(command),
            command.accepted_at,
            head.model_dump_json(exclude_none=True),
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """A response that left the queue for this worker, under `claim`."""

    place: CommandPlace
    claim: Claim
    head: str


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much background work there may be at once.

    `running` in one worker, `per_key` for one API key in all workers together. What has waited for
    `overdue_seconds` goes before every priority. An idle worker looks every `poll_seconds`. What
    can't even be ended as failed is a dead letter after so many `attempts`.
    """

    running: int
    per_key: int
    overdue_seconds: float
    poll_seconds: float
    attempts: int = 8
