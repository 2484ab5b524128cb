"""Room in memory for the files of jobs: a job waits for it before a byte is fetched."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from contracts.responses import AttachedFile

DEFAULT_BYTES = 256 * 1024 * 1024


class FileRoom:
    """At most `most_bytes` of files at once, as the base64 that jobs hold; first come first served.

    A job with more than that has its turn when it is alone.
    """

    def __init__(self, most_bytes: int = DEFAULT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held_bytes(self) -> int:
        """How much is given to jobs."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """How many jobs wait for room."""
        return len(self._waiting)

    @asynccontextmanager
    async def hold(self, files: Sequence[AttachedFile]) -> AsyncIterator[None]:
        """Wait until there is room for files, and keep it for the block."""
        size_bytes = sum(encoded_bytes(file.content.size_bytes) for file in files)
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._bytes -= size_bytes
            self._admit()

    async def _take(self, size_bytes: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size_bytes, turn)
        self._waiting.append(place)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._bytes -= size_bytes
            else:
                self._waiting.remove(place)
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if turn.cancelled():
                # Whoever waited takes itself out.
                return
            if self._bytes and self._bytes + size_bytes > self._most_bytes:
                return
            self._waiting.popleft()
            self._bytes += size_bytes
            turn.set_result(None)


def encoded_bytes(size_bytes: int) -> int:
    """Return how large a file is in base64."""
    return (size_bytes + 2) // 3 * 4
