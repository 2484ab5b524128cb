"""Identifiers: UUIDv7 (RFC 9562) behind the prefixes of the Responses API."""

from __future__ import annotations

import os
import time
from collections import deque

_HEX_LENGTH = 32
_RANDOM_HEX = 20
_AT_ONCE = 256
# Asking the kernel for each id would cost more than the id. Taking one is atomic, so that threads
# never share any; a process that forks must not make ids in both halves.
_randomness: deque[str] = deque()


def _random_hex() -> str:
    """Return 20 fresh random hex digits."""
    while True:
        try:
            return _randomness.popleft()
        except IndexError:
            digits = os.urandom(_AT_ONCE * _RANDOM_HEX // 2).hex()
            _randomness.extend(
                digits[at : at + _RANDOM_HEX] for at in range(0, len(digits), _RANDOM_HEX)
            )


def uuid7_hex() -> str:
    """Return a new UUIDv7 as 32 hex digits; its first 12 are milliseconds since the epoch."""
    random = _random_hex()
    variant = "89ab"[int(random[3], 16) & 0b11]
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}7{random[:3]}{variant}{random[4:19]}"


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
