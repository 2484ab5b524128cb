"""Answers with content that has an ETag: whole, in part, or not at all when the client has it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from services.artifacts.content_types import content_type_header, disposition
from services.artifacts.ranges import Span, is_known, range_applies, requested_span


class Described(Protocol):
    """What is known of some content without its bytes."""

    @property
    def filename(self) -> str:
        """A name that is safe in a header."""
        ...

    @property
    def content_type(self) -> str:
        """Its detected type."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...

    @property
    def sha256(self) -> str:
        """Its hash, 64 hex digits."""
        ...


async def content_response(
    request: Request,
    described: Described,
    open_span: Callable[[Span], Awaitable[AsyncGenerator[bytes, None]]],
) -> Response:
    """Answer a GET or HEAD for some content; raises `UnsatisfiableRangeError`."""
    etag = f'"{described.sha256}"'
    # Deleting is for real: a browser asks each time, and is spared the bytes.
    headers = {"etag": etag, "cache-control": "private, no-cache", "accept-ranges": "bytes"}
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    if not range_applies(request.headers.get("if-range"), etag):
        asked = None
    part = requested_span(asked, described.size_bytes)
    span = part or Span(0, described.size_bytes)
    headers |= {
        "content-type": content_type_header(described.content_type),
        "content-length": str(span.length),
        "content-disposition": disposition(described.filename, described.content_type),
        "x-content-type-options": "nosniff",
    }
    if part is not None:
        headers["content-range"] = part.content_range(described.size_bytes)
    status = 206 if part is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return _Download(await open_span(span), status_code=status, headers=headers)


class _Download(StreamingResponse):
    """Lets go of the store as soon as the client is gone."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # ours is a generator
            await super().stream_response(send)
