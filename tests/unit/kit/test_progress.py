"""Who is stuck and who only waits: the rule behind liveness."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from services.kit.health import ProgressWatch

BOUND_SECONDS = 60.0


@dataclass
class HandClock:
    """A clock that moves when it is told to."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Played:
    """A reader, played by hand."""

    handled: int = 0
    left: int | None = 0
    away: bool = False
    hanging: bool = False
    asked: int = 0

    def progress(self) -> object:
        return self.handled

    async def waiting(self) -> int | None:
        self.asked += 1
        if self.away:
            raise OSError("no broker")
        if self.hanging:
            await asyncio.Event().wait()
        return self.left


def watched(reader: Played) -> tuple[ProgressWatch, HandClock]:
    clock = HandClock()
    return ProgressWatch(reader, clock, seconds=BOUND_SECONDS), clock


async def looks(watch: ProgressWatch, clock: HandClock, *, seconds: float) -> list[bool]:
    """Ask as a supervisor does, every five seconds."""
    seen = []
    for _ in range(int(seconds / 5)):
        clock.seconds += 5
        seen.append(await watch.moving())
    return seen


async def test_a_reader_that_handles_nothing_while_messages_wait_is_stuck() -> None:
    watch, clock = watched(Played(left=5))
    seen = await looks(watch, clock, seconds=120)
    assert all(seen[:12])
    assert not any(seen[15:])


@pytest.mark.parametrize("left", [0, None])
async def test_a_reader_with_nothing_to_do_moves(left: int | None) -> None:
    watch, clock = watched(Played(left=left))
    assert all(await looks(watch, clock, seconds=1_000))


async def test_a_message_that_comes_after_hours_of_silence_has_its_time() -> None:
    reader = Played()
    watch, clock = watched(reader)
    await looks(watch, clock, seconds=10_000)
    reader.left = 1
    assert all(await looks(watch, clock, seconds=55))


async def test_a_reader_that_works_while_more_comes_in_moves() -> None:
    reader = Played(left=5)
    watch, clock = watched(reader)
    for _ in range(20):
        reader.handled += 1
        reader.left = (reader.left or 0) + 100
        assert all(await looks(watch, clock, seconds=50))


async def test_one_that_is_stuck_and_goes_on_moves_again() -> None:
    reader = Played(left=5)
    watch, clock = watched(reader)
    assert not (await looks(watch, clock, seconds=100))[-1]
    reader.handled += 1
    assert all(await looks(watch, clock, seconds=50))


async def test_work_within_a_batch_counts() -> None:
    watch, clock = watched(Played(left=5))
    for _ in range(5):
        assert all(await looks(watch, clock, seconds=50))
        watch.handled(1)


async def test_nobody_is_stuck_while_the_broker_is_away_and_has_its_time_afterwards() -> None:
    reader = Played(left=5, away=True)
    watch, clock = watched(reader)
    assert all(await looks(watch, clock, seconds=1_000))
    reader.away = False
    assert all(await looks(watch, clock, seconds=55))
    assert not (await looks(watch, clock, seconds=60))[-1]


async def test_a_broker_that_hangs_is_away_too() -> None:
    reader = Played(left=5, hanging=True)
    watch, _ = watched(reader)
    assert await watch.moving()
    assert await watch.moving()
    assert reader.asked == 1


async def test_an_idle_reader_asks_its_broker_now_and_then_only() -> None:
    reader = Played()
    watch, clock = watched(reader)
    await looks(watch, clock, seconds=600)
    assert reader.asked <= 61
