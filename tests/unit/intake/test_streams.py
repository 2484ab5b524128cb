"""Followers and their hub: order, fences, bounds and signs of life."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.packs import Entry, Flag, PackError, encode_pack
from services.intake.streaming.followers import HEARTBEAT, Follower, SlowReaderError
from services.intake.streaming.hubs import Hub
from tests.unit.kit.records import Graveyard, Message


def entry(index: int, *, attempt: int = 1, payload: bytes = b"x", of: str = "resp_1") -> Entry:
    return Entry(of.encode(), attempt, index, payload)


def follower(limit: int = 1_000) -> Follower:
    return Follower("resp_1", limit_bytes=limit)


def hub() -> Hub:
    return Hub("nowhere:0", partition=0, dead_letters=Graveyard())


async def taken(one: Follower) -> list[tuple[int, int]]:
    return [(e.attempt, e.index) for e in await one.take()]


async def test_entries_come_in_order_and_all_at_once() -> None:
    one = follower()
    for index in range(3):
        one.push(entry(index))
    assert await taken(one) == [(1, 0), (1, 1), (1, 2)]


async def test_the_mark_of_an_attempt_that_found_the_end_does_not_hide_it() -> None:
    one = follower()
    one.push(Entry(b"resp_1", 1, 0, b"{}", Flag.LAST | Flag.JSON))
    one.push(entry(0, attempt=2, payload=b": taken over\n\n"))
    assert [e.flags for e in await one.take()] == [Flag.LAST | Flag.JSON]


async def test_a_reader_waits_for_the_first_entry() -> None:
    one = follower()
    waiting = asyncio.ensure_future(one.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.push(entry(0))
    assert len(await waiting) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=20))
async def test_repeats_and_older_attempts_are_dropped(places: list[tuple[int, int]]) -> None:
    one = follower()
    for attempt, index in places:
        one.push(entry(index, attempt=attempt))
    expected: list[tuple[int, int]] = []
    for place in places:
        if not expected or place > expected[-1]:
            expected.append(place)
    if expected:
        assert await taken(one) == expected


async def test_a_reader_that_falls_behind_is_told_so_and_holds_no_more() -> None:
    one = follower(limit=10)
    for index in range(100):
        one.push(entry(index, payload=b"x" * 6))
    one.beat()
    assert (one._bytes, len(one._entries)) == (0, 0)
    with pytest.raises(SlowReaderError):
        await one.take()


async def test_one_entry_above_the_bound_still_gets_through() -> None:
    one = follower(limit=10)
    one.push(entry(0, payload=b"x" * 100))
    assert await taken(one) == [(1, 0)]


async def test_a_heartbeat_comes_only_when_nothing_else_is_there() -> None:
    one = follower()
    one.beat()
    one.beat()
    assert [e.payload for e in await one.take()] == [HEARTBEAT]
    one.push(entry(0))
    one.beat()
    assert await taken(one) == [(1, 0)]


async def test_a_heartbeat_does_not_move_the_fence() -> None:
    one = follower()
    one.beat()
    one.push(entry(0))
    assert (await taken(one))[-1] == (1, 0)


async def test_a_reader_that_leaves_stops_waiting() -> None:
    one = follower()
    waiting = asyncio.ensure_future(one.take())
    await asyncio.sleep(0)
    one.leave()
    assert await waiting == []


async def test_a_hub_gives_each_follower_its_own_response() -> None:
    one, other, twin = follower(), Follower("resp_2", limit_bytes=100), follower()
    made = hub()
    for who in (one, other, twin):
        made.add(who)
    pack = encode_pack([entry(0), entry(0, of="resp_2"), entry(0, of="resp_3"), entry(1)])
    made._split(Message(pack))
    assert await taken(one) == await taken(twin) == [(1, 0), (1, 1)]
    assert await taken(other) == [(1, 0)]
    assert made.followers == 2


async def test_a_follower_that_is_removed_gets_nothing_and_leaves_nothing() -> None:
    one, twin = follower(), follower()
    made = hub()
    made.add(one)
    made.add(twin)
    made.remove(one)
    made.remove(one)
    made._split(Message(encode_pack([entry(0)])))
    assert await taken(twin) == [(1, 0)]
    made.remove(twin)
    assert made.followers == 0


@pytest.mark.parametrize("pack", [b"", b"AP1", b"nonsense", encode_pack([entry(0)])[:-1]])
async def test_a_damaged_pack_is_for_the_tail_to_bury(pack: bytes) -> None:
    with pytest.raises(PackError):
        hub()._split(Message(pack))


async def test_a_hub_beats_for_all() -> None:
    one, other = follower(), Follower("resp_2", limit_bytes=100)
    made = hub()
    made.add(one)
    made.add(other)
    made.beat()
    assert len(await one.take()) == len(await other.take()) == 1
