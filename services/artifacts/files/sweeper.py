"""Removes files when their time is over, and what uploads that broke off left behind."""

from __future__ import annotations

import asyncio
import logging

from services.artifacts.files.service import Files
from services.kit.outages import OUTAGES
from services.kit.tasks import TaskSet

logger = logging.getLogger(__name__)


class FileSweeper:
    """Sweeps every `every_seconds`; replicas may do it at the same time."""

    def __init__(self, files: Files, *, every_seconds: float) -> None:
        self._files = files
        self._every_seconds = every_seconds
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin to sweep."""
        self._tasks.spawn(self._run(), name="sweep files")

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._tasks.stop()

    async def _run(self) -> None:
        while True:
            try:
                if removed := await self._files.sweep():
                    logger.info("removed %d files whose time was over", removed)
            except OUTAGES as error:
                logger.warning("files could not be swept, trying again later: %r", error)
            await asyncio.sleep(self._every_seconds)
