"""Group consumers on FastStream: they join, read batches side by side, and commit what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faststream import AckPolicy

from contracts.topics import MAX_MESSAGE_BYTES
from services.kit.batches import Batches, Subscription
from services.kit.deadletters import DeadLetters, Record
from services.kit.offsets import Batch, Offsets
from services.kit.prompt import PromptBroker, fetching, parse, pass_records, position_of
from services.kit.tasks import TaskSet

_MAX_POLL_INTERVAL_MS = 3_600_000
_STOP_SECONDS = 5.0


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
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
            max_partition_fetch_bytes=2 * MAX_MESSAGE_BYTES,
            max_records=subscription.max_records,
            **fetching(subscription.pace_seconds),
            parser=parse,
            decoder=pass_records,
            no_reply=True,
        )
        batches = Batches(subscription, self._dead_letters, self.note_activity)
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
