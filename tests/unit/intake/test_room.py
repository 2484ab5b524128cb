"""Room for requests: what is bounded, and that nobody who asks for little is locked out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.packs import Entry
from services.intake.admission.seats import Body, Pool, Seat, SeatBounds, Seats
from services.intake.errors import ApiError
from services.intake.streaming.followers import Follower, SlowReaderError
from services.intake.streaming.hubs import Hub
from tests.unit.kit.records import Graveyard

MOST = 100


def full_of(key_id: str, seats: Seats) -> list[Seat]:
    """Take seats for one key until it gets no more."""
    taken: list[Seat] = []
    with pytest.raises(ApiError) as caught:
        taken.extend(seats.take(key_id) for _ in range(MOST + 1))
    error = caught.value
    assert (error.status, error.kind) == (429, "rate_limit_error")
    assert error.retry_after_seconds == 1
    return taken


def test_one_greedy_key_leaves_room_for_whoever_comes_next() -> None:
    seats = Seats(SeatBounds(MOST))
    greedy = full_of("greedy", seats)
    assert len(greedy) == 80
    modest = [seats.take("modest") for _ in range(5)]
    third = full_of("third", seats)
    assert len(third) == MOST - len(greedy) - len(modest)
    assert seats.open == MOST
    with pytest.raises(ApiError) as caught:
        seats.take("fourth")
    assert caught.value.code == "server_overloaded"


def test_a_key_is_told_that_it_has_its_share() -> None:
    seats = Seats(SeatBounds(MOST))
    full_of("greedy", seats)
    with pytest.raises(ApiError, match="has 80 requests open") as caught:
        seats.take("greedy")
    assert caught.value.code == "too_many_open_requests"


def test_a_seat_that_is_left_can_be_taken_again() -> None:
    seats = Seats(SeatBounds(MOST))
    for seat in full_of("greedy", seats):
        seat.leave()
    assert seats.open == 0
    assert len(full_of("other", seats)) == 80


def test_with_room_for_one_there_is_room_for_one() -> None:
    seats = Seats(SeatBounds(1))
    assert len(full_of("only", seats)) == 1


def test_bodies_are_bounded_in_sum_and_one_key_does_not_fill_them_all() -> None:
    seats = Seats(SeatBounds(MOST, body_bytes=1_000))
    first, second = seats.take("greedy"), seats.take("modest")
    first.grow(700)
    again = seats.take("greedy")
    with pytest.raises(ApiError) as caught:
        again.grow(200)
    assert caught.value.code == "too_many_open_requests"
    second.grow(200)
    with pytest.raises(ApiError) as caught:
        seats.take("third").grow(200)
    assert caught.value.code == "server_overloaded"
    first.drop()
    assert seats.body_bytes == 200
    first.grow(400)
    first.leave()
    second.leave()
    assert seats.body_bytes == 0


def test_a_body_alone_is_let_in_however_large() -> None:
    seats = Seats(SeatBounds(MOST, body_bytes=1_000))
    seat = seats.take("a")
    seat.expect(5_000)
    for _ in range(5):
        seat.grow(1_000)
    assert seats.body_bytes == 5_000
    with pytest.raises(ApiError):
        seats.take("b").expect(1)
    seat.leave()
    assert seats.body_bytes == 0


def test_what_is_announced_takes_no_room_until_it_comes() -> None:
    seats = Seats(SeatBounds(MOST, body_bytes=1_000))
    Body(seats, "slow").expect(900)
    assert seats.body_bytes == 0


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 40), st.booleans()), max_size=200)
)
def test_a_pool_never_gives_more_than_it_has_and_takes_all_back(
    steps: list[tuple[str, int, bool]],
) -> None:
    pool = Pool(MOST, fair_from=0.5)
    given_to: list[tuple[str, int]] = []
    for key_id, amount, back in steps:
        if back and given_to:
            pool.give(*given_to.pop(0))
        elif pool.take(key_id, amount) is None:
            given_to.append((key_id, amount))
        assert pool.taken == sum(amount for _, amount in given_to) <= MOST
        for key in "abcde":
            assert pool.held(key) == sum(n for one, n in given_to if one == key)
    for one in given_to:
        pool.give(*one)
    assert (pool.taken, pool._held) == (0, {})


def hub(limit_bytes: int) -> Hub:
    made = Hub("nowhere:0", partition=0, dead_letters=Graveyard())
    made._buffers._limit_bytes = limit_bytes
    return made


def entry(response_id: str, index: int, size: int) -> Entry:
    return Entry(response_id.encode(), 1, index, b"x" * size)


async def test_when_all_buffers_are_too_large_those_go_that_hold_most() -> None:
    made = hub(1_000)
    slow, quick = (Follower(name, limit_bytes=10_000) for name in ("resp_slow", "resp_quick"))
    made.add(slow)
    made.add(quick)
    for index in range(9):
        slow.push(entry("resp_slow", index, 100))
    quick.push(entry("resp_quick", 0, 100))
    quick.push(entry("resp_quick", 1, 100))
    assert made._buffers.bytes == 1_100
    quick.push(entry("resp_quick", 2, 100))
    slow.push(entry("resp_slow", 9, 100))
    with pytest.raises(SlowReaderError):
        await slow.take()
    assert len(await quick.take()) == 3
    assert made._buffers.bytes == 0


async def test_what_a_follower_held_is_free_again_when_it_goes() -> None:
    made = hub(1_000)
    one = Follower("resp_1", limit_bytes=10_000)
    made.add(one)
    one.push(entry("resp_1", 0, 300))
    made.remove(one)
    one.push(entry("resp_1", 1, 300))
    assert (made._buffers.bytes, made._buffers.readers) == (0, 0)
