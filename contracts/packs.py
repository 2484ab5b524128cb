"""The pack: stream bytes of many responses in one Kafka message.

Layout, big endian: the magic `AP1\\n`, then entries, each with a head of
`id length u8, attempt u32, index u32, status u16, flags u8, payload length u32`, the response id in
ASCII and the payload. A payload without flags is whole SSE events; with `JSON` it is the Response
object or the API's error object.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

MAGIC = b"AP1\n"
_HEAD = struct.Struct(">BIIHBI")
HEAD_BYTES = _HEAD.size


class Flag:
    """What an entry's payload is; plain integers: an `IntFlag` costs each event a microsecond."""

    NONE: Final = 0
    LAST: Final = 1
    """Nothing follows for this response."""
    JSON: Final = 2
    """A JSON body, not SSE events; the entry's status is its HTTP status."""
    CLAIM: Final = 4
    """The payload is the key of a blob that holds the real payload."""


@dataclass(slots=True)
class Entry:
    """Bytes of one response; nobody changes one, but to be frozen would cost each event as much
    again as being made.

    `attempt` fences: readers drop entries of an older attempt. `index` counts the entries of one
    attempt from 0: readers drop what they have seen, and notice a gap.
    """

    response_id: bytes
    attempt: int
    index: int
    payload: bytes
    flags: int = 0
    status: int = 200


class PackError(ValueError):
    """The bytes are no pack, or a broken one."""


def encode_pack(entries: Iterable[Entry]) -> bytes:
    """Return one pack; the caller keeps it below the topic's message limit."""
    parts = [MAGIC]
    for entry in entries:
        parts.append(
            _HEAD.pack(
                len(entry.response_id),
                entry.attempt,
                entry.index,
                entry.status,
                entry.flags,
                len(entry.payload),
            )
        )
        parts.append(entry.response_id)
        parts.append(entry.payload)
    return b"".join(parts)


def decode_pack(pack: bytes) -> Iterator[Entry]:
    """Yield the entries in order; raises `PackError` at the first byte that does not fit."""
    if pack[: len(MAGIC)] != MAGIC:
        raise PackError("not a pack: wrong magic")
    at, end = len(MAGIC), len(pack)
    while at < end:
        if at + HEAD_BYTES > end:
            raise PackError("truncated entry head")
        id_length, attempt, index, status, flags, length = _HEAD.unpack_from(pack, at)
        at += HEAD_BYTES
        start = at + id_length
        if start + length > end:
            raise PackError("truncated entry payload")
        yield Entry(pack[at:start], attempt, index, pack[start : start + length], flags, status)
        at = start + length
