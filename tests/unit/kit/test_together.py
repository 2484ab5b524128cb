"""The gate at which senders meet."""

from __future__ import annotations

import asyncio

import pytest

from services.kit.together import Together


async def test_all_who_came_go_on_at_the_same_moment() -> None:
    gate = Together(seconds=0.01)
    loop = asyncio.get_running_loop()
    went: list[tuple[str, float]] = []

    async def pass_through(name: str) -> None:
        await gate.wait()
        went.append((name, loop.time()))

    first = asyncio.create_task(pass_through("first"))
    await asyncio.sleep(0)
    second = asyncio.create_task(pass_through("second"))
    await asyncio.gather(first, second)
    await pass_through("later")
    assert [name for name, _ in went] == ["first", "second", "later"]
    assert went[1][1] - went[0][1] < went[2][1] - went[1][1]


async def test_one_who_gives_up_holds_up_nobody() -> None:
    gate = Together(seconds=0.01)
    waiting = asyncio.create_task(gate.wait())
    other = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await other
