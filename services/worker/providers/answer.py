"""An answer as it is read: with bounds on silence and length that cost no chunk anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp


class _Watch:
    """Fails the reading of a body that was silent for too long, or goes on for too long.

    Its one timer is set anew when it fires, not with each chunk.
    """

    def __init__(
        self, content: aiohttp.StreamReader, *, idle_seconds: float, total_seconds: float
    ) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._idle_seconds = idle_seconds
        self._until = self._loop.time() + total_seconds
        self.waits_since: float | None = None
        """When the reader began to wait for the next chunk; None while it does not."""
        self._timer = self._loop.call_later(min(idle_seconds, total_seconds), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self.waits_since is None else self.waits_since
        due = min(since + self._idle_seconds, self._until)
        if due <= now:
            self._content.set_exception(TimeoutError("the provider fell silent"))
        else:
            self._timer = self._loop.call_at(due, self._look)

    def end(self) -> None:
        self._timer.cancel()


class Answer:
    """A provider's answer whose status is below 400."""

    __slots__ = ("_idle_seconds", "_response", "_total_seconds")

    def __init__(
        self, response: aiohttp.ClientResponse, *, idle_seconds: float, total_seconds: float
    ) -> None:
        self._response = response
        self._idle_seconds = idle_seconds
        self._total_seconds = total_seconds

    @property
    def streams(self) -> bool:
        """Whether it is an event stream."""
        return "text/event-stream" in self._response.headers.get("content-type", "")

    async def read(self, *, most: int) -> bytes | None:
        """Return the body of an answer that was asked for as a whole; None above `most` bytes."""
        parts: list[bytes] = []
        while part := await self._response.content.readany():
            parts.append(part)
            most -= len(part)
            if most < 0:
                return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raises `TimeoutError` when it is silent or goes on too long.

        While the caller does not read on no silence is noticed.
        """
        content = self._response.content
        watch = _Watch(content, idle_seconds=self._idle_seconds, total_seconds=self._total_seconds)
        loop = asyncio.get_running_loop()
        try:
            while True:
                watch.waits_since = loop.time()
                chunk = await content.readany()
                watch.waits_since = None
                if not chunk:
                    return
                yield chunk
        finally:
            watch.end()
