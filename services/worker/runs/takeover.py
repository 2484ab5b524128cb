"""What a later attempt makes of what earlier ones left: their outcome, an end, or a way on."""

from __future__ import annotations

from datetime import datetime

from services.worker.checkpoints.state import Boundary, State
from services.worker.domain import Job, fail
from services.worker.errors import UpstreamError
from services.worker.runs.outcome import (
    INTERRUPTED,
    Outcome,
    Progress,
    Spent,
    failed,
    failed_response,
)
from services.worker.runs.recovery import Delivered
from services.worker.runs.writer import EventWriter


def conclude(
    job: Job,
    earlier: Delivered,
    state: State | None,
    provider: str,
    progress: Progress,
    now: datetime,
) -> Outcome | None:
    """Return the outcome that an earlier attempt reached, None when the run must go on.

    How far it came is in `progress` then. A stream is not generated again behind its reader's back:
    one that told more than `state` can account for ends as failed, with what was told kept.
    """
    last = earlier.last_sequence_number
    if earlier.finished is not None:
        return Outcome(
            earlier.finished,
            provider,
            last_sequence_number=last,
            estimated_usage=earlier.estimated,
            on_log=True,
        )
    if earlier.ended:
        error = INTERRUPTED
        if earlier.error is not None:
            error = {"code": "server_error", "message": earlier.error}
        response = failed_response(job, error, [], now)
        return Outcome(response, provider, last_sequence_number=last, on_log=True)
    _learn(earlier, state, progress)
    if _can_go_on(earlier, state):
        return None
    return _interrupted(job, progress.provider or provider, progress, now)


def given_up(job: Job, provider: str, progress: Progress, now: datetime) -> Outcome:
    """Return the outcome of a job that is not tried again, after what was told already."""
    through = progress.earlier.last_sequence_number
    writer = EventWriter(None, skip_through=through, begin=progress.boundary)
    if progress.earlier.delivered:
        writer.built = progress.earlier
    error = UpstreamError(
        "The server had an error while processing your request. Sorry about that!",
        status=500,
        code="server_error",
        retryable=False,
    )
    return failed(job, error, provider, writer, now, spent=progress.spent)


def _learn(earlier: Delivered, state: State | None, progress: Progress) -> None:
    progress.earlier = earlier.built
    progress.skeleton = earlier.skeleton
    progress.partial = lambda: earlier.built
    if state is None:
        return
    progress.provider = state.provider
    if isinstance(state, Boundary):
        progress.boundary = state
        told_more = earlier.built.last_sequence_number > state.told_through
        progress.spent = Spent(state.usage, len(state.output), state.carried, asked=told_more)
    else:
        progress.detached = state


def _can_go_on(earlier: Delivered, state: State | None) -> bool:
    built = earlier.built
    if isinstance(state, Boundary):
        return built.last_sequence_number <= state.told_through
    if state is not None and built.delivered:
        return state.exact
    # Lists of tools are told before anybody is asked, and alike by every attempt.
    lists = [item.get("type") == "mcp_list_tools" for item in built.items]
    return not built.delivered or (bool(lists) and all(lists))


def _interrupted(job: Job, provider: str, progress: Progress, now: datetime) -> Outcome:
    items = progress.earlier.items
    skeleton = progress.skeleton or job.skeleton(created_at=int(now.timestamp()))
    response = fail(skeleton, error=INTERRUPTED, output=items, finished_at=now)
    response["usage"], estimated = progress.spent.all_in_all(job, items)
    return Outcome(
        response,
        provider,
        last_sequence_number=progress.earlier.last_sequence_number + 1,
        estimated_usage=estimated,
    )
