"""Health: what must hold for the process to stay (liveness) and to get traffic (readiness)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from services.kit.clock import Clock

Probe = Callable[[], Awaitable[bool]]
_PROBE_SECONDS = 3.0
_ANSWER_SECONDS = 2.0
_ASKS = 6
"""How often within its bound a reader that stands still is asked what waits for it."""


@dataclass
class Health:
    """Named probes. A probe that raises or takes longer than 3 s has failed."""

    readiness: dict[str, Probe] = field(default_factory=dict)
    liveness: dict[str, Probe] = field(default_factory=dict)

    async def ready(self) -> dict[str, str]:
        """Return `ok` or the reason for each readiness probe; liveness is part of it."""
        return await _ask({**self.liveness, **self.readiness})

    async def alive(self) -> dict[str, str]:
        """Return `ok` or the reason for each liveness probe."""
        return await _ask(self.liveness)


async def _ask(probes: dict[str, Probe]) -> dict[str, str]:
    async def one(probe: Probe) -> str:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                return "ok" if await probe() else "not ready"
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:200]

    results = await asyncio.gather(*(one(probe) for probe in probes.values()))
    return dict(zip(probes, results, strict=True))


class Reader(Protocol):
    """Something that reads topics."""

    def progress(self) -> object:
        """Return a value that is another one whenever something was handled, or tried again."""
        ...

    async def waiting(self) -> int | None:
        """Return the messages that are not handled, as the broker knows at this moment.

        None when nothing is assigned yet; raises when the broker does not answer.
        """
        ...


class ProgressWatch:
    """Notices a reader that has messages waiting and no longer moves, whatever stopped it.

    What the reader believes is not asked: one that does not fetch any more believes that nothing
    waits. While the broker does not answer nobody is stuck: a restart would mend nothing.
    """

    def __init__(self, reader: Reader, clock: Clock, *, seconds: float) -> None:
        self._reader = reader
        self._clock = clock
        self._seconds = seconds
        self._last: object = None
        self._asked_at = float("-inf")
        self._stuck_since: float | None = None

    def handled(self, messages: int) -> None:  # noqa: ARG002 - for callers that count
        """Tell that work was done: the reader moves, however much is still waiting."""
        self._stuck_since = None

    async def moving(self) -> bool:
        """Whether nothing waits, or something was handled within the bound."""
        progress, now = self._reader.progress(), self._clock.monotonic()
        if progress != self._last:
            self._last = progress
            self._stuck_since = None
            return True
        if now - self._asked_at >= self._seconds / _ASKS:
            self._asked_at = now
            if not await self._waiting():
                self._stuck_since = None
            elif self._stuck_since is None:
                self._stuck_since = now
        return self._stuck_since is None or now - self._stuck_since < self._seconds

    async def _waiting(self) -> int | None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._reader.waiting()
        except Exception:
            # An outage, of which others tell.
            return None
