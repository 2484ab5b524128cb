"""`POST /v1/responses` as bare ASGI: one body in, one answer or one stream out, no framework."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from starlette.responses import Response

from contracts.packs import Flag
from services.intake.accepted import Accepted
from services.intake.admission.keys import ApiKey, ApiKeys
from services.intake.admission.seats import Body, SeatBounds, Seats
from services.intake.errors import ApiError, restarting
from services.intake.service import Responses
from services.intake.streaming.followers import DrainedError, SlowReaderError
from services.kit.ids import new_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
DONE = b"data: [DONE]\n\n"
RESUME = b": this server restarts, go on with GET ?stream=true&starting_after=<last number>\n\n"
"""Ends a stream in order that is not at its end, without `DONE`: the response goes on."""
_JSON = b"application/json"
_SSE = b"text/event-stream; charset=utf-8"


class ClientGoneError(Exception):
    """The client hung up while its body was read."""


async def read_body(
    scope: Scope, receive: Receive, *, limit: int, seat: Body | None = None
) -> bytes:
    """Return the request's body; raises `ApiError`: 413 above `limit` bytes, 429 without room."""
    length = header(scope, b"content-length")
    if length.isdigit():
        if int(length) > limit:
            raise too_large(limit)
        if seat is not None:
            seat.expect(int(length))
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if seat is not None:
            # What has come is what is held: who announces much and sends nothing takes no room.
            seat.grow(len(part))
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> ApiError:
    """Return the 413 for a body above the limit."""
    return ApiError(
        413, f"The request body is larger than {limit} bytes.", code="request_too_large"
    )


def header(scope: Scope, name: bytes) -> bytes:
    """Return the first header of that lower-case name, b"" when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


class KeyedRequests(Protocol):
    """What serves requests with an `Idempotency-Key`."""

    async def accept(self, name: bytes, body: bytes, key: ApiKey) -> Accepted | Response:
        """Accept the first request with a key; return the answer to any further one."""
        ...


class CreateEndpoint:
    """Accepts requests and carries the answers back."""

    def __init__(
        self,
        responses: Responses,
        keys: ApiKeys,
        *,
        max_body_bytes: int,
        keyed: KeyedRequests | None = None,
        seats: Seats | None = None,
    ) -> None:
        self._responses = responses
        self._seats = seats or Seats(SeatBounds(most=responses.bounds.max_open))
        self._keyed = keyed
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        meter = metrics.get_meter("antiphon")
        # Counted here and read when asked: a counter of OpenTelemetry costs each request 6 us.
        self._counts: Counter[tuple[str, int]] = Counter()
        meter.create_observable_counter(
            "antiphon.intake.requests",
            [self._observe],
            description="Create requests by status and kind",
        )
        self._duration = meter.create_histogram(
            "antiphon.intake.request.duration",
            unit="s",
            description="Time from the request's head to the end of the answer",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.monotonic()
        request_id = new_id("req").encode()
        kind = "json"
        key = seat = None
        try:
            key = self._keys.authenticate(header(scope, b"authorization").decode("latin-1"))
            seat = self._seats.take(key.key_id)
            body = await read_body(scope, receive, limit=self._max_body_bytes, seat=seat)
            name = header(scope, b"idempotency-key")
            if name and self._keyed is not None:
                accepted = await self._keyed.accept(name, body, key)
            else:
                accepted = await self._responses.accept(body, key)
            seat.drop()
            if isinstance(accepted, Response):
                kind, status = "replay", accepted.status_code
                accepted.headers["x-request-id"] = request_id.decode()
                if key.limits is not None:
                    accepted.raw_headers += await self._responses.limit_headers(key)
                await accepted(scope, receive, send)
            else:
                # What an answer is waited for without need not wait with it.
                body = body if accepted.background else b""
                try:
                    kind, status = await self._answer(accepted, body, request_id, receive, send)
                finally:
                    accepted.close()
        except ApiError as error:
            status = error.status
            # Who is refused for want of room asks nobody else for anything.
            roomless = seat is None or error.status == HTTPStatus.TOO_MANY_REQUESTS
            if not roomless and key is not None and key.limits is not None and not error.headers:
                error.headers = await self._responses.limit_headers(key)
            await _send_error(send, error, request_id)
        except ClientGoneError:
            status = 499
        finally:
            if seat is not None:
                seat.leave()
        self._counts[kind, status] += 1
        self._duration.record(time.monotonic() - began, {"kind": kind})

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count, {"kind": kind, "status": status})
            for (kind, status), count in self._counts.items()
        ]

    async def _answer(
        self, accepted: Accepted, body: bytes, request_id: bytes, receive: Receive, send: Send
    ) -> tuple[str, int]:
        if accepted.stream:
            await self._stream(accepted, request_id, receive, send)
            return "stream", 200
        if accepted.background:
            queued = orjson.dumps(self._responses.queued(accepted, body))
            await send_body(send, 200, queued, request_id, *accepted.headers)
            return "background", 200
        answer = await self._responses.answer(accepted)
        if accepted.on_failure is not None and answer.status >= HTTPStatus.BAD_REQUEST:
            await accepted.on_failure(answer)
        headers = (*accepted.headers, *answer.headers)
        await send_body(send, answer.status, answer.body, request_id, *headers)
        return "json", answer.status

    async def _stream(
        self, accepted: Accepted, request_id: bytes, receive: Receive, send: Send
    ) -> None:
        """Write blocks as they come until the last; a client that hangs up ends only its stream."""
        gone = asyncio.ensure_future(_disconnected(receive))
        gone.add_done_callback(lambda _: accepted.follower.leave())
        started = False
        try:
            while not gone.done():
                try:
                    entries = await accepted.follower.take()
                except SlowReaderError:
                    return
                except DrainedError as error:
                    if not started:
                        keyed = accepted.on_failure is not None
                        raise restarting(accepted.response_id, keyed=keyed) from error
                    await send({"type": "http.response.body", "body": RESUME})
                    return
                if not entries:
                    return
                blocks = [
                    entry.payload
                    if not entry.flags & Flag.CLAIM
                    else await self._responses.payload(entry)
                    for entry in entries
                ]
                last = bool(entries[-1].flags & Flag.LAST)
                if last:
                    blocks.append(DONE)
                    self._responses.reader.note_finished(accepted.response_id)
                if not started:
                    await send_head(send, 200, _SSE, request_id, *accepted.headers)
                    started = True
                await send(
                    {"type": "http.response.body", "body": b"".join(blocks), "more_body": not last}
                )
                if last:
                    return
        finally:
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_head(
    send: Send, status: int, content_type: bytes, request_id: bytes, *extra: tuple[bytes, bytes]
) -> None:
    """Send the head of an answer."""
    headers = [(b"content-type", content_type), (b"x-request-id", request_id), *extra]
    if content_type is _SSE:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_body(
    send: Send, status: int, body: bytes, request_id: bytes, *extra: tuple[bytes, bytes]
) -> None:
    """Send a whole JSON answer."""
    length = (b"content-length", b"%d" % len(body))
    await send_head(send, status, _JSON, request_id, length, *extra)
    await send({"type": "http.response.body", "body": body})


async def _send_error(send: Send, error: ApiError, request_id: bytes) -> None:
    extra = [*error.headers]
    if error.retry_after_seconds is not None:
        extra.append((b"retry-after", b"%d" % error.retry_after_seconds))
    await send_body(send, error.status, orjson.dumps(error.body()), request_id, *extra)
