"""Splitting a byte stream into events: where the bytes are cut means nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.errors import UpstreamError
from services.worker.sse import EventSplitter, data_of, encode, frames, has_special, parse

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")
LINES = st.one_of(
    st.text(CHARACTERS, max_size=12).map(lambda text: f"data: {text}"),
    st.text(CHARACTERS, max_size=12).map(lambda text: f"data:{text}"),
    st.text(CHARACTERS, max_size=8).map(lambda text: f": {text}"),
    st.sampled_from(["event: response.output_text.delta", "id: 7", "retry: 10"]),
)
EVENTS = st.lists(LINES, min_size=1, max_size=4)


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = EventSplitter(limit_bytes=1 << 20)
    blocks = b"".join([*(splitter.feed(piece) for piece in pieces), splitter.finish()])
    return [data_of(frame) for frame in frames(blocks)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(EVENTS, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
def test_any_cut_of_a_stream_gives_the_same_events(
    events: list[list[str]], line_end: str, cuts: list[int], bom: bool
) -> None:
    text = "".join(line_end.join(lines) + line_end * 2 for lines in events)
    stream = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    wanted = [
        "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:")).encode()
        for lines in events
    ]
    assert split(pieces) == wanted
    assert split([bytes([byte]) for byte in stream]) == wanted


def test_an_event_is_passed_on_as_soon_as_it_is_whole() -> None:
    splitter = EventSplitter(limit_bytes=1000)
    assert splitter.feed(b"data: 1\n") == b""
    assert splitter.feed(b"\ndata: 2") == b"data: 1\n\n"
    assert splitter.feed(b"\r\n\r\n") == b"data: 2\n\n"


def test_what_is_no_whole_event_at_the_end_is_left_out() -> None:
    splitter = EventSplitter(limit_bytes=1000)
    assert splitter.feed(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert splitter.finish() == b""


def test_an_event_above_the_limit_is_refused() -> None:
    splitter = EventSplitter(limit_bytes=10)
    with pytest.raises(UpstreamError, match="above 10 bytes"):
        splitter.feed(b"data: 1234567890")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created", "response": {}},
        {"type": "response.completed", "response": {"output": []}},
        {"type": "error", "message": "x"},
    ],
)
def test_events_about_the_whole_response_are_noticed(event: dict[str, object]) -> None:
    assert has_special(encode(event))
    assert has_special(encode(event).replace(b'":', b'" : '))


def test_text_that_speaks_of_such_events_is_not_mistaken_for_one() -> None:
    delta = {"type": "response.output_text.delta", "delta": '{"type": "error", "response": 1}'}
    assert not has_special(encode(delta))


@pytest.mark.parametrize("data", [b"{", b"7", b"[]", b'"text"', b"\xff"])
def test_data_that_is_no_object_is_the_provider_s_fault(data: bytes) -> None:
    with pytest.raises(UpstreamError):
        parse(b"data: " + data)


@pytest.mark.parametrize("frame", [b": comment", b"data: [DONE]", b"event: ping", b""])
def test_frames_without_an_event_are_none(frame: bytes) -> None:
    assert parse(frame) is None


def test_an_event_reads_back_as_it_was_written() -> None:
    event = {"type": "response.output_text.delta", "delta": "zwei\n\nZeilen ☃"}
    [frame] = frames(encode(event))
    assert parse(frame) == event
