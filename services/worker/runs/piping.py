"""Answers of a Responses-native provider that go to the client as they come."""

from __future__ import annotations

import time

import orjson

from services.worker import sse
from services.worker.domain import fail, terminal_status
from services.worker.errors import UpstreamError
from services.worker.runs.outcome import Outcome, estimate_usage
from services.worker.runs.passthrough import Passthrough
from services.worker.runs.tries import Try


async def forward(one: Try) -> Outcome:
    """Serve a client of JSON."""
    config, job = one.upstream.config, one.job
    body = orjson.dumps(
        job.upstream_request(model=config.upstream_name(job.command.model), stream=False)
    )
    try:
        response = await one.upstream.client.read_json("/responses", body)
        if terminal_status(response) is None:
            raise UpstreamError("the provider's answer is no finished Response")
    except UpstreamError as error:
        return one.failed(error)
    return Outcome(job.adopt(response), config.name)


async def pipe(one: Try) -> Outcome:
    """Serve a stream, byte for byte."""
    config, job = one.upstream.config, one.job
    body = orjson.dumps(
        job.upstream_request(model=config.upstream_name(job.command.model), stream=True)
    )
    through = Passthrough(
        job,
        one.out,
        max_event_bytes=one.limits.max_event_bytes,
        skip_through=one.skip_through,
    )
    one.progress.partial = through.partial
    began = time.monotonic()
    try:
        await through.run(one.upstream.client, body)
    except UpstreamError as error:
        return broken(one, through, error)
    finally:
        if through.first_output_at is not None:
            waited = through.first_output_at - began
            one.metrics.first_output(config.name, job.command.model, waited)
    return piped(one, through)


def piped(one: Try, through: Passthrough) -> Outcome:
    """Return the outcome of a stream that came to its end."""
    terminal = through.terminal
    assert terminal is not None
    return Outcome(
        terminal["response"],
        one.upstream.config.name,
        frame=sse.encode(terminal),
        last_sequence_number=terminal["sequence_number"],
    )


def broken(one: Try, through: Passthrough, error: UpstreamError) -> Outcome:
    """Return the outcome of a stream that broke: failed once it had told any output."""
    built = through.partial()
    if not built.delivered:
        # At most its beginning was told: another try goes on behind that.
        return one.failed(error, told=max(through.skip_through, built.last_sequence_number))
    job = one.job
    response = fail(
        through.skeleton or job.skeleton(created_at=one.now()),
        error=error.response_error(),
        output=built.items,
        finished_at=one.clock.now(),
    )
    response["usage"] = estimate_usage(job, built.items)
    return Outcome(
        response,
        one.upstream.config.name,
        error=error,
        last_sequence_number=built.last_sequence_number + 1,
        estimated_usage=True,
        delivered=True,
    )
