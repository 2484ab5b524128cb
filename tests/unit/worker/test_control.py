"""Orders to cancel while the database does not answer as it should."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from contracts.responses import CancelResponseV1
from services.kit.retry import Backoff
from services.worker import control as module
from services.worker.control import Control
from tests.unit.kit.records import OWNER, Graveyard, Message, encoded

PATIENCE_SECONDS = 5


class RefusedError(Exception):
    """What PostgreSQL says of a value that it can't store."""

    sqlstate = "22021"


@dataclass
class Marks:
    """Fails so often before it notes anything."""

    failures: list[Exception]
    noted: list[str] = field(default_factory=list)
    tried: int = 0

    async def cancel(self, *response_ids: str) -> None:
        self.tried += 1
        if self.failures:
            raise self.failures.pop(0)
        self.noted += response_ids


async def ordered(marks: Marks, *ids: str) -> list[str]:
    """What was stopped until no order waited any more."""
    stopped: list[str] = []
    control: Any = Control(marks, stopped.append, bootstrap="nowhere:0", dead_letters=Graveyard())
    for one in ids:
        order = CancelResponseV1(response_id=one, principal=OWNER)
        control._on_record(Message(encoded(order, subject=one)))
    notes = asyncio.create_task(control._run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while control.waiting:  # noqa: ASYNC110 - what is observed has no event
                await asyncio.sleep(0)
    finally:
        notes.cancel()
        await asyncio.gather(notes, return_exceptions=True)
    return stopped


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = Backoff(attempts=2, first_seconds=0.0, longest_seconds=0.0)
    monkeypatch.setattr(module, "_CANCEL_BACKOFF", backoff)


async def test_an_order_outlasts_any_outage_and_what_runs_here_stops_before_it_is_noted() -> None:
    marks = Marks([OSError("away")] * 5)

    stopped = await ordered(marks, "resp_1", "resp_2")

    assert marks.noted == ["resp_1", "resp_2"]
    assert stopped[:2] == ["resp_1", "resp_2"]


async def test_an_order_that_the_database_refuses_does_not_hold_up_the_next() -> None:
    refused = DBAPIError("UPDATE", {}, RefusedError())
    marks = Marks([refused, refused])

    await ordered(marks, "resp_1")

    assert marks.noted == []
    assert marks.tried == 2
