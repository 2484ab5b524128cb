"""The beginning of a stop: no more traffic, and in the end no reader is cut off in mid-sentence."""

from __future__ import annotations

import asyncio
import logging

from services.intake.streaming.hubs import Hubs
from services.kit.health import Health

logger = logging.getLogger(__name__)


async def _no_more() -> bool:
    return False


class Draining:
    """Stops first. Readiness says no at once; requests are still taken for `delay_seconds`.

    From then on what is under way has `drain_seconds` to end. After that every reader gets what is
    here and is let go, to resume at another replica: responses run elsewhere and go on.
    """

    def __init__(
        self, health: Health, hubs: Hubs, *, delay_seconds: float, drain_seconds: float
    ) -> None:
        self._health = health
        self._hubs = hubs
        self._delay_seconds = delay_seconds
        self._drain_seconds = drain_seconds

    async def start(self) -> None:
        """Do nothing: this part is there for the stop alone."""

    async def stop(self) -> None:
        """Say no to load balancers, wait until they know, and set the time for those who read."""
        self._health.readiness["traffic"] = _no_more
        if self._delay_seconds > 0:
            logger.info("not ready any more, taking requests for %g s", self._delay_seconds)
            await asyncio.sleep(self._delay_seconds)
        asyncio.get_running_loop().call_later(self._drain_seconds, self._hubs.drain)
