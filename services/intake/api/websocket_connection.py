"""One WebSocket of `/v1/responses`: orders in, events out, from its accept to its close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import orjson

from services.intake.admission.keys import ApiKey, ApiKeys
from services.intake.admission.seats import Body, Seats
from services.intake.api.create import Receive, Send
from services.intake.api.refusals import refusal_of
from services.intake.errors import ApiError, invalid, unavailable
from services.intake.sockets.frames import error_event, steer_failed
from services.intake.sockets.lanes import (
    MOST_RUNNING,
    Create,
    Lane,
    Lanes,
    lane_of,
    read_create,
    read_event,
)
from services.intake.sockets.sessions import Sessions
from services.intake.streaming.followers import DrainedError, SlowReaderError
from services.kit.ids import new_id
from services.kit.websockets import DRAIN

_RESTART = 1012
_GOING_AWAY = 1001
_TRY_LATER = 1013
_FAREWELL_SECONDS = 1.0


class _GoneError(Exception):
    """The client left."""


@dataclass(slots=True)
class _Ending:
    """Why a connection takes no more orders, and how it closes once the running ones are done."""

    refusal: ApiError
    code: int
    announced: bool


@dataclass(frozen=True, slots=True)
class Common:
    """What all connections have in common; `counted` gets the status of each order's answer."""

    sessions: Sessions
    keys: ApiKeys
    seats: Seats
    max_seconds: float
    max_message_bytes: int
    counted: Callable[[int], None]


@dataclass
class Connection:
    """One socket: reads orders, runs their lanes, writes events.

    `waiting` is what its orders weigh until they are answered.
    """

    common: Common
    authorization: str
    waiting: Body
    receive: Receive
    send: Send
    session: str = field(default_factory=lambda: new_id("sess"))

    def __post_init__(self) -> None:
        self._lanes = Lanes(max_queued_bytes=self.common.max_message_bytes)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MOST_RUNNING)
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: _Ending | None = None

    async def run(self) -> None:
        """Serve until the client leaves, the server stops or the connection's time is over."""
        request_id = new_id("req").encode()
        await self.send({"type": "websocket.accept", "headers": [(b"x-request-id", request_id)]})
        end = asyncio.create_task(self._end())
        try:
            while True:
                message = await self.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message["type"] == DRAIN:
                    self._draining.set()
                else:
                    await self._take(message.get("text"))
        except _GoneError:
            return
        except asyncio.CancelledError:
            await self._close(_RESTART)
            raise
        finally:
            tasks = [end, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.common.sessions.end(self.session, self._lanes.all())

    async def _take(self, text: str | None) -> None:
        """Act on one message of the client."""
        stream_id = None
        try:
            if text is None:
                raise invalid("Events are text, not binary.", param=None, code="invalid_event")
            event = read_event(text)
            kind = event["type"]
            if kind == "response.processed":
                # A note that the client is done with a response; nothing is kept for it alone.
                return
            if kind == "response.steer":
                await self._tell(orjson.dumps(steer_failed(event)).decode())
                return
            if kind != "response.create":
                raise invalid(
                    f"Unknown event type: '{kind}'. Expected 'response.create'.",
                    param="type",
                    code="unknown_event_type",
                )
            stream_id = lane_of(event)
            if self._ending is not None:
                raise self._ending.refusal
            self.waiting.grow(len(text))
            try:
                lane = self._lanes.put(read_create(event, size_bytes=len(text)))
            except ApiError:
                self.waiting.shrink(len(text))
                raise
        except ApiError as error:
            await self._refuse(error, stream_id)
            return
        if id(lane) not in self._running:
            self._idle.clear()
            self._running[id(lane)] = asyncio.create_task(self._run(lane))

    async def _run(self, lane: Lane) -> None:
        """Answer the orders of one lane, one after the other, until none waits."""
        try:
            while lane.queue:
                async with self._slots:
                    create = self._lanes.take(lane)
                    await self._answer(lane, create)
        except _GoneError:
            # The reader notices it too.
            return
        finally:
            del self._running[id(lane)]
            if not self._running:
                self._idle.set()

    async def _answer(self, lane: Lane, create: Create) -> None:
        status = 200
        seat = None
        try:
            if self._ending is not None:
                raise self._ending.refusal
            key = self._key()
            seat = self.common.seats.take(key.key_id)
            turn = self.common.sessions.turn(self.session, lane, create, key)
            async with aclosing(turn) as parts:
                async for texts in parts:
                    for text in texts:
                        await self._tell(text)
        except ApiError as error:
            status = error.status
            await self._refuse(error, create.stream_id)
        except SlowReaderError:
            status = 499
            await self._close(_TRY_LATER, "The client reads too slowly.")
        except DrainedError:
            status = 503
            await self._close(_RESTART, "This server restarts. The response goes on.")
        except _GoneError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, it is told
            refusal = refusal_of(error)
            status = refusal.status
            await self._refuse(refusal, create.stream_id)
        finally:
            # The order is kept as long as its response may need it for the next one.
            self.waiting.shrink(create.size_bytes)
            if seat is not None:
                seat.leave()
        self.common.counted(status)

    def _key(self) -> ApiKey:
        """Return the key as it is now: it may have been revoked since the handshake."""
        return self.common.keys.authenticate(self.authorization)

    async def _end(self) -> None:
        """Close the connection when its time is over or the server stops, after what runs."""
        limit = self.common.max_seconds
        try:
            async with asyncio.timeout(limit):
                await self._draining.wait()
            self._ending = _Ending(
                unavailable("This server restarts. Connect again."), _RESTART, announced=False
            )
        except TimeoutError:
            self._ending = _Ending(_limit_reached(limit), _GOING_AWAY, announced=True)
        await self._idle.wait()
        with suppress(_GoneError):
            if self._ending.announced:
                await self._refuse(self._ending.refusal, None)
            await self._close(self._ending.code, self._ending.refusal.message)

    async def _tell(self, text: str) -> None:
        try:
            await self.send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError) as error:
            # Uvicorn's words for a client that has left and for a socket that is closed.
            raise _GoneError from error

    async def _refuse(self, error: ApiError, stream_id: str | None) -> None:
        await self._tell(orjson.dumps(error_event(error, stream_id)).decode())

    async def _close(self, code: int, reason: str = "") -> None:
        """Say good-bye, within a bound: the client may not read."""
        with suppress(OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self.send({"type": "websocket.close", "code": code, "reason": reason})


def _limit_reached(seconds: float) -> ApiError:
    return invalid(
        f"Responses websocket connection limit reached ({round(seconds / 60)} minutes). "
        "Create a new websocket connection to continue.",
        param=None,
        code="websocket_connection_limit_reached",
    )
