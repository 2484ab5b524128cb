"""Uvicorn's WebSocket protocol as a service uses it: bounded, and told of a stop in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from services.kit.stalls import StallGuard

DRAIN = "websocket.drain"
"""What an application receives when the server stops: an addition to ASGI's messages.

The server would close every socket at once. Here the application does it, when what runs has
ended; when the server's patience does, its task is cancelled.
"""


class WebSocket(StallGuard, WebSocketsSansIOProtocol):
    """Uvicorn's WebSocket protocol with a bound on clients that stop reading, and `DRAIN`."""

    def shutdown(self) -> None:
        """Tell the application that the server stops; close what has not begun, or has ended."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait(cast(Any, {"type": DRAIN}))
        else:
            super().shutdown()


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """`ping_seconds` is also how long an answer to a ping may take."""

    max_message_bytes: int
    ping_seconds: float
    stall_seconds: float

    def protocol(self) -> type[WebSocket]:
        """Return the protocol class for uvicorn."""
        return type("WebSocket", (WebSocket,), {"stall_seconds": self.stall_seconds})
