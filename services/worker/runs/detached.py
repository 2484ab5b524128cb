"""Responses that a provider works on in the background by itself: asked once, then followed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import orjson

from services.kit.retry import Backoff
from services.worker.checkpoints.state import Detached
from services.worker.domain import Response, terminal_status
from services.worker.errors import UpstreamError
from services.worker.runs.composing import Save
from services.worker.runs.outcome import Outcome, Progress, Spent
from services.worker.runs.passthrough import Passthrough
from services.worker.runs.piping import broken, piped
from services.worker.runs.tries import Try

logger = logging.getLogger(__name__)
_POLLS = Backoff(attempts=1_000_000, first_seconds=0.5, longest_seconds=10.0)
_CANCEL_SECONDS = 10.0


class Vendor(Protocol):
    """A provider's calls about responses that it keeps; both raise `UpstreamError`."""

    async def retrieve(self, response_id: str) -> dict[str, Any]:
        """Return the response as it is now."""
        ...

    async def cancel(self, response_id: str) -> dict[str, Any]:
        """Stop the response; return it as it is then."""
        ...


async def follow(one: Try, vendor: Vendor, save: Save) -> Outcome:
    """Ask for a background response, unless an earlier try has, and follow it to its end.

    A connection that breaks, or a worker that dies, costs nothing: who comes next follows the same
    response. One that the provider forgot is asked for again as long as none of it was told.
    """
    config, progress = one.upstream.config, one.progress
    detached = progress.detached
    if detached is not None and detached.provider != config.name:
        detached = progress.detached = None
    asked_at = one.clock.now().timestamp() if detached is None else detached.asked_at
    left = asked_at + config.background_seconds - one.clock.now().timestamp()
    follower = _Follower(one, vendor, save, asked_at)
    try:
        async with asyncio.timeout(left) as deadline:
            outcome = await (follower.stream() if one.job.command.stream else follower.poll())
    except TimeoutError:
        if not deadline.expired():
            raise
        if progress.detached is not None:
            await abandon(vendor, progress.detached, progress)
        late = UpstreamError(
            f"the background response took longer than {config.background_seconds:g} s",
            status=504,
            retryable=False,
        )
        return follower.failed(late)
    if outcome.error is not None and progress.detached is not None:
        # Nobody will hear what it goes on to say.
        await abandon(vendor, progress.detached, progress)
    return outcome


async def abandon(vendor: Vendor, detached: Detached, progress: Progress) -> None:
    """Stop a provider's response; what it says it cost is noted. Failures are logged."""
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            stopped = await vendor.cancel(detached.upstream_id)
    except (UpstreamError, TimeoutError) as error:
        logger.warning("%s could not be stopped: %r", detached.upstream_id, error)
        return
    usage = stopped.get("usage")
    if isinstance(usage, dict):
        progress.spent = Spent(usage, asked=False)


class _Follower:
    def __init__(self, one: Try, vendor: Vendor, save: Save, asked_at: float) -> None:
        self._one = one
        self._vendor = vendor
        self._save = save
        self._asked_at = asked_at
        self._pipe: Passthrough | None = None

    async def stream(self) -> Outcome:
        one, progress = self._one, self._one.progress
        client = one.upstream.client
        pipe = self._pipe = Passthrough(
            one.job,
            one.out,
            max_event_bytes=one.limits.max_event_bytes,
            skip_through=one.skip_through,
            on_begun=self._note if progress.detached is None else None,
        )
        progress.partial = pipe.partial
        if progress.detached is not None:
            pipe.go_on(progress.earlier, progress.skeleton)
        failures, told = 0, pipe.partial().last_sequence_number
        while True:
            try:
                if progress.detached is None:
                    await pipe.follow(client.post("/responses", self._body(), headers=self._key()))
                else:
                    await self._rejoin(pipe, progress.detached)
                return piped(one, pipe)
            except UpstreamError as error:
                if (outcome := self._hopeless(error)) is not None:
                    return outcome
                failure = error
            latest = pipe.partial().last_sequence_number
            failures, told = (1 if latest > told else failures + 1), latest
            logger.warning("the stream of %s broke: %s", one.job.response_id, failure.message)
            await asyncio.sleep(_POLLS.pause(failures))
            if failures > 1 and await self._ended(pipe, progress.detached):
                return piped(one, pipe)

    async def poll(self) -> Outcome:
        one, progress = self._one, self._one.progress
        response: Response | None = None
        failures = polls = 0
        while True:
            try:
                if progress.detached is None:
                    client = one.upstream.client
                    response = await client.read_json(
                        "/responses", self._body(), headers=self._key()
                    )
                    await self._note(str(response.get("id")))
                else:
                    response = await self._vendor.retrieve(progress.detached.upstream_id)
                failures = 0
            except UpstreamError as error:
                if (outcome := self._hopeless(error)) is not None:
                    return outcome
                failures += 1
            else:
                if terminal_status(response) is not None:
                    return Outcome(one.job.adopt(response), one.upstream.config.name)
            polls += 1
            await asyncio.sleep(_POLLS.pause(max(failures, polls)))

    def failed(self, error: UpstreamError) -> Outcome:
        if self._pipe is None:
            return self._one.failed(error)
        return broken(self._one, self._pipe, error)

    def _hopeless(self, error: UpstreamError) -> Outcome | None:
        """Return the outcome of a failure that following the response can't heal."""
        progress = self._one.progress
        if progress.detached is None:
            return self.failed(error)
        if error.status == 404:
            # It forgot the response: asked anew, unless the client has seen some of it.
            progress.detached = None
            return self.failed(UpstreamError("the provider lost the background response"))
        if not error.retryable or (not progress.detached.exact and self._told):
            return self.failed(error)
        return None

    @property
    def _told(self) -> bool:
        return self._pipe is not None and self._pipe.partial().delivered

    async def _rejoin(self, pipe: Passthrough, detached: Detached) -> None:
        pipe.go_on(pipe.partial(), pipe.skeleton)
        query = {"stream": "true"}
        if pipe.skip_through >= 0:
            query["starting_after"] = str(pipe.skip_through)
        client = self._one.upstream.client
        await pipe.follow(client.get(f"/responses/{detached.upstream_id}", query))

    async def _ended(self, pipe: Passthrough, detached: Detached | None) -> bool:
        """Look whether the response is at its end, which the provider may not stream again."""
        if detached is None:
            return False
        try:
            response = await self._vendor.retrieve(detached.upstream_id)
        except UpstreamError:
            return False
        status = terminal_status(response)
        if status is None:
            return False
        pipe.terminal = {
            "type": f"response.{status}",
            "sequence_number": pipe.partial().last_sequence_number + 1,
            "response": self._one.job.adopt(response),
        }
        return True

    async def _note(self, upstream_id: str) -> None:
        one = self._one
        detached = Detached(
            provider=one.upstream.config.name,
            upstream_id=upstream_id,
            exact=one.skip_through < 0,
            asked_at=self._asked_at,
        )
        one.progress.detached = detached
        await self._save(one.job, detached)

    def _body(self) -> bytes:
        job = self._one.job
        model = self._one.upstream.config.upstream_name(job.command.model)
        body = job.upstream_request(model=model, stream=job.command.stream)
        return orjson.dumps({**body, "background": True, "store": True})

    def _key(self) -> dict[str, str]:
        return {"idempotency-key": self._one.job.response_id}
