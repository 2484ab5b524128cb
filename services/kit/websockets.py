"""Uvicorn's WebSocket protocol as a service uses it: bounded, and told of a stop in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.kit.stalls import Stall

DRAIN = "websocket.drain"
"""What an application receives when the server stops: an addition to ASGI's messages.

The server would close every socket at once. Here the application does it, when what runs has
ended; when the server's patience does, its task is cancelled.
"""


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """`ping_seconds` is also how long an answer to a ping may take."""

    max_message_bytes: int
    ping_seconds: float
    stall_seconds: float

    def protocol(self) -> type[WebSocketsSansIOProtocol]:
        """Return the protocol class for uvicorn."""
        stall_seconds = self.stall_seconds

        class WebSocket(WebSocketsSansIOProtocol):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._stall = Stall(stall_seconds)

            def shutdown(self) -> None:
                if self.handshake_complete and not self.close_sent:
                    self.queue.put_nowait(cast(Any, {"type": DRAIN}))
                else:
                    super().shutdown()

            def pause_writing(self) -> None:
                super().pause_writing()
                self._stall.begin(self.transport)

            def resume_writing(self) -> None:
                super().resume_writing()
                self._stall.end()

            def connection_lost(self, exc: Exception | None) -> None:
                self._stall.end()
                super().connection_lost(exc)

        return WebSocket
