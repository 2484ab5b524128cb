"""Answers that are put together here, from model turns of either dialect and tool calls."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

from services.worker.checkpoints.state import Boundary, State
from services.worker.domain import Event, Item, Job, Response
from services.worker.errors import UpstreamError
from services.worker.runs.composer import Composer
from services.worker.runs.outcome import Outcome, failed
from services.worker.runs.tries import Try
from services.worker.runs.upstream import Tools
from services.worker.runs.writer import EventWriter
from services.worker.tools.plan import ToolPlan

Save = Callable[[Job, State], Awaitable[None]]


async def compose(
    one: Try,
    plan: ToolPlan,
    *,
    tools: Tools,
    new_id: Callable[[str], str],
    save: Save,
    seal: Callable[[Item], None] | None,
) -> Outcome:
    """Serve from model turns with the tools that run here in between.

    Goes on from the progress's boundary if there is one.
    """
    config, job, begin = one.upstream.config, one.job, one.progress.boundary
    if begin is not None and not plan.runs_here and not begin.turns:
        # Nothing stands there but how the response begins, and no list of tools.
        begin = one.progress.boundary = None
    write = one.out.write if job.command.stream else None
    writer = EventWriter(write, skip_through=one.skip_through, begin=begin)
    one.progress.partial = lambda: writer.built
    response = job.skeleton(created_at=one.now() if begin is None else begin.created_at)
    composer = Composer(
        job=job,
        provider=config,
        turns=one.upstream.turns,
        plan=plan,
        writer=writer,
        call_tool=partial(tools.call, job),
        new_id=new_id,
        max_turns=one.limits.max_turns,
        seal=seal,
        save=partial(_save, one, save),
        progress=one.progress,
        make_sure=one.make_sure,
    )
    began = time.monotonic()
    if begin is None:
        for kind in ("response.created", "response.in_progress"):
            writer.emit({"type": kind, "response": response})
    try:
        response = await composer.run(response, begin)
    except UpstreamError as error:
        spent = one.progress.spent
        return failed(job, error, config.name, writer, one.clock.now(), spent=spent)
    finally:
        if writer.first_output_at is not None and job.command.stream:
            waited = writer.first_output_at - began
            one.metrics.first_output(config.name, job.command.model, waited)
    return _ended(one, writer, response)


def _ended(one: Try, writer: EventWriter, response: Response) -> Outcome:
    response["completed_at"] = one.now() if response["status"] == "completed" else None
    event: Event = {"type": f"response.{response['status']}", "response": response}
    frame = writer.close(event)
    return Outcome(
        response,
        one.upstream.config.name,
        frame=frame,
        last_sequence_number=writer.last_sequence_number,
    )


async def _save(one: Try, save: Save, boundary: Boundary) -> None:
    # What a later attempt takes for told must be on the log.
    await one.out.sent()
    await save(one.job, boundary)
