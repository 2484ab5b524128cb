"""Live answers: one reader of one response each, and what all of them may hold."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from contracts.packs import Entry, Flag

HEARTBEAT = b": heartbeat\n\n"
UNBOUNDED = 1 << 62
"""No bound in bytes on what all followers hold: each has one of its own."""


class SlowReaderError(Exception):
    """A client read so slowly that its buffer reached the bound; it may resume."""


class DrainedError(Exception):
    """This process stops and the response goes on; its reader may resume at another."""


@dataclass(slots=True)
class _Fence:
    """The newest (attempt, index) seen: older attempts and repeated packs are dropped."""

    attempt: int = 0
    index: int = -1

    def admits(self, entry: Entry) -> bool:
        if (entry.attempt, entry.index) <= (self.attempt, self.index):
            return False
        self.attempt, self.index = entry.attempt, entry.index
        return True


class Buffers:
    """What all followers of a process hold; above `limit_bytes` those go that hold the most."""

    __slots__ = ("_limit_bytes", "bytes", "readers")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.bytes = 0
        self.readers = 0

    def crowded_by(self, held: int) -> bool:
        """Whether there is too much, and a follower that would hold so much has more than most."""
        return self.bytes > self._limit_bytes and held * self.readers > self._limit_bytes


class Follower:
    """One reader of one response. `next` gives entries in order; the buffer is bounded in bytes."""

    def __init__(self, response_id: str, *, limit_bytes: int) -> None:
        self.buffers = Buffers(UNBOUNDED)
        self.response_id = response_id.encode()
        self._limit_bytes = limit_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._fence = _Fence()
        self._waiter: asyncio.Future[None] | None = None
        self._overflowed = False
        self._complete = False
        self._left = False
        self._drained = False

    def push(self, entry: Entry) -> None:
        """Take an entry from the tail; called for each once, never blocks.

        Nothing follows the last one: the mark of an attempt that found it there is nobody's.
        """
        if self._complete or not self._fence.admits(entry):
            return
        size = len(entry.payload)
        held = self._bytes + size
        if self._entries and (held > self._limit_bytes or self.buffers.crowded_by(held)):
            self._overflowed = self._complete = True
            # The reader may stay stuck for long: nothing is held for it meanwhile.
            self.drop()
        else:
            self._entries.append(entry)
            self._bytes = held
            self.buffers.bytes += size
            if entry.flags & Flag.LAST:
                self._complete = True
        self._wake()

    def drop(self) -> None:
        """Let go of what nobody took."""
        self._entries.clear()
        self.buffers.bytes -= self._bytes
        self._bytes = 0

    def beat(self) -> None:
        """Queue a heartbeat when nothing else is there to keep the connection alive."""
        if not self._entries and not self._overflowed:
            self._entries.append(Entry(self.response_id, 0, 0, HEARTBEAT))
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """End the wait of a reader that will not read on: its `take` returns nothing."""
        self._left = True
        self._wake()

    def drain(self) -> None:
        """Let the reader have what is here, and then know that this process stops."""
        self._drained = True
        self._wake()

    async def take(self) -> list[Entry]:
        """Return everything that has come since; waits for at least one entry.

        Raises `SlowReaderError` once the buffer went over its bound, `DrainedError` when nothing
        more will come here.
        """
        while not (self._entries or self._left or self._overflowed or self._drained):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._overflowed:
            raise SlowReaderError
        if self._drained and not (self._entries or self._left):
            raise DrainedError
        entries = list(self._entries)
        self.drop()
        return entries
