"""Takes operations to their end, and leaves responses to the runner of responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Protocol

import orjson

from contracts.operations import CompactConversationV1, CountInputTokensV1
from contracts.packs import Flag
from contracts.responses import ResponseFinishedV1
from services.kit.clock import Clock
from services.worker.domain import Job
from services.worker.errors import RequestRefusedError, UpstreamError
from services.worker.operations.answers import Answers, Result
from services.worker.outbox import OutStream
from services.worker.providers.policy import pause_before_retry
from services.worker.runs.recovery import Delivered
from services.worker.runs.upstream import Upstream
from services.worker.service import Facts, error_body

TYPES = frozenset({CountInputTokensV1.TYPE, CompactConversationV1.TYPE})


class Runner(Protocol):
    """Takes jobs to their end."""

    async def run(self, job: Job, out: OutStream) -> None:
        """Answer the job."""
        ...

    async def give_up(self, job: Job, out: OutStream) -> None:
        """End a job that can't be answered as failed."""
        ...

    async def make_sure(self, job: Job) -> None:
        """Return when the job is this attempt's for certain; raises `LeaseLostError`."""
        ...


@dataclass
class OperationRunner:
    """Runs operations in front of the runner of responses, whose jobs it only passes on."""

    responses: Runner
    answers: Answers
    upstreams: Callable[[str], Sequence[Upstream]]
    facts: Facts
    clock: Clock
    read_back: Callable[[Job], Awaitable[Delivered]]

    def run(self, job: Job, out: OutStream) -> Coroutine[Any, Any, None]:
        """Take a claimed job to its end: the answer, then the fact of what it cost, if anything.

        Cancelling loses nothing. An answer that an earlier attempt put on the log is not asked for
        again; an attempt that died before that may have been paid for.
        """
        if job.command.TYPE not in TYPES:
            return self.responses.run(job, out)
        return self._run(job, out)

    def give_up(self, job: Job, out: OutStream) -> Coroutine[Any, Any, None]:
        """End a job that can't be answered: an operation with an error, which nothing records."""
        if job.command.TYPE not in TYPES:
            return self.responses.give_up(job, out)
        return self._give_up(job, out)

    async def _run(self, job: Job, out: OutStream) -> None:
        started_at = self.clock.now()
        provider = "none"
        if job.attempt > 1:
            await out.fence()
            earlier = await self.read_back(job)
            if earlier.ended:
                await self._record_earlier(job, earlier, started_at)
                return
        try:
            provider, result = await self._ask(job)
        except UpstreamError as error:
            await _answer(out, error_body(error), status=error.status)
            return
        await _answer(out, result.body)
        await self._record(job, result, provider, started_at)

    async def _give_up(self, job: Job, out: OutStream) -> None:
        await out.fence()
        earlier = await self.read_back(job)
        if earlier.ended:
            await self._record_earlier(job, earlier, self.clock.now())
            return
        error = UpstreamError(
            "The server had an error while processing your request. Sorry about that!",
            status=500,
            code="server_error",
        )
        await _answer(out, error.body(), status=error.status)

    async def _ask(self, job: Job) -> tuple[str, Result]:
        """Try the model's providers in order, each as often as it may; raises `UpstreamError`."""
        failure: UpstreamError = RequestRefusedError(
            f"The model {job.command.model!r} does not exist.",
            param="model",
            code="model_not_found",
        )
        upstreams = self.upstreams(job.command.model)
        for number, upstream in enumerate(upstreams, 1):
            for failures in count(1):
                await self.responses.make_sure(job)
                try:
                    return upstream.config.name, await self.answers.ask(job, upstream)
                except RequestRefusedError:
                    raise
                except UpstreamError as error:
                    failure = error
                pause = pause_before_retry(
                    failure,
                    failures,
                    retries=upstream.config.retries,
                    last=number == len(upstreams),
                    patient_for=None,
                )
                if pause is None:
                    break
                await asyncio.sleep(pause)
        raise failure

    async def _record_earlier(self, job: Job, earlier: Delivered, started_at: datetime) -> None:
        """State again what an earlier attempt may not have come to state. Idempotent."""
        body = earlier.finished
        if body is None:
            return
        upstreams = self.upstreams(job.command.model)
        provider = upstreams[0].config.name if upstreams else "none"
        usage = body.get("usage")
        result = Result(body, usage if isinstance(usage, dict) else None)
        await self._record(job, result, provider, started_at)

    async def _record(self, job: Job, result: Result, provider: str, started_at: datetime) -> None:
        if result.usage is None:
            return
        command = job.command
        fact = ResponseFinishedV1(
            response_id=command.response_id,
            attempt=job.attempt,
            status="completed",
            principal=command.principal,
            model=command.model,
            provider=provider,
            accepted_at=command.accepted_at,
            started_at=started_at,
            finished_at=self.clock.now(),
            events_partition=command.events_partition,
            # What it says is the client's to keep: readers get the figures.
            store=False,
            service_tier=_tier(result.body.get("service_tier")),
            estimated_usage=result.estimated_usage,
        )
        await self.responses.make_sure(job)
        told = {**result.body, "id": command.response_id, "usage": result.usage}
        await self.facts.finished(job, fact, orjson.dumps(told))


async def _answer(out: OutStream, body: dict[str, Any], *, status: int = 200) -> None:
    out.write(orjson.dumps(body), flags=Flag.LAST | Flag.JSON, status=status)
    await out.sent()


def _tier(given: object) -> str | None:
    return given if isinstance(given, str) else None
