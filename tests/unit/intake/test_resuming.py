"""Streams of which a later attempt has shut out an earlier one, as who joins late is told them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, cast

import orjson

from contracts.packs import Entry, Flag
from services.intake.domain import StoredResponse
from services.intake.streaming.hubs import Hub, Hubs
from services.intake.streaming.log_reads import LogReads
from services.intake.streaming.resume import Resumer
from services.kit.blobs.store import BlobStore
from tests.unit.kit.records import Graveyard

ID = "resp_1"
MARK = b": taken over\n\n"
ROW = StoredResponse(
    response_id=ID,
    project="p",
    status="in_progress",
    background=False,
    stream=True,
    events_partition=0,
    previous_response_id=None,
    last_sequence_number=None,
    request="{}",
    response=None,
)


def event(number: int, text: str) -> bytes:
    body = {"type": "x", "sequence_number": number, "delta": text}
    return b"event: x\ndata: " + orjson.dumps(body) + b"\n\n"


def entry(attempt: int, index: int, payload: bytes, flags: int = Flag.NONE) -> Entry:
    return Entry(ID.encode(), attempt, index, payload, flags)


class OneHub:
    """The hub of a topic that nobody reads."""

    def __init__(self) -> None:
        self.hub = Hub("nowhere:0", partition=0, dead_letters=Graveyard())
        self.hub.tail.next_offsets[0] = 0

    async def of(self, _: int) -> Hub:
        return self.hub


class Remembering(Resumer):
    """Has a log in memory; `then` is called when it was read."""

    log: tuple[Entry, ...] = ()
    then: Callable[[], None] = staticmethod(lambda: None)

    async def _on_log(
        self, row: StoredResponse, *, end_offset: int | None
    ) -> AsyncGenerator[Entry, None]:
        for one in self.log:
            yield one
        self.then()


def resumer(hubs: OneHub) -> Remembering:
    blobs: Any = None
    reads = LogReads(most=1, most_waiting=10, wait_seconds=5, hold_seconds=60)
    return Remembering(
        cast("Hubs", hubs),
        cast("BlobStore", blobs),
        reads,
        bootstrap="nowhere:0",
        buffer_bytes=1_000,
    )


async def told(one: Resumer, row: StoredResponse) -> bytes:
    async with asyncio.timeout(5):
        read = await one.reads.begin()
        return b"".join([block async for block in one.events(row, after=-1, read=read)])


async def test_what_a_shut_out_attempt_still_writes_is_not_told_to_who_joins_late() -> None:
    hubs = OneHub()
    one = resumer(hubs)
    one.log = (entry(1, 0, event(0, "a")), entry(2, 0, MARK))

    def live() -> None:
        for follower in hubs.hub._followers[ID.encode()]:
            follower.push(entry(1, 1, event(1, "late")))
            follower.beat()
            follower.push(entry(2, 1, event(1, "b"), Flag.LAST))

    one.then = live
    assert await told(one, ROW) == event(0, "a") + MARK + event(1, "b")


async def test_who_follows_what_comes_lets_the_next_one_read_the_log() -> None:
    hubs = OneHub()
    one = resumer(hubs)
    one.log = (entry(1, 0, event(0, "a")),)
    # Only one may read at once, and none of them ends before all have read.
    streams = [asyncio.create_task(told(one, ROW)) for _ in range(5)]
    async with asyncio.timeout(5):
        while len(hubs.hub._followers.get(ID.encode(), ())) < len(streams):  # noqa: ASYNC110 - sets no event
            await asyncio.sleep(0)
    for follower in list(hubs.hub._followers[ID.encode()]):
        follower.push(entry(1, 1, event(1, "b"), Flag.LAST))
    assert await asyncio.gather(*streams) == [event(0, "a") + event(1, "b")] * 5


async def test_a_log_that_begins_with_a_mark_is_told_as_it_is() -> None:
    one = resumer(OneHub())
    one.log = (entry(2, 0, MARK), entry(2, 1, event(0, "a") + event(1, "b"), Flag.LAST))
    response = orjson.dumps({"id": ID, "status": "completed", "output": []}).decode()
    row = replace(ROW, status="completed", last_sequence_number=1, response=response)
    assert await told(one, row) == event(0, "a") + event(1, "b")
