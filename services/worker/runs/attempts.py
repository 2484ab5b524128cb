"""The providers of one attempt: which is asked, piped or composed, how often, and when no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from services.kit.clock import Clock
from services.worker.checkpoints.state import State
from services.worker.domain import Job
from services.worker.errors import RequestRefusedError
from services.worker.files.attached import refuse_lost
from services.worker.metrics import WorkerMetrics, unregistered
from services.worker.outbox import OutStream
from services.worker.providers.policy import choose, overrides, pause_before_retry
from services.worker.runs.composing import Save, compose
from services.worker.runs.detached import Vendor, abandon, follow
from services.worker.runs.outcome import Outcome, Progress, failed, via
from services.worker.runs.ownership import Assured, Leases
from services.worker.runs.piping import forward, pipe
from services.worker.runs.tries import Limits, Try
from services.worker.runs.upstream import Tools, Upstream
from services.worker.runs.writer import EventWriter
from services.worker.seals import ItemSeals


async def _save_nothing(_: Job, __: State) -> None: ...


@dataclass
class Attempts:
    """Gets a job answered by one of its model's providers; holds no state between jobs.

    What the lease counts as one attempt may be several tries here, at one provider or more.
    `save` returns when a later attempt can go on from a state. `vendors` are the providers' clients
    for their own background responses, by name.
    """

    upstreams: Callable[[str], Sequence[Upstream]]
    tools: Tools
    clock: Clock
    new_id: Callable[[str], str]
    limits: Limits
    seals: ItemSeals = field(default_factory=ItemSeals)
    metrics: WorkerMetrics = field(default_factory=unregistered)
    save: Save = _save_nothing
    vendors: Mapping[str, Vendor] = field(default_factory=dict)
    leases: Leases = field(default_factory=Assured)

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

    async def abandon(self, progress: Progress) -> None:
        """Stop what a provider does in the background for a run that its owner stopped."""
        detached = progress.detached
        if detached is not None and detached.provider in self.vendors:
            await abandon(self.vendors[detached.provider], detached, progress)

    async def run(
        self, job: Job, out: OutStream, skip_through: int, progress: Progress | None = None
    ) -> Outcome:
        """Try the model's providers in order, each as often as it may, until output went out.

        One that an earlier attempt had come far with is asked before all others.
        """
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
            return failed(job, refusal, provider, silent, self.clock.now())
        if (begun := progress.boundary or progress.detached) is not None:
            upstreams = sorted(upstreams, key=lambda one: one.config.name != begun.provider)
        outcome: Outcome | None = None
        for number, upstream in enumerate(upstreams):
            if number:
                self.metrics.fell_back(upstreams[number - 1].config.name)
            if (place := known.index(upstream)) > 0 or (begun is not None and len(known) > 1):
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
            outcome = await self._try(
                Try(
                    job,
                    out,
                    upstream,
                    skip_through,
                    progress,
                    self.limits,
                    self.clock,
                    self.metrics,
                    self.leases,
                )
            )
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

    async def _try(self, one: Try) -> Outcome:
        job, config = one.job, one.upstream.config
        if (changed := overrides(job, config)) is not None:
            job = replace(job, overrides=changed)
        try:
            job = self.seals.opened(job)
            plan = self.tools.plan(job, config)
            refuse_lost(job.files)
        except RequestRefusedError as error:
            return one.failed(error)
        if job is not one.job:
            one = replace(one, job=job)
        await one.make_sure()
        if config.dialect == "responses" and not plan.runs_here:
            if config.background and job.command.background and config.name in self.vendors:
                return await follow(one, self.vendors[config.name], self.save)
            return await (pipe(one) if job.command.stream else forward(one))
        return await compose(
            one,
            plan,
            tools=self.tools,
            new_id=self.new_id,
            save=self.save,
            seal=self.seals.for_output(job) if config.dialect == "chat" else None,
        )
