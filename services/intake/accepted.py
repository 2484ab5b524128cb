"""A request between its acceptance and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from services.intake.streaming.followers import Follower
from services.intake.tool_policy import Headers


@dataclass(frozen=True, slots=True)
class Place:
    """An id that was promised to a request before, and where its answer is read.

    `again` says that its command may be on the log already; then whoever asks follows from there.
    """

    response_id: str
    events_partition: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer as the worker gave it."""

    status: int
    body: bytes
    headers: Headers = ()

    @classmethod
    def of(cls, status: int, body: bytes) -> Answer:
        """Return the answer; a refusal may say, beside the error, when to come again."""
        if status < HTTPStatus.BAD_REQUEST or b'"retry_after_seconds"' not in body:
            return cls(status, body)
        told = orjson.loads(body)
        seconds = told.pop("retry_after_seconds", None)
        if not isinstance(seconds, int):
            return cls(status, body)
        return cls(status, orjson.dumps(told), ((b"retry-after", b"%d" % seconds),))


@dataclass(slots=True)
class Accepted:
    """A request that is on the log. `follower` gets its answer; the caller must `close` it."""

    response_id: str
    stream: bool
    background: bool
    follower: Follower
    close: Callable[[], None]
    on_failure: Callable[[Answer], Awaitable[None]] | None = None
    """Told of a JSON answer that is an error, before the client is."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further headers of the answer: how the limits of the key stand, and warnings."""
