"""Wall clocks that are set while requests are under way: nobody hangs, nothing young is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from services.intake.admission.limits import Limits, Use, drained, take
from services.intake.domain import StoredResponse
from services.intake.items.history import Reader
from services.kit.ids import uuid7_hex

HOUR = 3_600.0


@dataclass
class SetClock:
    """Time goes on by itself with each look; its setting changes when somebody says so."""

    wall: float
    steady: float = 1_000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall, UTC)

    def monotonic(self) -> float:
        self.steady += 0.01
        self.wall += 0.01
        return self.steady


@dataclass
class LateShelf:
    """Has a response after it was asked for it a few times."""

    after: int
    asked: int = 0

    async def get(self, response_id: str, *, project: str) -> StoredResponse | None:
        self.asked += 1
        if self.asked <= self.after:
            return None
        return StoredResponse(
            response_id=response_id,
            project=project,
            status="completed",
            background=False,
            stream=False,
            events_partition=0,
            previous_response_id=None,
            last_sequence_number=None,
            request="{}",
            response="{}",
        )

    async def chain(self, response_id: str, *, project: str, most: int) -> list[StoredResponse]:
        return []


def made_at(seconds: float) -> str:
    return f"resp_{int(seconds * 1000):012x}{uuid7_hex()[12:]}"


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_a_response_from_before_the_clock_was_set_is_waited_for(jump: float) -> None:
    clock = SetClock(wall=1_800_000_000.0)
    reader = Reader(LateShelf(after=3), clock, wait_seconds=5.0)
    response_id = made_at(clock.wall)
    clock.wall += jump
    assert await reader.get(response_id, project="p") is not None


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_a_response_from_after_the_clock_was_set_is_waited_for(jump: float) -> None:
    clock = SetClock(wall=1_800_000_000.0)
    reader = Reader(LateShelf(after=3), clock, wait_seconds=5.0)
    clock.wall += jump
    assert await reader.get(made_at(clock.wall), project="p") is not None


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
async def test_what_never_comes_is_waited_for_no_longer_when_the_clock_is_set(jump: float) -> None:
    clock = SetClock(wall=1_800_000_000.0)
    shelf = LateShelf(after=10_000)
    reader = Reader(shelf, clock, wait_seconds=0.2)
    response_id = made_at(clock.wall)
    clock.wall += jump
    assert await reader.get(response_id, project="p") is None
    assert shelf.asked < 30


async def test_what_is_old_by_any_clock_is_not_waited_for() -> None:
    clock = SetClock(wall=1_800_000_000.0)
    shelf = LateShelf(after=3)
    reader = Reader(shelf, clock, wait_seconds=5.0)
    assert await reader.get(made_at(clock.wall - HOUR), project="p") is None
    assert shelf.asked <= 2


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_bucket_goes_on_to_drain_after_its_clock_was_set(jump: float) -> None:
    limits = Limits(60, None)
    use = Use(at=10_000.0)
    for _ in range(60):
        use = take(use, limits, tokens=0, now=10_000.0).use
    use = drained(use, limits, now=10_000.0 + jump)
    assert use.requests in (0, 60)
    assert drained(use, limits, now=10_000.0 + jump + 30).requests == pytest.approx(
        max(0, use.requests - 30)
    )
