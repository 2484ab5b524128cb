"""Runs responses: one job to its one end, stated once, whatever happened to earlier attempts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

import orjson

from contracts.packs import Flag
from contracts.responses import ResponseFinishedV1
from services.kit.clock import Clock
from services.worker.checkpoints.state import State
from services.worker.domain import Job, terminal_status
from services.worker.errors import UpstreamError
from services.worker.outbox import OutStream
from services.worker.runs.attempts import Attempts
from services.worker.runs.outcome import ESTIMATED, Outcome, Progress, cancelled, last_frame
from services.worker.runs.ownership import Leases, make_sure
from services.worker.runs.recovery import Delivered
from services.worker.runs.takeover import conclude, given_up
from services.worker.tracing import Tracing


class Facts(Protocol):
    """Where outcomes go."""

    async def started(self, job: Job) -> None:
        """State that a background response is being worked on."""
        ...

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        """State the outcome; `response` is the Response object as JSON. Returns once durable."""
        ...


class Checkpoints(Protocol):
    """Where later attempts find how far earlier ones came."""

    async def save(self, response_id: str, attempt: int, state: State) -> None:
        """Return when the state is durable; raises `LeaseLostError`."""
        ...

    async def take_over(self, response_id: str, attempt: int) -> State | None:
        """Return what earlier attempts left, which can't write any more."""
        ...


class _NoCheckpoints:
    async def save(self, _: str, __: int, ___: State) -> None: ...

    async def take_over(self, _: str, __: int) -> State | None:
        return None


@dataclass
class ResponseRunner:
    """Takes claimed jobs to their end, many at once.

    One whose lease another worker may have asks nobody, says no last word and states no fact before
    it has made sure: `run` and `give_up` raise `LeaseLostError` then.
    """

    attempts: Attempts
    facts: Facts
    clock: Clock
    read_back: Callable[[Job], Awaitable[Delivered]]
    tracing: Tracing = field(default_factory=partial(Tracing, enabled=False))
    checkpoints: Checkpoints = field(default_factory=_NoCheckpoints)
    _stops: dict[str, asyncio.Event] = field(default_factory=dict)

    async def run(self, job: Job, out: OutStream) -> None:
        """Take a claimed job to its end: the last bytes, then the fact. Cancelling loses nothing.

        The order matters: once the last bytes are on the log a later attempt finds them there and
        only states the fact again, so a crash in between neither repeats the model nor the answer.
        """
        with self.tracing.response(job) as span:
            outcome = await self._run(job, out)
            span.ended(outcome.response, outcome.provider)

    async def _run(self, job: Job, out: OutStream) -> Outcome:
        started_at = self.clock.now()
        skip_through = -1
        outcome: Outcome | None = None
        progress = Progress()
        if job.attempt > 1:
            outcome = await self._take_over(job, out, progress)
            skip_through = progress.earlier.last_sequence_number
        if outcome is None:
            if job.command.background:
                outcome = await self._in_background(job, out, skip_through, progress)
            else:
                outcome = await self.attempts.run(job, out, skip_through, progress)
        await self._end(job, out, outcome, started_at)
        return outcome

    async def _take_over(self, job: Job, out: OutStream, progress: Progress) -> Outcome | None:
        """Shut out earlier attempts and look how far they came; the outcome if there is one.

        In this order what is found is all there will ever be: first they can write no checkpoint,
        then nothing that clients see.
        """
        state = await self.checkpoints.take_over(job.response_id, job.attempt)
        await out.fence()
        earlier = await self.read_back(job)
        provider = self.attempts.provider_at(job, earlier.via)
        outcome = conclude(job, earlier, state, provider, progress, self.clock.now())
        if outcome is not None:
            await self.attempts.abandon(progress)
        return outcome

    async def give_up(self, job: Job, out: OutStream) -> None:
        """End a job that can't be answered as failed, after what was told already.

        For bugs, and for jobs none of whose attempts came to an end.
        """
        started_at = self.clock.now()
        progress = Progress()
        outcome = await self._take_over(job, out, progress)
        if outcome is None:
            await self.attempts.abandon(progress)
            provider = progress.provider or self.attempts.first_provider(job)
            outcome = given_up(job, provider, progress, self.clock.now())
        await self._end(job, out, outcome, started_at)

    async def _end(self, job: Job, out: OutStream, outcome: Outcome, started_at: datetime) -> None:
        body = orjson.dumps(outcome.response)
        if not outcome.on_log:
            await self.make_sure(job)
            _write_last(job, out, outcome, body)
            await out.sent()
        await self.make_sure(job)
        fact = self._fact(job, outcome, started_at)
        seconds = (fact.finished_at - started_at).total_seconds()
        self.attempts.metrics.ended(fact.provider, job.command.model, fact.status, seconds)
        await self.facts.finished(job, fact, body)

    async def make_sure(self, job: Job) -> None:
        """Return when the response is this attempt's for certain; raises `LeaseLostError`."""
        await make_sure(self.attempts.leases, job)

    def keep_with(self, leases: Leases, checkpoints: Checkpoints) -> None:
        """Say who knows of the leases, and where checkpoints are kept; call before any `run`."""
        self.attempts.leases = leases
        self.checkpoints = checkpoints

        async def save(job: Job, state: State) -> None:
            await checkpoints.save(job.response_id, job.attempt, state)

        self.attempts.save = save

    def stop(self, response_id: str) -> None:
        """End a background response as cancelled if it runs here; its upstream call is closed."""
        stop = self._stops.get(response_id)
        if stop is not None:
            stop.set()

    async def _in_background(
        self, job: Job, out: OutStream, skip_through: int, progress: Progress
    ) -> Outcome:
        provider = self.attempts.first_provider(job)
        if job.cancelled:
            await self.attempts.abandon(progress)
            return cancelled(job, provider, self.clock.now(), progress)
        stop = self._stops[job.response_id] = asyncio.Event()
        stopped = asyncio.ensure_future(stop.wait())
        answer = asyncio.ensure_future(self._answer_in_background(job, out, skip_through, progress))
        try:
            await asyncio.wait({stopped, answer}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
            await self.attempts.abandon(progress)
            return cancelled(job, provider, self.clock.now(), progress)
        finally:
            # A later attempt may have taken the place of this one.
            if self._stops.get(job.response_id) is stop:
                del self._stops[job.response_id]
            stopped.cancel()
            answer.cancel()
            await asyncio.gather(stopped, answer, return_exceptions=True)

    async def _answer_in_background(
        self, job: Job, out: OutStream, skip_through: int, progress: Progress
    ) -> Outcome:
        await self.facts.started(job)
        return await self.attempts.run(job, out, skip_through, progress)

    def _fact(self, job: Job, outcome: Outcome, started_at: datetime) -> ResponseFinishedV1:
        command, response = job.command, outcome.response
        tier = response.get("service_tier")
        return ResponseFinishedV1(
            response_id=command.response_id,
            attempt=job.attempt,
            status=terminal_status(response) or "failed",
            principal=command.principal,
            model=str(response.get("model") or command.model),
            provider=outcome.provider,
            accepted_at=command.accepted_at,
            started_at=started_at,
            finished_at=self.clock.now(),
            events_partition=command.events_partition,
            # Readers that see this fact before the command know a stream by its numbers.
            last_sequence_number=outcome.last_sequence_number if command.stream else None,
            store=command.store,
            background=command.background,
            service_tier=tier if isinstance(tier, str) else None,
            estimated_usage=outcome.estimated_usage,
        )


def error_body(error: UpstreamError) -> dict[str, object]:
    """Return the error for a JSON client, with what its reader makes a header of."""
    if error.retry_after_seconds is None:
        return error.body()
    return {**error.body(), "retry_after_seconds": math.ceil(error.retry_after_seconds)}


def _write_last(job: Job, out: OutStream, outcome: Outcome, body: bytes) -> None:
    if outcome.estimated_usage:
        out.write(ESTIMATED)
    if job.command.stream:
        out.write(last_frame(outcome), flags=Flag.LAST)
    elif outcome.error is not None and not job.command.background:
        payload = orjson.dumps(error_body(outcome.error))
        out.write(payload, flags=Flag.LAST | Flag.JSON, status=outcome.error.status)
    else:
        out.write(body, flags=Flag.LAST | Flag.JSON)
