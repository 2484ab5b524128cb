"""Streams again, on a real log: whole from any event on, each event once, live or later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.packs import Entry, Flag, encode_pack
from contracts.topics import RESPONSES_EVENTS
from infra.topics import apply
from services.intake.domain import StoredResponse
from services.intake.streaming import resume
from services.intake.streaming.hubs import Hubs
from services.intake.streaming.log_reads import LogReads
from services.intake.streaming.resume import Resumer
from services.kit.blobs.disk import DiskBlobs
from services.kit.deadletters import DeadLetters
from services.kit.ids import new_id
from services.kit.producer import Producer
from services.kit.tail import read_range

PARTITION = 7
TOPIC = RESPONSES_EVENTS.name
PATIENCE_SECONDS = 30


@pytest.fixture
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    await apply(kafka_bootstrap, topics=[RESPONSES_EVENTS])
    made = Producer(kafka_bootstrap, client_id="test")
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def resuming(
    bootstrap: str, producer: Producer, blobs: DiskBlobs, *, own: int = PARTITION
) -> AsyncIterator[tuple[Resumer, Hubs]]:
    hubs = Hubs(
        bootstrap,
        own_partition=own,
        dead_letters=DeadLetters(producer, service="test"),
        heartbeat_seconds=60,
    )
    await hubs.start()
    try:
        yield Resumer(hubs, blobs, reads(), bootstrap=bootstrap, buffer_bytes=1 << 20), hubs
    finally:
        await hubs.stop()


def reads(most: int = 4) -> LogReads:
    return LogReads(
        most=most,
        most_waiting=100,
        wait_seconds=PATIENCE_SECONDS,
        hold_seconds=2 * PATIENCE_SECONDS,
    )


def running(response_id: str) -> StoredResponse:
    return StoredResponse(
        response_id=response_id,
        project="p",
        status="in_progress",
        background=False,
        stream=True,
        events_partition=PARTITION,
        previous_response_id=None,
        last_sequence_number=None,
        request="{}",
        response=None,
    )


def ended(response_id: str, last: int) -> StoredResponse:
    response = {"id": response_id, "status": "completed", "output": []}
    return replace(
        running(response_id),
        status="completed",
        last_sequence_number=last,
        response=orjson.dumps(response).decode(),
    )


def event(number: int) -> bytes:
    body = orjson.dumps({"type": "x", "sequence_number": number, "delta": f"d{number}"})
    return b"event: x\ndata: " + body + b"\n\n"


async def write(
    producer: Producer,
    response_id: str,
    *groups: list[int],
    attempt: int = 1,
    first_index: int = 0,
    last: bool = True,
) -> None:
    """Write each group of numbers as one entry of a pack of its own, among other responses'."""
    for place, group in enumerate(groups):
        is_last = last and place == len(groups) - 1
        entries = [
            Entry(b"resp_other", 1, place, event(place)),
            Entry(
                response_id.encode(),
                attempt,
                first_index + place,
                b"".join(map(event, group)),
                Flag.LAST if is_last else 0,
            ),
        ]
        await producer.send(TOPIC, encode_pack(entries), partition=PARTITION)


async def numbers(resumer: Resumer, row: StoredResponse, after: int = -1) -> list[int]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        read = await resumer.reads.begin()
        blocks = [block async for block in resumer.events(row, after=after, read=read)]
    return [number_of(frame) for frame in b"".join(blocks).split(b"\n\n") if frame]


def number_of(frame: bytes) -> int:
    data: dict[str, Any] = orjson.loads(frame.partition(b"data: ")[2])
    return int(data["sequence_number"])


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.integers(0, 6),
    st.integers(-1, 12),
    st.sampled_from([PARTITION, 0]),
    st.lists(st.integers(1, 3), min_size=6, max_size=6),
)
async def test_a_stream_that_is_joined_anywhere_is_whole_and_told_once(
    kafka_bootstrap: str,
    producer: Producer,
    blobs: DiskBlobs,
    before: int,
    after: int,
    own: int,
    sizes: list[int],
) -> None:
    response_id = new_id("resp")
    groups, next_number = [], 0
    for size in sizes:
        groups.append(list(range(next_number, next_number + size)))
        next_number += size
    async with resuming(kafka_bootstrap, producer, blobs, own=own) as (resumer, _):
        early = groups[:before]
        await write(producer, response_id, *early, last=before == len(groups))
        reading = asyncio.create_task(numbers(resumer, running(response_id), after))
        await asyncio.sleep(0)
        late = groups[before:]
        if late:
            await write(producer, response_id, *late, first_index=before)
        assert await reading == list(range(after + 1, next_number))


async def test_a_finished_stream_is_told_from_the_log_from_any_event_on(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0, 1], [2], [3, 4])
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, hubs):
        for after in range(-1, 6):
            told = await numbers(resumer, ended(response_id, 4), after)
            assert told == list(range(after + 1, 5))
        assert hubs.own.followers == 0


async def test_what_a_lost_attempt_wrote_late_and_packs_that_came_twice_are_not_told(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0, 1], [2], last=False)
    await write(producer, response_id, [0, 1], last=False)
    await write(producer, response_id, [3], attempt=2, last=False)
    await write(producer, response_id, [90, 91], first_index=2, last=False)
    await write(producer, response_id, [4], attempt=2, first_index=1)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        assert await numbers(resumer, ended(response_id, 4)) == [0, 1, 2, 3, 4]
        assert await numbers(resumer, running(response_id)) == [0, 1, 2, 3, 4]


async def test_a_damaged_pack_on_the_log_is_passed_over(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0, 1], last=False)
    await producer.send(TOPIC, b"AP1\n" + response_id.encode(), partition=PARTITION)
    await write(producer, response_id, [2], first_index=1)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        assert await numbers(resumer, ended(response_id, 2)) == [0, 1, 2]


async def test_large_entries_are_read_from_where_they_are(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await blobs.put("claims/x", event(0) + event(1), content_type="application/octet-stream")
    entry = Entry(response_id.encode(), 1, 0, b"claims/x", Flag.CLAIM)
    await producer.send(TOPIC, encode_pack([entry]), partition=PARTITION)
    await write(producer, response_id, [2], first_index=1)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        assert await numbers(resumer, ended(response_id, 2), 0) == [1, 2]


async def test_a_stream_whose_events_are_gone_is_told_from_the_stored_response(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    for response_id in ("resp_" + "a" * 40, new_id("resp")):
        async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
            told = await numbers(resumer, ended(response_id, 50))
            assert told[-1] == 50
            assert told == sorted(set(told))
            assert await numbers(resumer, ended(response_id, 50), 49) == [50]
            assert await numbers(resumer, ended(response_id, 50), 50) == []


async def test_a_stream_of_which_the_log_has_only_the_end_is_told_from_the_stored_response(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [7, 8], [9], first_index=3)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        told = await numbers(resumer, ended(response_id, 9))
        assert (told[0], told[-1]) == (0, 9)
        assert await numbers(resumer, ended(response_id, 9), 6) == [7, 8, 9]


async def test_a_stream_whose_large_entry_is_gone_still_ends(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0, 1], last=False)
    entry = Entry(response_id.encode(), 1, 1, b"claims/none", Flag.CLAIM | Flag.LAST)
    await producer.send(TOPIC, encode_pack([entry]), partition=PARTITION)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        assert (await numbers(resumer, ended(response_id, 9)))[-1] == 9


async def test_a_reader_that_leaves_is_forgotten(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0], [1], last=False)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, hubs):
        read = await resumer.reads.begin()
        events = resumer.events(running(response_id), after=-1, read=read)
        await anext(events)
        assert hubs.own.followers == 1
        await events.aclose()
        assert hubs.own.followers == 0


async def test_many_streams_are_told_again_with_few_consumers(
    kafka_bootstrap: str, producer: Producer, blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    response_id = new_id("resp")
    await write(producer, response_id, [0, 1], [2])
    now, most = 0, 0

    async def counted(*asked: Any, **more: Any) -> AsyncIterator[Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            async with aclosing(read_range(*asked, **more)) as ranges:
                async for records in ranges:
                    yield records
        finally:
            now -= 1

    monkeypatch.setattr(resume, "read_range", counted)
    async with resuming(kafka_bootstrap, producer, blobs) as (resumer, _):
        told = await asyncio.gather(*(numbers(resumer, ended(response_id, 2)) for _ in range(20)))
    assert told == [[0, 1, 2]] * 20
    assert (most, now) == (4, 0)
