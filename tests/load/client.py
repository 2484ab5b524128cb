"""One connection of the load generator, and the check that a stream is whole and its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httptools

END = b"\n\n"
_DELTA = re.compile(rb'"delta":\s*"(\d{10}) (\d+) (\d+) "')
_COMPLETED = re.compile(rb'"type":\s*"response\.completed"')


class StreamCheck:
    """Follows one stream: each delta once, in order, of this request, then completed."""

    def __init__(self, token: int, deltas: int) -> None:
        self._token = b"%010d" % token
        self._expected = deltas
        self._rest = b""
        self._seen = 0
        self._completed = False
        self._error: str | None = None

    def feed(self, data: bytes) -> tuple[int, list[int]]:
        """Take bytes; return the number of whole events and the send times (ns) of their deltas."""
        whole, end, self._rest = (self._rest + data).rpartition(END)
        if not end:
            return 0, []
        sent = []
        for token, number, sent_ns in _DELTA.findall(whole):
            if token != self._token:
                self._error = "foreign_delta"
            elif int(number) != self._seen or self._completed:
                self._error = "delta_order"
            self._seen += 1
            sent.append(int(sent_ns))
        self._completed = self._completed or _COMPLETED.search(whole) is not None
        return whole.count(b"data: {"), sent

    def verdict(self) -> str | None:
        """Name what is wrong with the stream that has ended; None if nothing is."""
        if self._error is None and not self._completed:
            return "not_completed"
        if self._error is None and self._seen != self._expected:
            return "delta_count"
        return self._error


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self.body = b""
        self._transport: Any = None
        self._parser: Any = None
        self._parts: list[bytes] = []
        self._on_data: Callable[[bytes], None] | None = None
        self._has_ended = False
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed in mid-answer"))

    def ask(self, request: bytes, on_data: Callable[[bytes], None] | None) -> asyncio.Future[int]:
        """Send a request; the future gives the status of the whole answer, or raises OSError.

        The answer's bytes go to `on_data` as they come, else they are in `body` at the end.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._parts, self._on_data, self._has_ended = [], on_data, False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
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
