"""Delivers what is due: claims in batches, sends side by side, records outcomes in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from opentelemetry import metrics

from services.kit.clock import Clock
from services.kit.outages import OUTAGES
from services.kit.retry import Backoff
from services.kit.tasks import TaskSet
from services.webhooks.domain.endpoints import Attempt, Claim, Outcome, RetryRule
from services.webhooks.domain.events import payload
from services.webhooks.errors import SecretLostError, UndeliveredError
from services.webhooks.secrets import SecretKeeper
from services.webhooks.service import Sender

logger = logging.getLogger(__name__)
_OUTAGE = Backoff(first_seconds=0.2, longest_seconds=5.0)
_MAX_FAILURES = 10
_GATHER_SECONDS = 0.01
_MAX_ERROR = 300


class Queue(Protocol):
    """Deliveries that are due, shared by all instances of the service."""

    async def claim(self, most: int, *, now: datetime, lease: timedelta) -> list[Claim]:
        """Lease up to `most` deliveries, in turn over their endpoints, within their bounds."""
        ...

    async def record(self, outcomes: Sequence[Outcome], *, rule: RetryRule) -> None:
        """Write down how attempts ended; one whose lease went to another counts if it worked."""
        ...

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> None:
        """Give up leases: the deliveries are due at once."""
        ...

    async def forget(self, *, now: datetime, keep: timedelta, give_up: timedelta) -> int:
        """Drop some old deliveries and give up those nobody could try; return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Bounds of the work: how much at once, how long it is leased, how often to look."""

    concurrency: int
    lease: timedelta
    poll_seconds: float
    stop_seconds: float
    keep: timedelta
    sweep_seconds: float


class Dispatcher:
    """A part that sends until it is stopped. `wake` tells it that something may be due.

    One loop talks to the database; the sends beside it only add to the outcomes. So the more there
    is to do, the more each statement carries.
    """

    def __init__(
        self,
        queue: Queue,
        sender: Sender,
        secrets: SecretKeeper,
        *,
        rule: RetryRule,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._secrets = secrets
        self._rule = rule
        self._pace = pace
        self._clock = clock
        self._loop = TaskSet()
        self._sweeper = TaskSet()
        self._sends = TaskSet()
        self._open: dict[str, Claim] = {}
        self._outcomes: list[Outcome] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._moved_at = clock.monotonic()
        meter = metrics.get_meter("antiphon")
        self._attempts = meter.create_counter(
            "antiphon.webhooks.attempts", description="Attempts to deliver a webhook"
        )
        self._latency = meter.create_histogram(
            "antiphon.webhooks.latency", unit="ms", description="Time of one attempt"
        )

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def alive(self) -> bool:
        """Whether the loop runs; the database may be away for a while."""
        idle = self._clock.monotonic() - self._moved_at
        return not self._loop.failed.is_set() and idle < self._pace.lease.total_seconds() + 60

    async def start(self) -> None:
        """Begin to send."""
        self._loop.spawn(self._run(), name="dispatch webhooks")
        self._sweeper.spawn(self._sweep(), name="forget old deliveries")

    async def stop(self) -> None:
        """Let open attempts end within the bound, record them, give the other leases back."""
        self._stopping = True
        self.wake()
        await self._sweeper.stop()
        # Not cancelled: a claim that was cut off would hold its leases.
        await self._loop.finish(seconds=self._pace.stop_seconds)
        await self._sends.finish(seconds=self._pace.stop_seconds)
        try:
            await self._flush()
            await self._queue.release(list(self._open.values()), now=self._clock.now())
        except OUTAGES as error:
            # Their leases will end: they are sent again then.
            logger.warning("outcomes of webhooks could not be recorded: %r", error)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._wake.clear()
            self._moved_at = self._clock.monotonic()
            pause = self._pace.poll_seconds
            try:
                await self._flush()
                if await self._claim():
                    # There may be more; a moment later there are outcomes to record with it.
                    await asyncio.sleep(_GATHER_SECONDS)
                    continue
                failures = 0
            except OUTAGES as error:
                failures = min(failures + 1, _MAX_FAILURES)
                pause = _OUTAGE.pause(failures)
                logger.warning("the database is away, webhooks wait %.1f s: %r", pause, error)
                await asyncio.sleep(pause)
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                # What ends at the same time is recorded at once.
                await asyncio.sleep(_GATHER_SECONDS)
            except TimeoutError:
                continue

    async def _claim(self) -> bool:
        """Take up what is due and fits; whether it was anything."""
        room = self._pace.concurrency - len(self._open)
        if room <= 0:
            return False
        claims = await self._queue.claim(room, now=self._clock.now(), lease=self._pace.lease)
        for claim in claims:
            self._open[claim.delivery_id] = claim
            sending = self._sends.spawn(self._deliver(claim), name=f"send {claim.delivery_id}")
            sending.add_done_callback(partial(self._sent, claim))
        return bool(claims)

    async def _flush(self) -> None:
        if not self._outcomes:
            return
        batch = list(self._outcomes)
        await self._queue.record(batch, rule=self._rule)
        del self._outcomes[: len(batch)]
        for outcome in batch:
            self._open.pop(outcome.claim.delivery_id, None)

    def _sent(self, claim: Claim, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # A bug, which is in the log. Its place must not be lost; its lease ends by itself.
            self._open.pop(claim.delivery_id, None)
            self._wake.set()

    async def _deliver(self, claim: Claim) -> None:
        began = self._clock.monotonic()
        at = self._clock.now()
        status: int | None = None
        problem: str | None = None
        asked: timedelta | None = None
        body = payload(
            event_id=claim.event_id,
            event_type=claim.event_type,
            response_id=claim.response_id,
            occurred_at=claim.occurred_at,
        )
        try:
            signed = self._secrets.signed(claim.endpoint, body, message_id=claim.delivery_id, at=at)
            answer = await self._sender.post(claim.endpoint.url, body, signed)
            status, asked = answer.status_code, answer.retry_after
        except (UndeliveredError, SecretLostError) as error:
            # What TLS complains of may quote the other side.
            problem = "".join(char for char in str(error) if char.isprintable())[:_MAX_ERROR]
        latency_ms = round((self._clock.monotonic() - began) * 1000)
        attempt = Attempt(at=at, latency_ms=latency_ms, status_code=status, error=problem)
        self._settle(claim, attempt, asked)

    def _settle(self, claim: Claim, attempt: Attempt, asked: timedelta | None) -> None:
        retry_at = None
        if not attempt.succeeded:
            retry_at = self._rule.retry_at(claim, attempt, asked=asked)
            logger.info(
                "webhook %s to endpoint %s failed in attempt %d: %s, %s",
                claim.delivery_id,
                claim.endpoint.id,
                claim.attempt,
                attempt.error or f"status {attempt.status_code}",
                f"again at {retry_at:%Y-%m-%dT%H:%M:%SZ}" if retry_at else "given up",
            )
        result = "delivered" if attempt.succeeded else "retry" if retry_at else "given_up"
        self._attempts.add(1, {"result": result})
        self._latency.record(attempt.latency_ms, {"result": result})
        self._outcomes.append(Outcome(claim=claim, attempt=attempt, retry_at=retry_at))
        self._wake.set()

    async def _sweep(self) -> None:
        while True:
            try:
                while await self._queue.forget(
                    now=self._clock.now(), keep=self._pace.keep, give_up=self._rule.give_up
                ):
                    self._moved_at = self._clock.monotonic()
            except OUTAGES as error:
                logger.warning("old deliveries could not be forgotten: %r", error)
            await asyncio.sleep(self._pace.sweep_seconds)
