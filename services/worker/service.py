"""Runs responses: chooses the provider, pipes or composes, retries, and states the outcome once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import orjson

from contracts.packs import Flag
from contracts.providers import ProviderConfig
from contracts.responses import ResponseFinishedV1
from contracts.tools import ToolResultV1
from services.kit.clock import Clock
from services.kit.retry import Backoff
from services.worker import sse
from services.worker.composer import Composer, EventWriter
from services.worker.domain import Event, Item, Job, Response, fail, terminal_status
from services.worker.errors import RequestRefusedError, UpstreamError
from services.worker.outbox import OutStream
from services.worker.passthrough import Passthrough
from services.worker.providers.client import UpstreamClient
from services.worker.providers.turns import Turns
from services.worker.recovery import Delivered
from services.worker.tools.mcp import McpCall
from services.worker.tools.plan import ToolPlan

logger = logging.getLogger(__name__)
_RETRY = Backoff(attempts=10, first_seconds=0.2, longest_seconds=5.0)
_LONGEST_RETRY_AFTER_SECONDS = 20.0
_INTERRUPTED = {
    "code": "server_error",
    "message": "The response was interrupted after part of it had been delivered.",
}


class Upstream(Protocol):
    """A provider as a run uses it."""

    @property
    def config(self) -> ProviderConfig:
        """Its settings."""
        ...

    @property
    def client(self) -> UpstreamClient:
        """Its HTTP client, for what goes through as bytes."""
        ...

    @property
    def turns(self) -> Turns:
        """Its model turns, for what is composed here."""
        ...


class Tools(Protocol):
    """The tools that run outside of the provider."""

    def plan(self, job: Job, provider: ProviderConfig) -> ToolPlan:
        """Sort the request's tools; raises `RequestRefusedError`."""
        ...

    async def call(self, job: Job, call: McpCall) -> ToolResultV1:
        """Run one call; every failure is a result."""
        ...


class Facts(Protocol):
    """Where outcomes go."""

    async def started(self, job: Job) -> None:
        """State that a background response is being worked on."""
        ...

    async def finished(self, job: Job, fact: ResponseFinishedV1, response: bytes) -> None:
        """State the outcome; `response` is the Response object as JSON. Returns once durable."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_turns: int
    max_event_bytes: int


@dataclass(slots=True)
class Outcome:
    """How a response ended: its object and, for a stream, the bytes the client gets last.

    `delivered` says that the client has seen output, so that nothing may be tried again;
    `written_through` is the last sequence number it has seen. `on_log` says that even the last
    bytes were sent by an earlier attempt.
    """

    response: Response
    provider: str
    frame: bytes | None = None
    error: UpstreamError | None = None
    last_sequence_number: int | None = None
    written_through: int = -1
    estimated_usage: bool = False
    delivered: bool = False
    on_log: bool = False


@dataclass
class ResponseRunner:
    """Runs one job at a time per call; holds no state between jobs."""

    upstreams: Callable[[str], Sequence[Upstream]]
    tools: Tools
    facts: Facts
    clock: Clock
    new_id: Callable[[str], str]
    read_back: Callable[[Job], Awaitable[Delivered]]
    limits: Limits

    async def run(self, job: Job, out: OutStream) -> None:
        """Take a claimed job to its end: the last bytes, then the fact. Cancelling loses nothing.

        The order matters: once the last bytes are on the log a later attempt finds them there and
        only states the fact again, so a crash in between neither repeats the model nor the answer.
        """
        started_at = self.clock.now()
        skip_through = -1
        outcome: Outcome | None = None
        if job.attempt > 1:
            earlier = await self.read_back(job)
            outcome = self._conclude_earlier(job, earlier)
            skip_through = earlier.built.last_sequence_number
        if outcome is None:
            if job.command.background:
                await self.facts.started(job)
            outcome = await self._attempt_all(job, out, skip_through)
        body = orjson.dumps(outcome.response)
        if not outcome.on_log:
            self._write_last(job, out, outcome, body)
            await out.sent()
        await self.facts.finished(job, self._fact(job, outcome, started_at), body)

    @staticmethod
    def _write_last(job: Job, out: OutStream, outcome: Outcome, body: bytes) -> None:
        if job.command.stream:
            frame = outcome.frame
            if frame is None:
                frame = sse.encode(
                    {
                        "type": f"response.{outcome.response['status']}",
                        "sequence_number": outcome.last_sequence_number,
                        "response": outcome.response,
                    }
                )
            out.write(frame, flags=Flag.LAST)
        elif outcome.error is not None and not job.command.background:
            payload = orjson.dumps(outcome.error.body())
            out.write(payload, flags=Flag.LAST | Flag.JSON, status=outcome.error.status)
        else:
            out.write(body, flags=Flag.LAST | Flag.JSON)

    def _fact(self, job: Job, outcome: Outcome, started_at: datetime) -> ResponseFinishedV1:
        command, response = job.command, outcome.response
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
            service_tier=response.get("service_tier"),
            estimated_usage=outcome.estimated_usage,
        )

    def _conclude_earlier(self, job: Job, earlier: Delivered) -> Outcome | None:
        """Return the outcome an earlier attempt already reached, None when it must be run again."""
        last = earlier.last_sequence_number
        upstreams = self.upstreams(job.command.model)
        provider = upstreams[0].config.name if upstreams else "none"
        if earlier.finished is not None:
            return Outcome(earlier.finished, provider, last_sequence_number=last, on_log=True)
        if earlier.ended:
            response = self._failed(job, _INTERRUPTED, [])
            return Outcome(response, provider, last_sequence_number=last, on_log=True)
        if not earlier.built.delivered:
            return None
        skeleton = earlier.skeleton or job.skeleton(created_at=self._now())
        response = fail(
            skeleton,
            error=_INTERRUPTED,
            output=earlier.built.items,
            finished_at=self.clock.now(),
        )
        response["usage"] = estimate_usage(job, earlier.built.items)
        return Outcome(
            response, provider, last_sequence_number=(last or 0) + 1, estimated_usage=True
        )

    async def _attempt_all(self, job: Job, out: OutStream, skip_through: int) -> Outcome:
        """Try the model's providers in order, each as often as it may, until output went out."""
        outcome: Outcome | None = None
        for upstream in self.upstreams(job.command.model):
            for failures in range(1, upstream.config.retries + 2):
                outcome = await self._attempt(job, out, upstream, skip_through)
                error = outcome.error
                if error is None or outcome.delivered or isinstance(error, RequestRefusedError):
                    return outcome
                skip_through = max(skip_through, outcome.written_through)
                if not error.retryable:
                    break
                if failures <= upstream.config.retries:
                    await asyncio.sleep(_pause(error, failures))
        if outcome is None:
            error = RequestRefusedError(
                f"The model {job.command.model!r} does not exist.",
                param="model",
                code="model_not_found",
            )
            return self._refused(job, error, "none", EventWriter(None, skip_through=skip_through))
        return outcome

    async def _attempt(
        self, job: Job, out: OutStream, upstream: Upstream, skip_through: int
    ) -> Outcome:
        config = upstream.config
        silent = EventWriter(None, skip_through=skip_through)
        try:
            plan = self.tools.plan(job, config)
        except RequestRefusedError as error:
            return self._refused(job, error, config.name, silent)
        if config.dialect == "responses" and not plan.runs_here:
            if job.command.stream:
                return await self._pipe(job, out, upstream, skip_through)
            return await self._forward(job, upstream)
        return await self._compose(job, out, upstream, plan, skip_through)

    async def _forward(self, job: Job, upstream: Upstream) -> Outcome:
        """Serve a JSON client from a Responses-native provider."""
        config = upstream.config
        body = orjson.dumps(
            job.upstream_request(model=config.upstream_name(job.command.model), stream=False)
        )
        try:
            response = await upstream.client.read_json("/responses", body)
            if terminal_status(response) is None:
                raise UpstreamError("the provider's answer is no finished Response")
        except UpstreamError as error:
            return self._refused(job, error, config.name, EventWriter(None))
        return Outcome(job.adopt(response), config.name)

    async def _pipe(
        self, job: Job, out: OutStream, upstream: Upstream, skip_through: int
    ) -> Outcome:
        """Serve a stream from a Responses-native provider, byte for byte."""
        config = upstream.config
        body = orjson.dumps(
            job.upstream_request(model=config.upstream_name(job.command.model), stream=True)
        )
        pipe = Passthrough(
            job, out, max_event_bytes=self.limits.max_event_bytes, skip_through=skip_through
        )
        try:
            await pipe.run(upstream.client, body)
        except UpstreamError as error:
            return self._broken_pipe(job, pipe, error, config.name)
        terminal = pipe.terminal
        assert terminal is not None
        return Outcome(
            terminal["response"],
            config.name,
            frame=sse.encode(terminal),
            last_sequence_number=terminal["sequence_number"],
        )

    def _broken_pipe(
        self, job: Job, pipe: Passthrough, error: UpstreamError, provider: str
    ) -> Outcome:
        if not pipe.wrote:
            silent = EventWriter(None, skip_through=pipe.skip_through)
            return self._refused(job, error, provider, silent)
        built = pipe.partial()
        response = fail(
            pipe.skeleton or job.skeleton(created_at=self._now()),
            error=error.response_error(),
            output=built.items,
            finished_at=self.clock.now(),
        )
        response["usage"] = estimate_usage(job, built.items)
        return Outcome(
            response,
            provider,
            error=error,
            last_sequence_number=built.last_sequence_number + 1,
            estimated_usage=True,
            delivered=True,
        )

    async def _compose(
        self,
        job: Job,
        out: OutStream,
        upstream: Upstream,
        plan: ToolPlan,
        skip_through: int,
    ) -> Outcome:
        """Serve from turns of either dialect, with the tools that run here in between."""
        config = upstream.config
        write = out.write if job.command.stream else None
        writer = EventWriter(write, skip_through=skip_through)
        response = job.skeleton(created_at=self._now())
        composer = Composer(
            job=job,
            provider=config,
            turns=upstream.turns,
            plan=plan,
            writer=writer,
            call_tool=partial(self.tools.call, job),
            new_id=self.new_id,
            max_turns=self.limits.max_turns,
        )
        for kind in ("response.created", "response.in_progress"):
            writer.emit({"type": kind, "response": response})
        try:
            response = await composer.run(response)
        except UpstreamError as error:
            return self._refused(job, error, config.name, writer)
        response["completed_at"] = self._now() if response["status"] == "completed" else None
        event: Event = {"type": f"response.{response['status']}", "response": response}
        frame = writer.close(event)
        return Outcome(
            response,
            config.name,
            frame=frame,
            last_sequence_number=writer.last_sequence_number,
        )

    def _refused(
        self, job: Job, error: UpstreamError, provider: str, writer: EventWriter
    ) -> Outcome:
        """Return the outcome of a failure, with what was said before it."""
        items = writer.built.items
        written_through = writer.last_sequence_number
        response = self._failed(job, error.response_error(), items)
        if items:
            response["usage"] = estimate_usage(job, items)
        opening = b""
        if written_through < 0:
            begun = {**response, "status": "in_progress", "error": None}
            opening = writer.close({"type": "response.created", "response": begun})
        closing = writer.close({"type": "response.failed", "response": response})
        return Outcome(
            response,
            provider,
            frame=opening + closing,
            error=error,
            last_sequence_number=writer.last_sequence_number,
            written_through=written_through,
            estimated_usage=bool(items),
            delivered=writer.built.delivered,
        )

    def _failed(self, job: Job, error: dict[str, str], output: list[Item]) -> Response:
        return fail(
            job.skeleton(created_at=self._now()),
            error=error,
            output=output,
            finished_at=self.clock.now(),
        )

    def _now(self) -> int:
        return int(self.clock.now().timestamp())


def estimate_usage(job: Job, output: list[Item]) -> dict[str, Any]:
    """Estimate the usage of a response that broke: four bytes of text count as a token."""
    written = len(orjson.dumps(output)) if output else 0
    read = len(orjson.dumps(job.input_items()))
    tokens_in, tokens_out = read // 4, written // 4
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }


def _pause(error: UpstreamError, failures: int) -> float:
    pause = _RETRY.pause(failures)
    if error.retry_after_seconds is not None:
        pause = max(pause, min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS))
    return pause
