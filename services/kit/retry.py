"""Bounded retries with exponential backoff and full jitter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How often and how patiently to try: `attempts` in all, pauses up to `longest_seconds`."""

    attempts: int = 5
    first_seconds: float = 0.1
    longest_seconds: float = 5.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after that many failures (1 or more), with full jitter."""
        # A float has no room for 2 to the power of every count.
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        ceiling = min(self.longest_seconds, self.first_seconds * 2**doublings)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret


async def retry(
    action: Callable[[], Awaitable[Result]],
    *,
    on: tuple[type[BaseException], ...],
    backoff: Backoff,
) -> Result:
    """Run `action` until it succeeds; re-raises its last error when the attempts are used up."""
    failures = 0
    while True:
        try:
            return await action()
        except on:
            failures += 1
            if failures >= backoff.attempts:
                raise
            await asyncio.sleep(backoff.pause(failures))
