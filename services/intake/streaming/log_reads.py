"""How many read a partition's past at once: each has a Kafka consumer of its own."""

from __future__ import annotations

import asyncio

from services.intake.errors import ApiError, unavailable


class LogRead:
    """The right to read the past of one partition, until `done`, but `seconds` at most.

    Who reads on after that is counted no more: a client that takes its past in drops keeps nobody
    from theirs.
    """

    __slots__ = ("_room", "_timer")

    def __init__(self, room: asyncio.Semaphore, *, seconds: float) -> None:
        self._room: asyncio.Semaphore | None = room
        self._timer = asyncio.get_running_loop().call_later(seconds, self.done)

    def done(self) -> None:
        """Let the next one read. Idempotent."""
        self._timer.cancel()
        room, self._room = self._room, None
        if room is not None:
            room.release()


class LogReads:
    """Lets `most` read at once, each for `hold_seconds` at most.

    `most_waiting` more wait in their order, for `wait_seconds`.
    """

    def __init__(
        self, *, most: int, most_waiting: int, wait_seconds: float, hold_seconds: float
    ) -> None:
        self._room = asyncio.Semaphore(most)
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._hold_seconds = hold_seconds
        self._waiting = 0

    async def begin(self) -> LogRead:
        """Return the right to read, which the caller gives back; raises `ApiError` (503)."""
        if self._waiting >= self._most_waiting:
            raise _crowded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._room.acquire()
        except TimeoutError as error:
            raise _crowded() from error
        finally:
            self._waiting -= 1
        return LogRead(self._room, seconds=self._hold_seconds)


def _crowded() -> ApiError:
    return unavailable("Too many streams are being resumed on this server, try again.")
