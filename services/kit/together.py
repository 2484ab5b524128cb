"""Lets tasks go on at the same moments, so that what they then send travels together."""

from __future__ import annotations

import asyncio


class Together:
    """A gate that opens `seconds` after somebody came to it, for all who have come till then."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._opening: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when the gate next opens."""
        if self._opening is None:
            loop = asyncio.get_running_loop()
            self._opening = loop.create_future()
            loop.call_later(self._seconds, self._open, self._opening)
        await asyncio.shield(self._opening)

    def _open(self, opening: asyncio.Future[None]) -> None:
        self._opening = None
        opening.set_result(None)
