"""Orders about responses under way: heard by every worker, noted many at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from contracts.responses import CancelResponseV1
from contracts.topics import RESPONSES_CONTROL
from services.kit.codec import decode
from services.kit.database import refuses_values
from services.kit.deadletters import DeadLetters, Record
from services.kit.outages import OUTAGES
from services.kit.retry import Backoff, retry
from services.kit.tail import Tail
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_CANCEL_BACKOFF = Backoff(attempts=30, longest_seconds=2.0, within_seconds=60.0)
_AT_ONCE = 500


class Marks(Protocol):
    """Where leases are kept."""

    async def cancel(self, *response_ids: str) -> None:
        """Mark responses as cancelled for whoever runs them, now or later. Idempotent."""
        ...


class Control:
    """Hears the orders about responses under way and passes them to whoever runs them.

    `stop` ends a response that runs here. The mark in the lease reaches those that run nowhere yet;
    it is written by every worker, since nobody else knows which of them will be alive. Orders wait
    as bare ids, each once, and go out up to 500 in a statement: a worker that starts hears those of
    the last hour, however many they are. They wait as long as the database is away.
    """

    def __init__(
        self,
        store: Marks,
        stop: Callable[[str], None],
        *,
        bootstrap: str,
        dead_letters: DeadLetters,
    ) -> None:
        self._store = store
        self._stop_run = stop
        self._tasks = TaskSet()
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.tail = Tail(
            bootstrap,
            topic=RESPONSES_CONTROL.name,
            partitions=[0],
            on_record=self._on_record,
            dead_letters=dead_letters,
            # From the beginning: an order given while no worker ran holds all the same.
            start="earliest",
        )

    async def start(self) -> None:
        """Hear the orders of the last hour, and listen from now on."""
        self._tasks.spawn(self._run(), name="cancel")
        await self.tail.start()

    async def stop(self) -> None:
        """Stop listening."""
        await self.tail.stop()
        await self._tasks.stop()

    @property
    def waiting(self) -> int:
        """How many orders are not noted yet."""
        return len(self._waiting)

    def _on_record(self, record: Record) -> None:
        order = decode(record.value or b"").data
        if isinstance(order, CancelResponseV1):
            self._waiting[order.response_id] = None
            self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            ids = list(self._waiting)[:_AT_ONCE]
            if not ids:
                self._wake.clear()
                continue
            # What runs here need not wait for the database; what begins meanwhile is stopped after.
            self._stop_runs(ids)
            try:
                await retry(
                    lambda: self._store.cancel(*ids),  # noqa: B023 - awaited here
                    on=OUTAGES,
                    backoff=_CANCEL_BACKOFF,
                )
            except OUTAGES as error:
                logger.warning("the cancelling of %d responses is not noted: %r", len(ids), error)
                if not (isinstance(error, DBAPIError) and refuses_values(error)):
                    continue
            self._stop_runs(ids)
            for response_id in ids:
                del self._waiting[response_id]

    def _stop_runs(self, ids: Sequence[str]) -> None:
        for response_id in ids:
            self._stop_run(response_id)
