"""Conditional and partial requests, as RFC 9110 has them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.artifacts.errors import UnsatisfiableRangeError
from services.artifacts.ranges import Span, is_known, range_applies, requested_span

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-9", Span(0, 10)),
        ("bytes=90-", Span(90, 10)),
        ("bytes=90-1000", Span(90, 10)),
        ("bytes=-1", Span(99, 1)),
        ("bytes=-1000", Span(0, 100)),
        ("Bytes = 1 - 2 ", Span(1, 2)),
    ],
)
def test_one_range_of_bytes_is_understood(header: str, span: Span) -> None:
    assert requested_span(header, 100) == span


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-1",
        "items=0-1",
        "bytes=0-1,3-4",
    ],
)
def test_a_range_that_is_malformed_or_several_is_ignored(header: str | None) -> None:
    assert requested_span(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)],
)
def test_a_range_outside_the_content_is_refused_with_its_size(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableRangeError) as refusal:
        requested_span(header, size)
    assert refusal.value.size_bytes == size


@settings(deadline=None)
@given(st.integers(0, 50), st.none() | st.integers(0, 60), st.integers(1, 50))
def test_a_span_is_the_part_that_a_slice_gives(first: int, last: int | None, size: int) -> None:
    content = bytes(range(size))
    end = "" if last is None else str(last)
    try:
        span = requested_span(f"bytes={first}-{end}", size)
    except UnsatisfiableRangeError:
        assert first >= size
        return
    if span is None:
        assert last is not None
        assert last < first
        return
    part = content[span.start : span.start + span.length]
    assert part == content[first : None if last is None else last + 1]
    assert span.content_range(size) == f"bytes {first}-{first + len(part) - 1}/{size}"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"other", {ETAG}', True),
        ("*", True),
        ('"other"', False),
        ("abc", False),
    ],
)
def test_a_client_that_names_the_content_has_it(header: str | None, *, known: bool) -> None:
    assert is_known(header, ETAG) is known


def test_a_range_is_for_the_content_that_the_client_began_with() -> None:
    assert range_applies(None, ETAG)
    assert range_applies(ETAG, ETAG)
    assert not range_applies('"other"', ETAG)
    assert not range_applies("Sat, 01 Jan 2028 00:00:00 GMT", ETAG)
