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
    """How often and how patiently to try: `attempts` in all, pauses up to `longest_seconds`.

    `within_seconds` is for all tries and pauses together: what hangs uses up the time where what
    fails at once uses up the attempts.
    """

    attempts: int = 5
    first_seconds: float = 0.1
    longest_seconds: float = 5.0
    within_seconds: float | None = None

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after that many failures (1 or more), with full jitter."""
        # A float has no room for 2 to the power of every count.
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        ceiling = min(self.longest_seconds, self.first_seconds * 2**doublings)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret


TWO_MINUTES = Backoff(attempts=60, first_seconds=0.05, longest_seconds=2.0, within_seconds=120.0)
"""For what must not be lost while a part is away, and can't be waited for without end."""


async def retry(
    action: Callable[[], Awaitable[Result]],
    *,
    on: tuple[type[BaseException], ...],
    backoff: Backoff,
) -> Result:
    """Run `action` until it succeeds; re-raises its last error when attempts or time are used up.

    When the time is over no try begins any more, and one under way is cancelled. Only the first is
    not watched, since most need no other: its own bound must be below that of the whole.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        return await action()
    except on as error:
        last = error
    deadline = None if backoff.within_seconds is None else began + backoff.within_seconds
    for failures in range(1, backoff.attempts):
        pause = backoff.pause(failures)
        if deadline is not None and loop.time() + pause >= deadline:
            break
        await asyncio.sleep(pause)
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await action()
        except on as error:
            if limit.expired():
                break
            last = error
        except TimeoutError:
            if not limit.expired():
                raise
            break
    raise last
