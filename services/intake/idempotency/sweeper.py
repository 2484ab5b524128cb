"""Deletes idempotency keys that are too old, a bounded batch at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from services.kit.outages import OUTAGES
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)
_EVERY_SECONDS = 60.0
_MOST = 1_000
_MOST_BATCHES = 200


class OldKeys(Protocol):
    """Where keys grow old."""

    async def forget(self, *, most: int) -> int:
        """Delete up to `most` keys that are too old; return how many there were."""
        ...


class IdempotencySweeper:
    """Sweeps every minute; all replicas may do so side by side.

    At most 200,000 keys go in one sweep, more than are made in a minute.
    """

    def __init__(self, keys: OldKeys, *, every_seconds: float = _EVERY_SECONDS) -> None:
        self._keys = keys
        self._every_seconds = every_seconds
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin to sweep."""
        self._tasks.spawn(self._run(), name="sweep idempotency keys")

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._tasks.stop()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                for _ in range(_MOST_BATCHES):
                    if await self._keys.forget(most=_MOST) < _MOST:
                        break
            except OUTAGES as error:
                logger.warning("old idempotency keys stay until the next sweep: %r", error)
