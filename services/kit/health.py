"""Health: what must hold for the process to stay (liveness) and to get traffic (readiness)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.kit.clock import Clock

Probe = Callable[[], Awaitable[bool]]
_PROBE_SECONDS = 3.0


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


class ProgressWatch:
    """Notices a consumer that has messages waiting and no longer moves.

    `lag` returns the messages waiting, or None before it is known.
    """

    def __init__(self, lag: Callable[[], int | None], clock: Clock, *, seconds: float) -> None:
        self._lag = lag
        self._clock = clock
        self._seconds = seconds
        self._last: int | None = None
        self._moved_at = clock.monotonic()
        self._handled = 0

    def handled(self, messages: int) -> None:
        """Tell that work was done: the consumer moves, however much is still waiting."""
        self._handled += messages
        self._moved_at = self._clock.monotonic()

    async def moving(self) -> bool:
        """Whether nothing waits, or something was handled within the bound."""
        lag = self._lag()
        if not lag or self._last is None or lag < self._last:
            self._moved_at = self._clock.monotonic()
        self._last = lag
        return self._clock.monotonic() - self._moved_at < self._seconds
