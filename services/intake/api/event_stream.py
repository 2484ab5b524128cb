"""The answer that tells a stream again: it begins once the log may be read for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.intake.streaming.log_reads import LogRead

Tell = Callable[[LogRead], AsyncIterator[bytes]]


class EventStream(StreamingResponse):
    """Server-sent events from the past on.

    Raises `ApiError` (503) when it is called and there is no room to read; nothing is sent then.
    """

    def __init__(
        self,
        tell: Tell,
        begin: Callable[[], Awaitable[LogRead]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            (),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})},
        )
        self._tell = tell
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for room, then send; the room is free again whatever becomes of the client."""
        read = await self._begin()
        try:
            self.body_iterator = self._tell(read)
            await super().__call__(scope, receive, send)
        finally:
            read.done()
