"""Rules of a WebSocket session: its events, its lanes, and what is remembered for the next turn."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.intake.body import parse_json
from services.intake.domain import input_items, output_items
from services.intake.errors import ApiError, invalid
from services.intake.request import missing

Event = dict[str, Any]

MOST_LANES = 32
"""Named lanes in the life of one connection, as with the vendor."""
MOST_RUNNING = 16
"""Responses that run at once on one connection, as with the vendor."""
MOST_QUEUED = 64
_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ENVELOPE = frozenset({"type", "stream_id", "generate", "stream", "background"})
_PREPARED = ("instructions", "tools")


@dataclass(frozen=True, slots=True)
class Context:
    """What the next response of a chain is given, kept for its connection alone.

    `items` is a JSON array: the history, the input and the output of the response. `stored_ids` are
    the responses in it that their owner may delete meanwhile. `stored` says whether the response
    itself can be read back. `prepared` are parameters of a warm-up that the turn after it may leave
    out, `prepared_bytes` how much they are as JSON.
    """

    response_id: str
    items: bytes
    stored_ids: tuple[str, ...]
    stored: bool
    prepared: Event = field(default_factory=dict)
    prepared_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """About how much memory it needs."""
        return len(self.items) + self.prepared_bytes

    def after(self, request: Event, response: Event, *, stored: bool) -> Context:
        """Return the context once a response that follows this one has ended."""
        own = orjson.dumps([*input_items(request), *output_items(response)])
        response_id = str(response.get("id"))
        ids = (*self.stored_ids, response_id) if stored else self.stored_ids
        return Context(response_id, join(self.items, own), ids, stored)


NO_CONTEXT = Context("", b"[]", (), stored=True)


def join(left: bytes, right: bytes) -> bytes:
    """Return one JSON array of the items of two."""
    if left == b"[]":
        return right
    return left if right == b"[]" else left[:-1] + b"," + right[1:]


@dataclass(frozen=True, slots=True)
class Create:
    """A `response.create`: `body` is what `POST /v1/responses` would get."""

    stream_id: str | None
    body: Event
    generate: bool
    size_bytes: int

    @property
    def previous_response_id(self) -> str | None:
        """The response that this one follows."""
        previous = self.body.get("previous_response_id")
        return previous if isinstance(previous, str) else None

    @property
    def stored(self) -> bool:
        """Whether the response is to be kept."""
        return self.body.get("store") is not False

    def body_after(self, context: Context) -> tuple[Event, bytes]:
        """Return the body and the history to accept it with.

        A response that is kept must be whole without what is not: then the history becomes part of
        its own input.
        """
        body = {**context.prepared, **self.body}
        if context.stored or not self.stored:
            return body, context.items
        return {**body, "input": [*orjson.loads(context.items), *input_items(body)]}, b"[]"


def read_event(text: str) -> Event:
    """Return a client's event; raises `ApiError` (400) for what is none."""
    event = parse_json(text.encode(errors="surrogatepass"))
    if not isinstance(event, dict):
        raise invalid("An event must be a JSON object.", param=None, code="invalid_event")
    if not isinstance(event.get("type"), str):
        raise missing("type")
    return event


def lane_of(event: Event) -> str | None:
    """Return the named lane of an event; raises `ApiError` (400) for a name that can't be one."""
    stream_id = event.get("stream_id")
    if stream_id is None:
        return None
    if not isinstance(stream_id, str) or _STREAM_ID.fullmatch(stream_id) is None:
        raise invalid(
            "The 'stream_id' field must be a non-empty string with at most 256 characters and may "
            "only contain letters, numbers, underscores, hyphens, and periods.",
            param="stream_id",
            code="invalid_stream_id",
        )
    return stream_id


def read_create(event: Event, *, size_bytes: int) -> Create:
    """Return the order in a `response.create`; raises `ApiError` (400).

    Its body is validated when it is accepted, like that of any create request.
    """
    for name, fixed in (("stream", True), ("background", False)):
        value = event.get(name)
        if value is not None and value is not fixed:
            raise invalid(
                f"Invalid value for '{name}': over a WebSocket it is always "
                f"{str(fixed).lower()}, leave it out.",
                param=name,
                code="invalid_value",
            )
    generate = event.get("generate")
    if generate is not None and not isinstance(generate, bool):
        raise invalid(
            "Invalid type for 'generate': expected a boolean.",
            param="generate",
            code="invalid_type",
        )
    body = {name: value for name, value in event.items() if name not in _ENVELOPE}
    body["stream"] = True
    return Create(lane_of(event), body, generate is not False, size_bytes)


def prepared_by(body: Event) -> Event:
    """Return what a warm-up prepares for the turn after it, beside its items."""
    return {name: body[name] for name in _PREPARED if body.get(name) is not None}


@dataclass(slots=True)
class Lane:
    """One order of responses on a connection; `latest` is the one that can be followed at once."""

    stream_id: str | None
    queue: deque[Create] = field(default_factory=deque)
    latest: str | None = None


class Lanes:
    """The lanes of one connection; what waits on them is bounded in number and bytes."""

    def __init__(self, *, max_queued_bytes: int) -> None:
        self._lanes: dict[str | None, Lane] = {}
        self._max_queued_bytes = max_queued_bytes
        self._queued = 0
        self._queued_bytes = 0

    def put(self, create: Create) -> Lane:
        """Queue an order and return its lane; raises `ApiError` (400, 429)."""
        lane = self._lanes.get(create.stream_id)
        if lane is None:
            named = sum(name is not None for name in self._lanes)
            if create.stream_id is not None and named >= MOST_LANES:
                raise invalid(
                    "This WebSocket connection has reached its maximum number of distinct stream "
                    f"IDs ({MOST_LANES}). Reuse an existing stream_id or open a new WebSocket "
                    "connection.",
                    param="stream_id",
                    code="websocket_stream_limit_reached",
                )
        if (
            self._queued >= MOST_QUEUED
            or self._queued_bytes + create.size_bytes > self._max_queued_bytes
        ):
            raise ApiError(
                429,
                "Too many requests wait on this WebSocket connection.",
                kind="rate_limit_error",
                code="websocket_queue_full",
                retry_after_seconds=1,
            )
        if lane is None:
            lane = self._lanes[create.stream_id] = Lane(create.stream_id)
        lane.queue.append(create)
        self._queued += 1
        self._queued_bytes += create.size_bytes
        return lane

    def take(self, lane: Lane) -> Create:
        """Take the next order of a lane, which must have one."""
        create = lane.queue.popleft()
        self._queued -= 1
        self._queued_bytes -= create.size_bytes
        return create

    def all(self) -> list[Lane]:
        """Return every lane there is."""
        return list(self._lanes.values())


class Contexts:
    """The contexts of all connections of this process, the least recently used dropped first."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, str], Context] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes are kept."""
        return self._bytes

    def find(self, connection: str, response_id: str) -> Context | None:
        """Return a context of this connection, None when it has none for the response."""
        context = self._kept.get((connection, response_id))
        if context is not None:
            self._kept.move_to_end((connection, response_id))
        return context

    def keep(self, connection: str, lane: Lane, context: Context) -> None:
        """Keep a context as the lane's latest, in place of the one before."""
        self.forget(connection, lane)
        if context.size_bytes > self._max_bytes:
            return
        self._kept[connection, context.response_id] = context
        self._bytes += context.size_bytes
        lane.latest = context.response_id
        while self._bytes > self._max_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].size_bytes

    def forget(self, connection: str, lane: Lane) -> None:
        """Forget a lane's latest context. Idempotent."""
        if lane.latest is None:
            return
        gone = self._kept.pop((connection, lane.latest), None)
        lane.latest = None
        if gone is not None:
            self._bytes -= gone.size_bytes
