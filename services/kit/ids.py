"""Identifiers: UUIDv7 (RFC 9562) behind the prefixes of the Responses API."""

from __future__ import annotations

import os
import time

_HEX_LENGTH = 32


def uuid7_hex() -> str:
    """Return a new UUIDv7 as 32 hex digits; its first 12 are milliseconds since the epoch."""
    random = int.from_bytes(os.urandom(10), "big")
    milliseconds = time.time_ns() // 1_000_000
    value = (
        (milliseconds & 0xFFFF_FFFF_FFFF) << 80
        | 0x7 << 76
        | (random >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | random & 0x3FFF_FFFF_FFFF_FFFF
    )
    return f"{value:032x}"


def new_id(prefix: str) -> str:
    """Return a new id such as `resp_0192...`; ids of one prefix sort by their time."""
    return f"{prefix}_{uuid7_hex()}"


def created_ms(identifier: str) -> int | None:
    """Return the milliseconds since the epoch an id of ours carries, or None for a foreign id."""
    digits = identifier.rpartition("_")[2]
    if len(digits) != _HEX_LENGTH or digits[12] != "7":
        return None
    try:
        return int(digits[:12], 16)
    except ValueError:
        return None
