"""The check of a stream: what is whole and in order passes however it was cut, all else doesn't."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.checks import StreamCheck

TOKEN = 42
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'
DONE = b"data: [DONE]\n\n"


def delta(number: int, token: int = TOKEN) -> bytes:
    return b'event: x\ndata: {"type":"x","delta":"%010d %d %d "}\n\n' % (token, number, number + 7)


def stream(*numbers: int) -> bytes:
    return b"".join(map(delta, numbers))


def verdict(data: bytes, *, deltas: int = 3) -> str | None:
    check = StreamCheck(TOKEN, deltas)
    check.feed(data)
    return check.verdict()


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


WHOLE = stream(0, 1, 2) + COMPLETED + DONE


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_whole_stream_passes_with_all_its_events_wherever_it_is_cut(cuts: list[int]) -> None:
    check = StreamCheck(TOKEN, 3)
    fed = [check.feed(piece) for piece in pieces(WHOLE, cuts)]
    assert check.verdict() is None
    assert sum(events for events, _sent in fed) == 4
    assert [sent_ns for _events, sent in fed for sent_ns in sent] == [7, 8, 9]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (stream(0, 1, 2), "not_completed"),
        (COMPLETED, "delta_count"),
        (stream(0, 1) + COMPLETED, "delta_count"),
        (stream(0, 1, 2, 3) + COMPLETED, "delta_count"),
        (stream(0, 2, 1) + COMPLETED, "delta_order"),
        (stream(0, 1, 1) + COMPLETED, "delta_order"),
        (stream(0, 1) + delta(2, token=43) + COMPLETED, "foreign_delta"),
        (stream(0, 1, 2) + COMPLETED[:-1], "not_completed"),
    ],
)
def test_a_stream_that_lost_mixed_up_or_never_ended_is_named(data: bytes, error: str) -> None:
    assert verdict(data) == error


def test_a_delta_after_the_end_is_out_of_order() -> None:
    check = StreamCheck(TOKEN, 3)
    check.feed(stream(0, 1) + COMPLETED)
    check.feed(delta(2))
    assert check.verdict() == "delta_order"
