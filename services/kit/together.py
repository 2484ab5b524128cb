"""Lets tasks go on at the same moments, so that what they then send travels together."""

from __future__ import annotations

import asyncio


class Together:
    """A gate that opens `seconds` after somebody came to it, for all who have come till then."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        # One each: a shared future would have to be shielded, which costs several times as much.
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return when the gate next opens."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(self._seconds, self._open)
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _open(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
