"""The check of a stream: what is whole and in order passes however it was cut, all else doesn't."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.checks import StreamCheck, WholeCheck

TOKEN = 42
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed"}\n\n'
DONE = b"data: [DONE]\n\n"


def delta(number: int, token: int = TOKEN, sent_ns: int = 0) -> bytes:
    return b'event: x\ndata: {"type":"x","delta":"%010d %d %d "}\n\n' % (token, number, sent_ns)


def stream(*numbers: int) -> bytes:
    return b"".join(map(delta, numbers))


def verdict(data: bytes) -> str | None:
    """Give what both checks say."""
    check = StreamCheck(TOKEN, 3)
    check.feed(data)
    assert check.verdict() == WholeCheck(3).verdict(TOKEN, data)
    return check.verdict()


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


WHOLE = stream(0, 1, 2) + COMPLETED + DONE
PACED = b"".join(delta(n, sent_ns=n + 7) for n in range(3)) + COMPLETED + DONE


@given(st.lists(st.integers(0, len(PACED)), max_size=12))
def test_a_whole_stream_passes_with_all_its_events_wherever_it_is_cut(cuts: list[int]) -> None:
    check = StreamCheck(TOKEN, 3)
    fed = [check.feed(piece) for piece in pieces(PACED, cuts)]
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
        (stream(0, 1, 1, 2) + COMPLETED, "delta_order"),
        (stream(1, 2) + COMPLETED, "delta_order"),
        (stream(0, 1) + COMPLETED + stream(2), "delta_order"),
        (stream(0, 1) + COMPLETED + stream(2) + COMPLETED, "delta_order"),
        (stream(0, 1) + delta(2, token=43) + COMPLETED, "foreign_delta"),
        (stream(0) + delta(1, token=43) + stream(2) + COMPLETED, "foreign_delta"),
        (stream(0, 1, 2) + COMPLETED[:-1], "not_completed"),
        (stream(0, 1, 2) + DONE, "not_completed"),
        (b"", "not_completed"),
    ],
)
def test_a_stream_that_lost_mixed_up_or_never_ended_is_named(data: bytes, error: str) -> None:
    assert verdict(data) == error


@pytest.mark.parametrize("data", [WHOLE, PACED, WHOLE.replace(b'":"', b'": "')])
def test_a_whole_stream_passes_with_times_or_without_and_however_json_is_spaced(
    data: bytes,
) -> None:
    assert verdict(data) is None


@given(
    st.lists(
        st.one_of(
            st.builds(delta, st.integers(0, 3), st.sampled_from([TOKEN, TOKEN, 43])),
            st.sampled_from([COMPLETED, DONE, b": ping\n\n", COMPLETED[:-1], delta(1)[:-9]]),
        ),
        max_size=6,
    ),
    st.sampled_from([b"", stream(0), stream(0, 1, 2), WHOLE]),
)
def test_both_checks_say_the_same_of_any_stream(events: list[bytes], begin: bytes) -> None:
    verdict(begin + b"".join(events))


def test_a_stream_without_deltas_only_has_to_end() -> None:
    assert WholeCheck(0).verdict(TOKEN, COMPLETED) is None
    assert WholeCheck(0).verdict(TOKEN, DONE) == "not_completed"
    assert WholeCheck(0).verdict(TOKEN, WHOLE) == "delta_count"


def test_a_delta_after_the_end_is_out_of_order() -> None:
    check = StreamCheck(TOKEN, 3)
    check.feed(stream(0, 1) + COMPLETED)
    check.feed(delta(2))
    assert check.verdict() == "delta_order"
