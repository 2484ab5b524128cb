"""Uvicorn's protocols as the services use them: a client that stands still is cut off in time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.kit.joined_writes import JoinedWrites


class StallGuard(asyncio.Protocol):
    """Cuts a connection whose client takes no byte for `stall_seconds` although some wait for it.

    Stands before one of uvicorn's protocols among the bases of a class. It is told only of a
    transport's buffer that is full, so what flows costs nothing.
    """

    stall_seconds = 60.0
    transport: asyncio.Transport
    _stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._end_stall()
        loop = asyncio.get_running_loop()
        # What is buffered is dropped then.
        self._stall = loop.call_later(self.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._end_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end_stall()
        super().connection_lost(exc)

    def _end_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


class Http(StallGuard, HttpToolsProtocol):
    """Uvicorn's HTTP protocol with a bound on clients that stop reading, or sending."""

    _body: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport)))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._body is not None:
            self._body.cancel()
            self._body = None
        # Most bodies come with their heads, and cost no timer.
        if self.cycle is not None and self.cycle.more_body:
            self._await_body()

    def _await_body(self) -> None:
        loop = asyncio.get_running_loop()
        self._body = loop.call_later(self.stall_seconds, self._body_stalled)

    def _body_stalled(self) -> None:
        if self.flow.read_paused:
            # It is we who do not read on.
            self._await_body()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._body is not None:
            self._body.cancel()
        super().connection_lost(exc)


def http_protocol(*, stall_seconds: float) -> type[Http]:
    """Return the protocol with that bound."""
    return type("Http", (Http,), {"stall_seconds": stall_seconds})
