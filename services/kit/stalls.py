"""Uvicorn's protocols as the services use them: a client that stands still is cut off in time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.kit.joined_writes import JoinedWrites


class Stall:
    """Cuts a connection whose client takes no byte for so long although some wait for it.

    It is asked for only when a transport's buffer is full, so what flows costs nothing.
    """

    __slots__ = ("_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Abort the transport later; what is buffered for it is dropped then."""
        self.end()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, transport.abort)

    def end(self) -> None:
        """The client reads on, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Http(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with a bound on clients that stop reading, or sending."""

    stall_seconds = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stall = Stall(self.stall_seconds)
        self._body: asyncio.TimerHandle | None = None

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

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._stall.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stall.end()
        if self._body is not None:
            self._body.cancel()
        super().connection_lost(exc)


def http_protocol(*, stall_seconds: float) -> type[Http]:
    """Return the protocol with that bound."""
    return type("Http", (Http,), {"stall_seconds": stall_seconds})
