"""Conditional and partial requests for content that has an ETag (RFC 9110). No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.artifacts.errors import UnsatisfiableRangeError

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of some content: `length` bytes from offset `start` on."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        """Return the `content-range` of this part of `size_bytes`."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


def requested_span(header: str | None, size_bytes: int) -> Span | None:
    """Return the part that a `range` header asks for, or None for all.

    A header that is malformed or names several ranges is ignored, as section 14.2 allows. Raises
    `UnsatisfiableRangeError` when the range lies outside the content.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size_bytes)
        span = Span(size_bytes - length, length)
    else:
        if last and int(last) < int(first):
            return None
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
        span = Span(int(first), end - int(first) + 1)
    if span.length <= 0:
        raise UnsatisfiableRangeError(size_bytes)
    return span


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether `range` holds: without `if-range`, or when that names this very content."""
    return if_range is None or if_range.strip() == etag


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this content already (weak comparison, section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
