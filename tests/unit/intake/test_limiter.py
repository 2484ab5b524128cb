"""The limiter before stores that hang, fail or have bugs: nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.intake.admission.limiter import Ask, Patience, RateLimiter, Settlement
from services.intake.admission.limits import Limits, Standing, Use, take
from services.intake.errors import ApiError
from tests.unit.intake.apps import HandClock

LIMITS = Limits(3, 100)
QUICK = Patience(answer_seconds=0.05, pause_seconds=2.0, batch=4, waiting=6)


class Store:
    """Judges in memory; hangs while `held`, raises `error` when there is one."""

    def __init__(self) -> None:
        self.use = Use()
        self.error: Exception | None = None
        self.held = False
        self.free = asyncio.Event()
        self.batches: list[int] = []
        self.settled: list[Settlement] = []

    async def take(self, asks: Sequence[Ask]) -> list[Standing]:
        self.batches.append(len(asks))
        if self.held:
            try:
                await asyncio.Event().wait()
            finally:
                # As a driver that wants to tell a server that hangs.
                await self.free.wait()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        found = []
        for ask in asks:
            found.append(take(self.use, ask.limits, tokens=ask.tokens, now=0))
            self.use = found[-1].use
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settled += settlements


def ask(number: int = 1, tokens: int = 1) -> Ask:
    return Ask("key_a", LIMITS, f"resp_{number}", tokens)


async def admitted(limiter: RateLimiter, count: int) -> int:
    found = await asyncio.gather(
        *(limiter.standing(ask(number)) for number in range(count)), return_exceptions=True
    )
    return sum(isinstance(one, Standing) and one.admitted for one in found)


async def test_requests_that_wait_go_together_and_the_rest_with_the_next() -> None:
    store = Store()
    limiter = RateLimiter(store, HandClock(), QUICK)
    assert await admitted(limiter, 6) == 3
    assert store.batches == [4, 2]


async def test_a_store_that_hangs_is_left_alone_for_a_while() -> None:
    store, clock = Store(), HandClock()
    limiter = RateLimiter(store, clock, QUICK)
    assert (await limiter.admit(ask())).use.requests == 1
    store.held = True
    async with asyncio.timeout(5):
        assert await admitted(limiter, 4) == 2
        clock.seconds = 1.9
        assert await admitted(limiter, 4) == 0
    assert len(store.batches) == 2
    store.held = False
    clock.seconds = 2.1
    async with asyncio.timeout(5):
        assert await admitted(limiter, 1) == 1
    assert len(store.batches) == 3
    store.free.set()
    await limiter.stop()


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
async def test_without_a_store_the_limit_holds_here(error: Exception) -> None:
    store, clock = Store(), HandClock()
    store.error = error
    limiter = RateLimiter(store, clock, QUICK)
    assert await admitted(limiter, 6) == 3
    clock.seconds = 20
    assert await admitted(limiter, 6) == 1
    with pytest.raises(ApiError) as caught:
        await limiter.admit(ask())
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")


async def test_after_a_bug_nobody_waits_for_ever() -> None:
    store = Store()
    store.error = ZeroDivisionError()
    limiter = RateLimiter(store, HandClock(), QUICK)
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await limiter.admit(ask())
    sender = limiter._sender
    if sender is not None:
        with pytest.raises(ZeroDivisionError):
            await sender
    store.error = None
    assert await admitted(limiter, 1) == 1


async def test_more_than_may_wait_are_turned_away() -> None:
    limiter = RateLimiter(Store(), HandClock(), QUICK)
    found = await asyncio.gather(
        *(limiter.standing(ask(number)) for number in range(8)), return_exceptions=True
    )
    codes = [one.code for one in found if isinstance(one, ApiError)]
    assert codes == ["server_overloaded"] * 2


async def test_work_that_fails_gives_back_and_its_error_says_how_the_key_stands() -> None:
    store = Store()
    limiter = RateLimiter(store, HandClock(), QUICK)

    async def refused() -> None:
        raise ApiError(404, "no such conversation")

    with pytest.raises(ApiError) as caught:
        await limiter.run(ask(tokens=40), refused)
    assert (b"x-ratelimit-remaining-tokens", b"60") in caught.value.headers
    await limiter.stop()
    assert [(one.response_id, one.tokens) for one in store.settled] == [("resp_1", 0)]
