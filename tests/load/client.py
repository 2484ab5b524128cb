"""One connection of the load generator: a request, and all of its answer or an OSError."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httptools

from tests.load.window import Reads

CHUNKS_END = b"\r\n\r\n"
"""What a chunked body ends with, with trailers or without."""


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self.body = b""
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._on_data: Callable[[bytes], None] | None = None
        self._reads: Reads | None = None
        self._parsed_reads = 0
        self._is_chunked = False
        self._has_ended = False
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed in mid-answer"))

    def ask(
        self,
        request: bytes,
        *,
        on_data: Callable[[bytes], None] | None = None,
        reads: Reads | None = None,
    ) -> asyncio.Future[int]:
        """Send a request; the future gives the status of the whole answer, or raises OSError.

        The answer's bytes go to `on_data` as they come, else they are in `body` at the end. With
        `reads` a chunked answer is only collected there, and parsed once it may have ended.
        """
        self._parts, self._on_data, self._has_ended = [], on_data, False
        self._reads, self._parsed_reads, self._is_chunked = reads, 0, False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if (reads := self._reads) is not None:
            reads.add(data, time.monotonic())
            if self._is_chunked:
                # These may be bytes of the body too: then the parser waits for more, and so do we.
                # A shorter read may be the last part of the end.
                if len(data) >= len(CHUNKS_END) and not data.endswith(CHUNKS_END):
                    return
                data = b"".join(reads.parts[self._parsed_reads :])
            self._parsed_reads = len(reads.parts)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()
            return
        if self._on_data is not None and self._parts:
            self._on_data(b"".join(self._parts))
            self._parts = []
        if self._has_ended and self._answer is not None and not self._answer.done():
            self.body = b"".join(self._parts)
            self._answer.set_result(self._parser.get_status_code())

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"transfer-encoding":
            self._is_chunked = b"chunked" in value.lower()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._has_ended = True
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        self._transport.close()
