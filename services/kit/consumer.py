"""Batch consumers on FastStream: decode, handle, commit; bounded retries, then dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from contracts.event import Envelope, UnknownContractError
from contracts.topics import MAX_MESSAGE_BYTES
from services.kit.codec import decode
from services.kit.database import refuses_values
from services.kit.deadletters import DeadLetters, Record, RefusalError
from services.kit.offsets import Batch, Offsets
from services.kit.prompt import PromptBroker, fetching, parse, pass_records, position_of
from services.kit.retry import Backoff, retry
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
MAX_POLL_INTERVAL_MS = 3_600_000
OUTAGES = (OSError, TimeoutError, KafkaError, DBAPIError, PoolTimeoutError)
"""What a part that is away for a while makes of our calls."""
_STOP_SECONDS = 5.0
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


class Consumers:
    """All group consumers of one service, on one FastStream broker."""

    def __init__(
        self,
        bootstrap: str,
        *,
        service: str,
        dead_letters: DeadLetters,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._broker = PromptBroker(
            # FastStream takes a text for one address, where aiokafka takes it apart.
            bootstrap.split(","),
            client_id=service,
            apply_types=False,
            logger=None,
            allow_auto_create_topics=False,
            consumer_only=True,
            # A handler that waits longer, as for room, is cancelled: its batch is not committed.
            graceful_timeout=_STOP_SECONDS,
        )
        self._dead_letters = dead_letters
        self._on_fatal = on_fatal
        self._subscribers: list[tuple[Any, Subscription, Offsets]] = []
        self._work = TaskSet()
        self._commits = TaskSet(on_fatal)
        self._failed = False
        self._stopping = False
        self._activity = 0

    def subscribe(self, subscription: Subscription) -> None:
        """Register a consumer; call before `start`."""
        subscriber = self._broker.subscriber(
            *subscription.topics,
            batch=True,
            group_id=subscription.group,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
            max_records=subscription.max_records,
            **fetching(subscription.pace_seconds),
            parser=parse,
            decoder=pass_records,
            no_reply=True,
        )
        batches = _Batches(subscription, self._dead_letters, self.note_activity)
        offsets = Offsets(lambda: subscriber.consumer)
        slots = asyncio.Semaphore(subscription.depth)

        async def handle(records: tuple[Record, ...], batch: Batch) -> None:
            try:
                await batches.handle(records)
            except Exception as error:
                # Going on would commit past what was not handled: stop until the restart.
                self._failed = True
                self._on_fatal(error)
            else:
                offsets.done(batch)
                self.note_activity()
            finally:
                slots.release()

        async def consume(records: Any) -> None:
            batch = offsets.begin(records)
            await slots.acquire()
            if self._failed or self._stopping:
                slots.release()
                return
            self._work.spawn(handle(records, batch), name="handle a batch")

        subscriber(consume)
        self._subscribers.append((subscriber, subscription, offsets))

    async def start(self) -> None:
        """Join the groups and start to consume."""
        await self._broker.start()
        for subscriber, subscription, offsets in self._subscribers:
            subscriber.consumer.pace_seconds = subscription.pace_seconds
            self._commits.spawn(offsets.run(), name="commit offsets")

    async def stop(self) -> None:
        """Finish the batches at hand within 5 s, commit them, leave the groups."""
        self._stopping = True
        await self._work.finish(seconds=_STOP_SECONDS)
        await self._commits.stop()
        for _, _, offsets in self._subscribers:
            await offsets.flush()
        await self._broker.stop()

    def note_activity(self) -> None:
        """Tell that work was done, for handlers that need long for a batch."""
        self._activity += 1

    def progress(self) -> object:
        """Return another value after each batch that was handled, and each that is tried again."""
        return self._activity

    async def waiting(self) -> int | None:
        """Return what is not handled, as the broker knows now; None before the first join."""
        total = 0
        for subscriber, _, offsets in self._subscribers:
            consumer = subscriber.consumer
            if consumer is None:
                return None
            total += offsets.unhandled
            if assignment := consumer.assignment():
                ends = await consumer.end_offsets(assignment)
                positions = {place: position_of(consumer, place) for place in ends}
                total += sum(
                    max(0, end - position)
                    for place, end in ends.items()
                    if (position := positions[place]) is not None
                )
        return total

    def lag(self) -> int | None:
        """Return what is not handled, as far as is known here; None before the first join."""
        total = 0
        for subscriber, _, offsets in self._subscribers:
            consumer = subscriber.consumer
            if consumer is None:
                return None
            total += offsets.unhandled
            for partition in consumer.assignment():
                high, position = consumer.highwater(partition), position_of(consumer, partition)
                if high is not None and position is not None:
                    total += max(0, high - position)
        return total


class _Batches:
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
