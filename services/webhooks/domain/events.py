"""What endpoints are told: types, ids and the bytes of an event, in the shape of the OpenAI API."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from contracts.responses import TerminalStatus

EventType = Literal[
    "response.completed", "response.failed", "response.incomplete", "response.cancelled"
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
_OF_STATUS: dict[TerminalStatus, EventType] = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    "cancelled": "response.cancelled",
}
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A response of a project that came to its end; `occurred_at` is when, in UTC."""

    type: EventType
    response_id: str
    project: str
    background: bool
    occurred_at: datetime

    @property
    def id(self) -> str:
        """The same each time the same end of the same response is seen."""
        return f"evt_{_digest(self.response_id, self.type)}"


def type_of(status: TerminalStatus) -> EventType:
    """Return the event that tells of this end."""
    return _OF_STATUS[status]


def delivery_id(endpoint_id: str, event_id: str) -> str:
    """Return the `webhook-id`: one per endpoint and event, the same in every attempt."""
    return f"wh_{_digest(endpoint_id, event_id)}"


def payload(
    *, event_id: str, event_type: EventType, response_id: str, occurred_at: datetime
) -> bytes:
    """Return the body of a webhook: the same bytes for the same event, since they are signed."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(occurred_at.timestamp()),
        "type": event_type,
        "data": {"id": response_id},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_ID_DIGITS]
