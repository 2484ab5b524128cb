"""How a response ended, and what a failed or cancelled one looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.worker import sse
from services.worker.checkpoints.state import Boundary, Detached
from services.worker.domain import Item, Job, Response, add_usage, cancel, fail
from services.worker.errors import UpstreamError
from services.worker.runs.output import OutputBuilder
from services.worker.runs.writer import EventWriter

INTERRUPTED = {
    "code": "server_error",
    "message": "The response was interrupted after part of it had been delivered.",
}
# The API has no event for a cancelled response: its stream ends with a comment.
CANCELLED_FRAME = b": cancelled\n\n"
# A later attempt that finds the end on the log must know that the usage in it is estimated.
ESTIMATED = b": estimated usage\n\n"
_VIA = b": via "


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


@dataclass(slots=True)
class Spent:
    """What a response has cost for certain, and whether there is more that nobody counted.

    `usage` sums the turns that ended, which gave the first `items` of the output. While a turn is
    `asked`, its input beyond the request's own is `carried`.
    """

    usage: dict[str, Any] | None = None
    items: int = 0
    carried: list[Item] = field(default_factory=list)
    asked: bool = True

    def all_in_all(self, job: Job, items: list[Item]) -> tuple[dict[str, Any] | None, bool]:
        """Return the usage of a response that ends with these items, and whether it is estimated.

        Output of a turn that did not end was paid for, too: it is estimated on top.
        """
        broken = items[self.items :]
        if not (self.asked and broken):
            return self.usage, False
        return add_usage(self.usage, estimate_usage(job, broken, self.carried)), True


@dataclass(slots=True)
class Progress:
    """How far a run has come, for who ends it or tries again.

    Who is asked, what there is of an answer, what it has cost. A try begins at `boundary` if there
    is one, or follows the provider's own response, `detached`. `earlier` is what earlier attempts
    had told, `skeleton` the Response object it began with.
    """

    provider: str | None = None
    partial: Callable[[], OutputBuilder] | None = None
    spent: Spent = field(default_factory=Spent)
    boundary: Boundary | None = None
    detached: Detached | None = None
    earlier: OutputBuilder = field(default_factory=OutputBuilder)
    skeleton: Response | None = None

    def paid(self, usage: dict[str, Any] | None, items: int) -> None:
        """Note that all turns so far have ended: nothing is estimated."""
        self.spent = Spent(usage, items, asked=False)

    def asking(self, usage: dict[str, Any] | None, items: int, carried: list[Item]) -> None:
        """Note that a turn begins after those that were paid."""
        self.spent = Spent(usage, items, carried)


def failed_response(
    job: Job,
    error: dict[str, str],
    output: list[Item],
    now: datetime,
    usage: dict[str, Any] | None = None,
) -> Response:
    """Return a failed Response with its partial output and what it cost."""
    response = job.skeleton(created_at=int(now.timestamp()))
    fail(response, error=error, output=output, finished_at=now)
    response["usage"] = usage
    return response


def cancelled(job: Job, provider: str, now: datetime, progress: Progress | None = None) -> Outcome:
    """Return the outcome of a response that its owner stopped, with what was said until then.

    Nobody counted the tokens of a turn that was under way: they are estimated.
    """
    response = cancel(job.skeleton(created_at=int(now.timestamp())))
    if progress is None or progress.provider is None:
        return Outcome(response, provider, frame=CANCELLED_FRAME)
    built = progress.partial() if progress.partial is not None else OutputBuilder()
    usage, estimated = progress.spent.all_in_all(job, built.items)
    response.update(output=built.items, usage=usage)
    last = built.last_sequence_number
    return Outcome(
        response,
        progress.provider,
        frame=CANCELLED_FRAME,
        last_sequence_number=last if last >= 0 else None,
        estimated_usage=estimated,
    )


def via(place: int) -> bytes:
    """Return the comment that tells a later attempt which provider of the model was asked.

    It is for all but the first; clients pass comments over.
    """
    return _VIA + b"%d\n\n" % place


def via_of(payload: bytes) -> int | None:
    """Return the place that `via` noted in an entry, None when there is none."""
    if not payload.startswith(_VIA):
        return None
    place = payload[len(_VIA) :].split(b"\n", 1)[0]
    return int(place) if place.isdigit() else None


def failed(
    job: Job,
    error: UpstreamError,
    provider: str,
    writer: EventWriter,
    now: datetime,
    *,
    spent: Spent | None = None,
) -> Outcome:
    """Return the outcome of a failure, with what was said before it and what that cost."""
    items = writer.built.items
    written_through = writer.last_sequence_number
    usage, estimated = (spent or Spent()).all_in_all(job, items)
    response = failed_response(job, error.response_error(), items, now, usage)
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
        estimated_usage=estimated,
        delivered=writer.delivered,
    )


def last_frame(outcome: Outcome) -> bytes:
    """Return the event that ends a stream."""
    if outcome.frame is not None:
        return outcome.frame
    return sse.encode(
        {
            "type": f"response.{outcome.response['status']}",
            "sequence_number": outcome.last_sequence_number,
            "response": outcome.response,
        }
    )


def estimate_usage(
    job: Job, output: list[Item], carried: list[Item] | None = None
) -> dict[str, Any]:
    """Estimate the usage of a turn that broke: four bytes of text count as a token.

    `carried` is its input beyond the request's own.
    """
    written = len(orjson.dumps(output)) if output else 0
    read = len(orjson.dumps([*job.input_items(), *(carried or ())]))
    tokens_in, tokens_out = read // 4, written // 4
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }
