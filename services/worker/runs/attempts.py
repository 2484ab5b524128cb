"""Attempts at providers: which one, piped or composed, how often again, and when not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

import orjson

from services.kit.clock import Clock
from services.worker import sse
from services.worker.domain import Event, Job, fail, terminal_status
from services.worker.errors import RequestRefusedError, UpstreamError
from services.worker.files.attached import refuse_lost
from services.worker.metrics import WorkerMetrics, unregistered
from services.worker.outbox import OutStream
from services.worker.providers.policy import choose, overrides, pause_before_retry
from services.worker.runs.composer import Composer
from services.worker.runs.outcome import Outcome, Progress, estimate_usage, refused, via
from services.worker.runs.passthrough import Passthrough
from services.worker.runs.upstream import Tools, Upstream
from services.worker.runs.writer import EventWriter
from services.worker.seals import ItemSeals
from services.worker.tools.plan import ToolPlan


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    max_turns: int
    max_event_bytes: int


@dataclass
class Attempts:
    """Gets a job answered by one of its model's providers; holds no state between jobs."""

    upstreams: Callable[[str], Sequence[Upstream]]
    tools: Tools
    clock: Clock
    new_id: Callable[[str], str]
    limits: Limits
    seals: ItemSeals = field(default_factory=ItemSeals)
    metrics: WorkerMetrics = field(default_factory=unregistered)

    def first_provider(self, job: Job) -> str:
        """Return the name of the provider that is asked first, `none` when there is none."""
        upstreams = self.upstreams(job.command.model)
        return upstreams[0].config.name if upstreams else "none"

    def provider_at(self, job: Job, place: int) -> str:
        """Return the name of the provider that was asked as that one, see `via`."""
        upstreams = self.upstreams(job.command.model)
        if place < len(upstreams):
            return upstreams[place].config.name
        return self.first_provider(job)

    async def run(
        self, job: Job, out: OutStream, skip_through: int, progress: Progress | None = None
    ) -> Outcome:
        """Try the model's providers in order, each as often as it may, until output went out."""
        progress = progress or Progress()
        known = self.upstreams(job.command.model)
        try:
            job, upstreams = choose(job, known)
            if not upstreams:
                raise RequestRefusedError(
                    f"The model {job.command.model!r} does not exist.",
                    param="model",
                    code="model_not_found",
                )
        except RequestRefusedError as refusal:
            silent = EventWriter(None, skip_through=skip_through)
            provider = self.first_provider(job)
            return refused(job, refusal, provider, silent, self.clock.now())
        outcome: Outcome | None = None
        for number, upstream in enumerate(upstreams):
            if number:
                self.metrics.fell_back(upstreams[number - 1].config.name)
            if (place := known.index(upstream)) > 0:
                out.write(via(place))
            progress.provider = upstream.config.name
            last = number == len(upstreams) - 1
            outcome = await self._insist(job, out, upstream, skip_through, progress, last=last)
            error = outcome.error
            if error is None or outcome.delivered or isinstance(error, RequestRefusedError):
                return outcome
            skip_through = max(skip_through, outcome.written_through)
        assert outcome is not None
        return outcome

    async def _insist(
        self,
        job: Job,
        out: OutStream,
        upstream: Upstream,
        skip_through: int,
        progress: Progress,
        *,
        last: bool,
    ) -> Outcome:
        """Ask one provider as often as it may be asked, until output went out."""
        config = upstream.config
        began = self.clock.monotonic()
        for failures in count(1):
            outcome = await self._attempt(job, out, upstream, skip_through, progress)
            error = outcome.error
            if error is None or outcome.delivered or isinstance(error, RequestRefusedError):
                return outcome
            skip_through = max(skip_through, outcome.written_through)
            pause = pause_before_retry(
                error,
                failures,
                retries=config.retries,
                last=last,
                patient_for=self.clock.monotonic() - began if job.command.background else None,
            )
            if pause is None:
                return outcome
            self.metrics.retried(config.name)
            await asyncio.sleep(pause)
        raise AssertionError

    async def _attempt(
        self,
        job: Job,
        out: OutStream,
        upstream: Upstream,
        skip_through: int,
        progress: Progress,
    ) -> Outcome:
        config = upstream.config
        silent = EventWriter(None, skip_through=skip_through)
        if (changed := overrides(job, config)) is not None:
            job = replace(job, overrides=changed)
        try:
            job = self.seals.opened(job)
            plan = self.tools.plan(job, config)
            refuse_lost(job.files)
        except RequestRefusedError as error:
            return refused(job, error, config.name, silent, self.clock.now())
        if config.dialect == "responses" and not plan.runs_here:
            if job.command.stream:
                return await self._pipe(job, out, upstream, skip_through, progress)
            return await self._forward(job, upstream)
        return await self._compose(job, out, upstream, plan, skip_through, progress)

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
            return refused(job, error, config.name, EventWriter(None), self.clock.now())
        return Outcome(job.adopt(response), config.name)

    async def _pipe(
        self,
        job: Job,
        out: OutStream,
        upstream: Upstream,
        skip_through: int,
        progress: Progress,
    ) -> Outcome:
        """Serve a stream from a Responses-native provider, byte for byte."""
        config = upstream.config
        body = orjson.dumps(
            job.upstream_request(model=config.upstream_name(job.command.model), stream=True)
        )
        pipe = Passthrough(
            job, out, max_event_bytes=self.limits.max_event_bytes, skip_through=skip_through
        )
        progress.partial = pipe.partial
        began = time.monotonic()
        try:
            await pipe.run(upstream.client, body)
        except UpstreamError as error:
            return self._broken_pipe(job, pipe, error, config.name)
        finally:
            if pipe.first_output_at is not None:
                waited = pipe.first_output_at - began
                self.metrics.first_output(config.name, job.command.model, waited)
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
        built = pipe.partial()
        if not built.delivered:
            # At most its beginning was told: another try goes on behind that.
            told = max(pipe.skip_through, built.last_sequence_number)
            silent = EventWriter(None, skip_through=told)
            return refused(job, error, provider, silent, self.clock.now())
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
        progress: Progress,
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
            seal=self.seals.for_output(job) if config.dialect == "chat" else None,
        )
        progress.partial = lambda: writer.built
        began = time.monotonic()
        for kind in ("response.created", "response.in_progress"):
            writer.emit({"type": kind, "response": response})
        try:
            response = await composer.run(response)
        except UpstreamError as error:
            return refused(job, error, config.name, writer, self.clock.now())
        finally:
            if writer.first_output_at is not None and job.command.stream:
                waited = writer.first_output_at - began
                self.metrics.first_output(config.name, job.command.model, waited)
        response["completed_at"] = self._now() if response["status"] == "completed" else None
        event: Event = {"type": f"response.{response['status']}", "response": response}
        frame = writer.close(event)
        return Outcome(
            response,
            config.name,
            frame=frame,
            last_sequence_number=writer.last_sequence_number,
        )

    def _now(self) -> int:
        return int(self.clock.now().timestamp())
