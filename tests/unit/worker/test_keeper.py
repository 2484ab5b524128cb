"""Leases that are renewed while the database is away for a moment, or a connection hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from services.worker.leases.keeper import LeaseKeeper
from services.worker.leases.rules import Claim, CommandPlace

SECONDS = 1.2


class Flaky:
    """Renews everything once the trouble is over."""

    def __init__(self, *, fails: int = 0, hangs: int = 0) -> None:
        self.fails = fails
        self.hangs = hangs
        self.renewed = asyncio.Event()

    async def renew(self, held: Sequence[tuple[str, int]]) -> dict[str, bool]:
        if self.hangs:
            self.hangs -= 1
            await asyncio.Event().wait()
        if self.fails:
            self.fails -= 1
            raise OSError("away")
        self.renewed.set()
        return {response_id: False for response_id, _ in held}

    async def claim(self, commands: Sequence[CommandPlace]) -> dict[str, Claim]:
        return {one.response_id: Claim(1, cancelled=False) for one in commands}

    async def finish(
        self, held: Sequence[tuple[str, int]], *, checkpointed: Sequence[str] = ()
    ) -> None: ...

    async def release(
        self, held: Sequence[tuple[str, int]], *, orderly: bool, again_after_seconds: float
    ) -> list[CommandPlace]:
        return []


@pytest.mark.parametrize("trouble", [lambda: Flaky(fails=3), lambda: Flaky(hangs=1)])
async def test_a_lease_outlasts_what_is_over_in_less_than_its_time(
    trouble: Callable[[], Flaky],
) -> None:
    fatal: list[BaseException] = []
    store = trouble()
    keeper = LeaseKeeper(store, seconds=SECONDS, on_fatal=fatal.append)
    began = time.monotonic()
    keeper.hold({"resp_1": 1}, since=began)
    await keeper.start()
    try:
        async with asyncio.timeout(5):
            await store.renewed.wait()
        assert time.monotonic() - began < SECONDS
        assert keeper.sure("resp_1", 1)
    finally:
        await keeper.stop()
    assert fatal == []
