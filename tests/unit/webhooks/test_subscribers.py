"""Which facts become events, and which are not even looked into."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pytest

from contracts.event import Envelope
from contracts.principal import Principal
from contracts.responses import ResponseFinishedV1
from services.kit.batches import Received
from services.kit.clock import SystemClock
from services.kit.codec import Stamp, decode, encode
from services.kit.deadletters import Record
from services.webhooks.domain.events import Event
from services.webhooks.service import Interest
from services.webhooks.subscribers import LifecycleSubscriber
from tests.unit.kit.records import Message
from tests.unit.webhooks.samples import NOW

FOREGROUND = Interest(any=True, foreground=True)
BACKGROUND = Interest(any=True, foreground=False)


@dataclass
class Inbox:
    """Remembers what it was given."""

    wants: Interest = BACKGROUND
    events: list[Event] = field(default_factory=list)

    async def interest(self) -> Interest:
        return self.wants

    async def accept(self, events: Sequence[Event], *, at: datetime) -> int:
        self.events.extend(events)
        return len(events)


def fact(response_id: str = "resp_1", **changes: Any) -> ResponseFinishedV1:
    values: dict[str, Any] = {
        "response_id": response_id,
        "attempt": 1,
        "status": "completed",
        "principal": Principal(project="research", key_id="key_1"),
        "model": "m",
        "provider": "p",
        "accepted_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "events_partition": 0,
    }
    return ResponseFinishedV1(**(values | changes))


def message(data: ResponseFinishedV1, *, raw: bytes = b"{}") -> bytes:
    stamp = Stamp(event_id="1", source="/test", subject=data.response_id, time=NOW)
    return encode(data, stamp, raw={"response": raw})


def subscriber(inbox: Inbox, calls: list[str]) -> LifecycleSubscriber:
    return LifecycleSubscriber(
        inbox,
        SystemClock(),
        handled=lambda count: calls.append(f"handled {count}"),
        notify=lambda: calls.append("notify"),
    )


async def preselected(wants: Interest, *values: bytes) -> list[int]:
    records = cast("list[Record]", [Message(value, n) for n, value in enumerate(values)])
    chosen = await subscriber(Inbox(wants), []).preselect(records)
    return [record.offset for record in chosen]


async def test_only_facts_about_background_responses_are_looked_into() -> None:
    said = json.dumps({"text": '"background":true, "background": true'}).encode()
    background = message(fact(background=True))
    pretty = json.dumps(json.loads(background), indent=2).encode()
    values = (message(fact(), raw=said), background, b"", pretty, b"no JSON")
    assert await preselected(BACKGROUND, *values) == [1, 3]
    assert await preselected(FOREGROUND, *values) == [0, 1, 2, 3, 4]
    assert await preselected(Interest(any=False, foreground=False), *values) == []


@pytest.mark.parametrize("status", ["completed", "failed", "incomplete", "cancelled"])
async def test_the_end_of_a_response_is_an_event(status: str) -> None:
    inbox, calls = Inbox(), list[str]()
    data = fact(status=status, background=True)
    envelope: Envelope = decode(message(data))
    await subscriber(inbox, calls).on_lifecycle([Received(envelope, "t", 0, 0)])
    assert inbox.events == [
        Event(
            type=cast("Any", f"response.{status}"),
            response_id="resp_1",
            project="research",
            background=True,
            occurred_at=NOW,
        )
    ]
    assert calls == ["notify", "handled 1"]
