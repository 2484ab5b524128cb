"""The handshake of `/v1/responses` as a WebSocket, bare ASGI: who may open one, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from opentelemetry import metrics

from services.intake.admission.keys import ApiKeys
from services.intake.admission.seats import SeatBounds, Seats
from services.intake.api.create import Receive, Scope, Send, header
from services.intake.api.websocket_connection import Common, Connection
from services.intake.errors import ApiError, unavailable
from services.intake.sockets.lanes import MOST_RUNNING
from services.intake.sockets.sessions import Sessions
from services.kit.ids import new_id


@dataclass(frozen=True, slots=True)
class SocketBounds:
    """How many connections there may be, and how long and how much each.

    From `fair_from` (0 to 1) of all connections on a key has its share of them only.
    """

    max_connections: int
    max_seconds: float
    max_message_bytes: int
    fair_from: float = 0.8


class WebSocketEndpoint:
    """Takes connections and gives each a session of its own."""

    def __init__(
        self, sessions: Sessions, keys: ApiKeys, bounds: SocketBounds, seats: Seats | None = None
    ) -> None:
        self._bounds = bounds
        self._common = Common(
            sessions,
            keys,
            seats or Seats(SeatBounds(most=bounds.max_connections * MOST_RUNNING + 1)),
            max_seconds=bounds.max_seconds,
            max_message_bytes=bounds.max_message_bytes,
            counted=self._counted,
        )
        self._connections = Seats(
            SeatBounds(bounds.max_connections, fair_from=bounds.fair_from), kind="websockets"
        )
        meter = metrics.get_meter("antiphon")
        self._sockets = meter.create_up_down_counter(
            "antiphon.intake.websockets", description="WebSockets that are open"
        )
        self._count = meter.create_counter(
            "antiphon.intake.websocket.turns", description="Orders over WebSockets by status"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from its handshake on."""
        await receive()
        try:
            authorization = header(scope, b"authorization").decode("latin-1")
            key_id = self._common.keys.authenticate(authorization).key_id
            if self._connections.open >= self._bounds.max_connections:
                raise unavailable("Too many WebSockets are open on this server.")
            place = self._connections.take(key_id)
        except ApiError as error:
            await refuse_handshake(send, error)
            return
        self._sockets.add(1)
        waiting = self._common.seats.body(key_id)
        try:
            await Connection(self._common, authorization, waiting, receive, send).run()
        finally:
            waiting.drop()
            place.leave()
            self._sockets.add(-1)

    def _counted(self, status: int) -> None:
        self._count.add(1, {"status": status})


async def refuse_handshake(send: Send, error: ApiError) -> None:
    """Answer a handshake with an HTTP error in the API's shape."""
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", new_id("req").encode()),
        *error.headers,
    ]
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
    await send(
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(error.body())})
