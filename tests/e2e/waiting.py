"""Waiting for what other processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

BOUND_S = 30.0
POLL_S = 0.03

Found = TypeVar("Found")


async def until(condition: Callable[[], object], what: str, *, bound_s: float = BOUND_S) -> None:
    """Return once `condition` holds; fails with the sentence `what` when it doesn't in time."""
    deadline = asyncio.get_running_loop().time() + bound_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {bound_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


async def found(
    seek: Callable[[], Awaitable[Found | None]], what: str, *, bound_s: float = BOUND_S
) -> Found:
    """Return the first result of `seek` that is neither None nor empty; fails as `until` does."""
    deadline = asyncio.get_running_loop().time() + bound_s
    while not (result := await seek()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {bound_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return result
