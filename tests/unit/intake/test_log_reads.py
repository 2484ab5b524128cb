"""How many read the log for streams that are told again, and what the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.intake.api.event_stream import EventStream
from services.intake.errors import ApiError
from services.intake.streaming.log_reads import LogRead, LogReads
from tests.unit.intake.apps import Exchange, Intake


def reads(
    *, most: int = 1, most_waiting: int = 10, wait_seconds: float = 5.0, hold_seconds: float = 60.0
) -> LogReads:
    return LogReads(
        most=most,
        most_waiting=most_waiting,
        wait_seconds=wait_seconds,
        hold_seconds=hold_seconds,
    )


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_more_than_so_many_read_at_once_and_the_others_follow_in_their_order() -> None:
    bound = reads(most=2)
    began: list[int] = []
    reading: list[LogRead] = []

    async def begin(number: int) -> None:
        reading.append(await bound.begin())
        began.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(begin(number))
        for expected in (2, 3, 4, 5, 6):
            await turns()
            assert began == list(range(expected))
            reading.pop(0).done()


async def test_who_has_waited_long_enough_is_told_to_come_again() -> None:
    bound = reads(wait_seconds=0.01)
    first = await bound.begin()
    with pytest.raises(ApiError) as refused:
        await bound.begin()
    assert refused.value.status == 503
    assert refused.value.retry_after_seconds
    first.done()
    (await bound.begin()).done()


async def test_who_reads_for_long_keeps_nobody_from_reading() -> None:
    bound = reads(hold_seconds=0.2)
    slow = await bound.begin()
    second = await bound.begin()
    slow.done()
    # What was counted no more is not given back once again: the second one holds the only room.
    third = asyncio.create_task(bound.begin())
    await turns()
    assert not third.done()
    second.done()
    (await third).done()


async def test_no_more_than_so_many_wait() -> None:
    bound = reads(most_waiting=1)
    first = await bound.begin()
    second = asyncio.create_task(bound.begin())
    await turns()
    with pytest.raises(ApiError):
        await bound.begin()
    first.done()
    (await second).done()


async def test_who_is_cancelled_while_waiting_takes_no_room() -> None:
    bound = reads(most_waiting=1)
    first = await bound.begin()
    for _ in range(3):
        waiting = asyncio.create_task(bound.begin())
        await turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    first.done()
    first.done()  # counts once
    second = await bound.begin()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bound.begin()
    second.done()


def telling(bound: LogReads, *blocks: bytes) -> Intake:
    async def tell(_: LogRead) -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    async def again(_: Request) -> Response:
        return EventStream(tell, bound.begin)

    return Intake(routes=[Route("/v1/again", again)])


async def test_a_stream_that_finds_no_room_is_refused_before_it_begins() -> None:
    bound = reads(wait_seconds=0.01)
    intake = telling(bound, b"data: 1\n\n")
    other = await bound.begin()
    refused = await Exchange(intake, b"", path="/v1/again", method="GET").run()
    assert (refused.status, refused.error["code"]) == (503, "service_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    other.done()
    # Each leaves its room to the next one.
    for _ in range(2):
        told = await Exchange(intake, b"", path="/v1/again", method="GET").run()
        assert (told.status, told.body) == (200, b"data: 1\n\n")
        assert told.headers["content-type"].startswith("text/event-stream")
