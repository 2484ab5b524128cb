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
from services.worker.domain import Job, fail, terminal_status
from services.worker.errors import UpstreamError
from services.worker.outbox import OutStream
from services.worker.runs.attempts import Attempts
from services.worker.runs.outcome import (
    INTERRUPTED,
    Outcome,
    Progress,
    cancelled,
    estimate_usage,
    failed_response,
    last_frame,
    refused,
)
from services.worker.runs.recovery import Delivered
from services.worker.runs.writer import EventWriter
from services.worker.tracing import Tracing


class Facts(Protocol):
    """Where outcomes go."""

    async def started(self, job: Job) -> None:
        """State that a background response is being worked on."""
        ...

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        """State the outcome; `response` is the Response object as JSON. Returns once durable."""
        ...


@dataclass
class ResponseRunner:
    """Takes claimed jobs to their end, many at once."""

    attempts: Attempts
    facts: Facts
    clock: Clock
    read_back: Callable[[Job], Awaitable[Delivered]]
    tracing: Tracing = field(default_factory=partial(Tracing, enabled=False))
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
        if job.attempt > 1:
            earlier = await self.read_back(job)
            outcome = self._conclude_earlier(job, earlier)
            skip_through = earlier.built.last_sequence_number
        if outcome is None:
            if job.command.background:
                outcome = await self._in_background(job, out, skip_through)
            else:
                outcome = await self.attempts.run(job, out, skip_through)
        await self._end(job, out, outcome, started_at)
        return outcome

    async def give_up(self, job: Job, out: OutStream) -> None:
        """End a job that can't be answered as failed, after what was told already.

        For bugs, and for jobs none of whose attempts came to an end.
        """
        started_at = self.clock.now()
        await out.sent()
        earlier = await self.read_back(job)
        outcome = self._conclude_earlier(job, earlier)
        if outcome is None:
            writer = EventWriter(None, skip_through=earlier.built.last_sequence_number)
            provider = self.attempts.first_provider(job)
            outcome = refused(job, _given_up(), provider, writer, self.clock.now())
        await self._end(job, out, outcome, started_at)

    async def _end(self, job: Job, out: OutStream, outcome: Outcome, started_at: datetime) -> None:
        body = orjson.dumps(outcome.response)
        if not outcome.on_log:
            _write_last(job, out, outcome, body)
            await out.sent()
        fact = self._fact(job, outcome, started_at)
        seconds = (fact.finished_at - started_at).total_seconds()
        self.attempts.metrics.ended(fact.provider, job.command.model, fact.status, seconds)
        await self.facts.finished(job, fact, body)

    def stop(self, response_id: str) -> None:
        """End a background response as cancelled if it runs here; its upstream call is closed."""
        stop = self._stops.get(response_id)
        if stop is not None:
            stop.set()

    async def _in_background(self, job: Job, out: OutStream, skip_through: int) -> Outcome:
        provider = self.attempts.first_provider(job)
        if job.cancelled:
            return cancelled(job, provider, self.clock.now())
        stop = self._stops[job.response_id] = asyncio.Event()
        stopped = asyncio.ensure_future(stop.wait())
        progress = Progress()
        answer = asyncio.ensure_future(self._answer_in_background(job, out, skip_through, progress))
        try:
            await asyncio.wait({stopped, answer}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
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
            last_sequence_number=outcome.last_sequence_number,
            store=command.store,
            background=command.background,
            service_tier=tier if isinstance(tier, str) else None,
            estimated_usage=outcome.estimated_usage,
        )

    def _conclude_earlier(self, job: Job, earlier: Delivered) -> Outcome | None:
        """Return the outcome an earlier attempt already reached, None when it must be run again."""
        last = earlier.last_sequence_number
        provider = self.attempts.provider_at(job, earlier.via)
        if earlier.finished is not None:
            return Outcome(earlier.finished, provider, last_sequence_number=last, on_log=True)
        now = self.clock.now()
        if earlier.ended:
            error = INTERRUPTED
            if earlier.error is not None:
                error = {"code": "server_error", "message": earlier.error}
            response = failed_response(job, error, [], now)
            return Outcome(response, provider, last_sequence_number=last, on_log=True)
        if not earlier.built.delivered:
            return None
        items = earlier.built.items
        skeleton = earlier.skeleton or job.skeleton(created_at=int(now.timestamp()))
        response = fail(skeleton, error=INTERRUPTED, output=items, finished_at=now)
        response["usage"] = estimate_usage(job, items)
        return Outcome(
            response, provider, last_sequence_number=(last or 0) + 1, estimated_usage=True
        )


def _given_up() -> UpstreamError:
    return UpstreamError(
        "The server had an error while processing your request. Sorry about that!",
        status=500,
        code="server_error",
        retryable=False,
    )


def error_body(error: UpstreamError) -> dict[str, object]:
    """Return the error for a JSON client, with what its reader makes a header of."""
    if error.retry_after_seconds is None:
        return error.body()
    return {**error.body(), "retry_after_seconds": math.ceil(error.retry_after_seconds)}


def _write_last(job: Job, out: OutStream, outcome: Outcome, body: bytes) -> None:
    if job.command.stream:
        out.write(last_frame(outcome), flags=Flag.LAST)
    elif outcome.error is not None and not job.command.background:
        payload = orjson.dumps(error_body(outcome.error))
        out.write(payload, flags=Flag.LAST | Flag.JSON, status=outcome.error.status)
    else:
        out.write(body, flags=Flag.LAST | Flag.JSON)
