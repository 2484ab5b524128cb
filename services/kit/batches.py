"""What becomes of a batch of messages: handled, tried again, or sent to the dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from contracts.event import Envelope, UnknownContractError
from services.kit.codec import decode
from services.kit.database import refuses_values
from services.kit.deadletters import DeadLetters, Record, RefusalError
from services.kit.outages import OUTAGES
from services.kit.retry import Backoff, retry

logger = logging.getLogger(__name__)
_PATIENT = Backoff(attempts=1_800, longest_seconds=2.0, within_seconds=3_600.0)
"""An hour: an outage heals without a restart, a part that never comes back is not waited for."""


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded message and where it stood."""

    envelope: Envelope
    topic: str
    partition: int
    offset: int


Handler = Callable[[list[Received]], Awaitable[None]]
Preselect = Callable[[Sequence[Record]], Awaitable[Sequence[Record]]]
Unknown = Callable[[Sequence[Record]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """What to consume and how hard to try.

    `handle` gets up to `max_records` messages, in order within each partition; it must be
    idempotent, since a crash between it and the commit repeats the batch. `types` are the message
    types it wants, others are skipped. `transient` errors are retried with `backoff` and end the
    process when it is used up, so that nothing is skipped; a `RefusalError`, or a database that
    refuses the values of a message, sends it to the dead letters at once, any other error after
    `bug_attempts`. Up to `depth` batches are handled side by side, for handlers to which the order
    of messages means nothing. Batches are at least `pace_seconds` apart, where nobody waits for
    each and fewer, larger ones cost less. `preselect` says which records are worth decoding, for
    readers that want few messages of a busy topic; it is retried as `handle` is. `unknown` gets the
    messages of types that this version does not know; without it they are dead letters.
    """

    topics: tuple[str, ...]
    group: str
    handle: Handler
    types: frozenset[str]
    max_records: int = 500
    transient: tuple[type[BaseException], ...] = OUTAGES
    backoff: Backoff = _PATIENT
    bug_attempts: int = 3
    depth: int = 1
    pace_seconds: float = 0.0
    preselect: Preselect | None = None
    unknown: Unknown | None = None


class Batches:
    """Takes one batch of records through decoding, handling, retries and dead letters."""

    def __init__(
        self,
        subscription: Subscription,
        dead_letters: DeadLetters,
        on_try: Callable[[], None] = lambda: None,
    ) -> None:
        self._subscription = subscription
        self._dead_letters = dead_letters
        self._on_try = on_try

    async def handle(self, records: tuple[Record, ...]) -> None:
        """Return when every record was handled or buried; raises when neither is possible."""
        wanted: list[tuple[Record, Received]] = []
        unknown: list[Record] = []
        for record in await self._preselected(records):
            try:
                envelope = decode(record.value or b"")
            except ValueError as error:
                if self._subscription.unknown and isinstance(error, UnknownContractError):
                    unknown.append(record)
                else:
                    await self._bury(record, error)
                continue
            if envelope.type in self._subscription.types:
                place = Received(envelope, record.topic, record.partition, record.offset)
                wanted.append((record, place))
        if unknown:
            await self._pass_on(unknown)
        if not wanted:
            return
        try:
            await self._handle_patiently([received for _, received in wanted])
        except self._subscription.transient:
            raise
        except Exception as error:
            if len(wanted) > 1:
                logger.warning("a batch of %d failed, handling each alone: %r", len(wanted), error)
            for record, received in wanted:
                await self._handle_alone(record, received)

    async def _preselected(self, records: Sequence[Record]) -> Sequence[Record]:
        preselect = self._subscription.preselect
        if preselect is None:
            return records
        return await retry(
            lambda: preselect(records),
            on=self._subscription.transient,
            backoff=self._subscription.backoff,
        )

    async def _pass_on(self, records: Sequence[Record]) -> None:
        unknown = self._subscription.unknown
        assert unknown is not None
        await retry(
            lambda: unknown(records),
            on=self._subscription.transient,
            backoff=self._subscription.backoff,
        )

    async def _handle_patiently(self, batch: list[Received]) -> None:
        await retry(
            lambda: self._handle(batch),
            on=self._subscription.transient,
            backoff=self._subscription.backoff,
        )

    async def _handle(self, batch: list[Received]) -> None:
        self._on_try()
        try:
            await self._subscription.handle(batch)
        except DBAPIError as error:
            if refuses_values(error):
                raise RefusalError(f"the database refuses a value: {error.orig}") from error
            raise

    async def _handle_alone(self, record: Record, received: Received) -> None:
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._handle_patiently([received])
            except self._subscription.transient:
                raise
            except Exception as error:
                if isinstance(error, RefusalError) or attempts >= self._subscription.bug_attempts:
                    return await self._bury(record, error, attempts=attempts)
                await asyncio.sleep(self._subscription.backoff.pause(attempts))

    async def _bury(self, record: Record, error: BaseException, *, attempts: int = 1) -> None:
        async def bury() -> None:
            self._on_try()
            await self._dead_letters.bury(record, error, attempts=attempts)

        # Kafka may be away as other parts may: that is no reason to end the process.
        await retry(bury, on=self._subscription.transient, backoff=self._subscription.backoff)
