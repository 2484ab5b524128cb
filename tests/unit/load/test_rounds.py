"""Unpaced streams take turns, and one without room waits without losing its place."""

from __future__ import annotations

import asyncio

from tests.load.rounds import Rounds

MOST_TURNS = 20


async def turns_until(count: int, written: list[bytes]) -> None:
    for _ in range(MOST_TURNS):
        if len(written) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{written} after {MOST_TURNS} turns")


async def test_each_turn_writes_one_piece_of_every_stream() -> None:
    rounds, written = Rounds(), list[bytes]()
    streams = [lambda data, n=n: written.append(b"%d%b" % (n, data)) for n in range(3)]
    for stream, pieces in zip(streams, ([b"a", b"b", b"c"], [b"a"], [b"a", b"b"]), strict=True):
        rounds.add(stream, iter(pieces))
    await turns_until(6, written)
    assert written == [b"0a", b"1a", b"2a", b"0b", b"2b", b"0c"]


async def test_a_stream_without_room_goes_on_where_it_was() -> None:
    rounds, full, other = Rounds(), list[bytes](), list[bytes]()
    held = []

    def write(data: bytes) -> None:
        full.append(data)
        if len(full) == 2:
            held.append(rounds.remove(write))

    rounds.add(write, iter([b"a", b"b", b"c"]))
    rounds.add(other.append, iter([b"a", b"b", b"c", b"d"]))
    await turns_until(4, other)
    assert full == [b"a", b"b"]
    assert held[0] is not None
    rounds.add(write, held[0])
    await turns_until(3, full)
    assert full == [b"a", b"b", b"c"]


async def test_nothing_is_left_of_a_stream_that_has_ended_or_was_removed() -> None:
    rounds, written = Rounds(), list[bytes]()
    rounds.add(written.append, iter([b"a"]))
    await turns_until(1, written)
    await asyncio.sleep(0)
    assert rounds.remove(written.append) is None
    rounds.add(written.append, iter([b"b"]))
    await turns_until(2, written)
    assert written == [b"a", b"b"]
