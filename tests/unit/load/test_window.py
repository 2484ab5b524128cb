"""Events count in the window in which they were read to their ends, each in one window only."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.load.window import Reads, Window

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
DELTAS = [b'8\r\nevent: x\ndata: {"delta":"0000000042 %d 0 "}\n\n\r\n' % n for n in range(5)]
END = b'9\r\ndata: {"type":"response.completed"}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n'
WHOLE = b"".join([HEAD, *DELTAS, END])


def read(*parts: bytes) -> Reads:
    """Give what was read at 0 s, 1 s, 2 s and so on."""
    reads = Reads()
    for second, part in enumerate(parts):
        reads.add(part, float(second))
    return reads


def test_events_before_and_after_the_window_do_not_count() -> None:
    reads = read(HEAD, *DELTAS, END)
    assert Window(-1.0, 9.0).count(reads) == (6, 5)
    assert Window(2.0, 4.0).count(reads) == (2, 2)
    assert Window(5.0, 6.0).count(reads) == (1, 1)
    assert Window(6.0, 7.0).count(reads) == (1, 0)
    assert Window(7.0, 9.0).count(reads) == Window(-2.0, 0.0).count(reads) == (0, 0)
    assert Window(0.0, 9.0).count(Reads()) == (0, 0)


def test_an_event_counts_when_its_last_byte_is_there() -> None:
    reads = read(HEAD + DELTAS[0][:-4], DELTAS[0][-4:])
    assert Window(0.0, 1.0).count(reads) == (0, 0)
    assert Window(1.0, 2.0).count(reads) == (1, 1)


def test_a_window_holds_an_answer_that_began_and_ended_in_it() -> None:
    reads = read(HEAD, *DELTAS, END)
    assert Window(0.0, 6.5).holds_all(reads)
    assert not Window(0.5, 6.5).holds_all(reads)
    assert not Window(0.0, 6.0).holds_all(reads)
    assert not Window(0.0, 6.5).holds_all(Reads())


@given(
    st.lists(st.integers(0, len(WHOLE)), max_size=12),
    st.lists(st.integers(0, 14), max_size=4),
)
def test_each_event_is_in_one_of_the_windows_that_follow_each_other(
    cuts: list[int], edges: list[int]
) -> None:
    reads = read(*(WHOLE[at:end] for at, end in pairwise([0, *sorted(cuts), len(WHOLE)])))
    windows = [Window(float(at), float(end)) for at, end in pairwise([0, *sorted(edges), 99])]
    counts = [window.count(reads) for window in windows]
    assert [sum(numbers) for numbers in zip(*counts, strict=True)] == [6, 5]
